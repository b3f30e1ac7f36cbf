"""How fast is a job, by what is counted of its steps? Through whole passes, as an operator makes them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_api.energy_plan import EnergyMeasured
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.places import Standstill
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Membership, TrainingJobStatus
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.stored import read
from drivetrain_operator.plan.view import PowerOrder, ReportView, Supply, View
from unit.plan import builders as b

DAYS = 4 * 86_400
LOOK = 5.0
"""Seconds between two passes."""


def signal() -> Signal:
    """All hours the same but for the first six, which are the best: it runs in them."""
    begin = b.NOW.timestamp()
    slots = tuple(Slot(begin + i * 3600, begin + (i + 1) * 3600, 50.0 if i < 6 else 60.0) for i in range(240))
    return Signal("DE", Measure.AVERAGE, Quality.FORECAST, slots, 1.0, "test")


def spec(pace: float = 5.0) -> TrainingJobSpec:
    """Four days of work in nine."""
    wish = {"deadline": (b.NOW + timedelta(days=9)).isoformat(), "suspend": False}
    return b.spec(workers=2, training={"steps": int(DAYS * pace)}, energy=wish)


@dataclass
class Trains:
    """A job that is looked at every few seconds, and what was written of it."""

    pace: Callable[[float], float]
    """Steps a second at so many seconds."""
    of: TrainingJobSpec = field(default_factory=spec)
    status: TrainingJobStatus = field(default_factory=TrainingJobStatus)
    second: float = 0.0
    done: float = 0.0
    writes: int = 0
    plans: int = 0
    epoch: EpochId = field(default_factory=lambda: EpochId(1, 1))
    stands: Standstill | None = None
    limit: PowerOrder | None = None

    def __post_init__(self) -> None:
        self.status = b.started(self.of)

    def seconds(self, length: float) -> Trains:
        until = self.second + length
        while self.second < until:
            self.second += LOOK
            self.done += LOOK * self.pace(self.second) if self.stands is None else 0.0
            self._pass()
        return self

    def measured(self, workers: int = 2) -> float:
        found = self.status.energy.measured if self.status.energy is not None else []
        return next((each.steps_per_second for each in found if each.workers == workers), 0.0)

    def _pass(self) -> None:
        progress = Progress(step=int(self.done) - 1, step_seconds=1 / self.pace(self.second))
        told = b.report(progress=progress, world=2, epoch=self.epoch, standstill=self.stands).report
        two = {name: getattr(told, name)[:2] for name in ("members", "joined", "ready")}
        view = View(
            b.job(self.of, self.status, created=b.NOW),
            b.NOW + timedelta(seconds=self.second),
            pods=(b.worker(0), b.worker(1), b.coordinator()),
            service=b.service(),
            report=ReportView(told.model_copy(update=two), 0.0),
            supply=Supply("DE", {Measure.AVERAGE: signal()}, order=self.limit),
        )
        after = plan(b.seen(view)).status
        old = self.status.energy.plan if self.status.energy is not None else None
        new = after.energy.plan if after.energy is not None else None
        self.plans += old is not None and new != old
        self.writes += after != self.status
        self.status, _ = read(status_json(after))  # whoever leads next has no more than that


def wobbling(mean: float, share: float, every: float, seed: int = 7) -> Callable[[float], float]:
    """Another pace, evenly between mean ± share, so often."""
    return lambda second: mean * (1 + share * random.Random(seed * 10**6 + int(second // every)).uniform(-1, 1))


@pytest.mark.parametrize("mean", [0.5, 5.0, 300.0])
@pytest.mark.parametrize("every", [LOOK, 30.0])
def test_noise_moves_nobody(mean: float, every: float) -> None:
    """An hour in which the pace is anything between 0.8 and 1.2 of what it is on average."""
    job = Trains(wobbling(mean, 0.2, every), spec(mean)).seconds(600)
    job.writes, job.plans, true = 0, 0, job.done
    job.seconds(3600)
    assert job.measured() == pytest.approx((job.done - true) / 3600, rel=0.03)
    assert job.writes <= 65  # progress is written once a minute anyway
    assert job.plans <= 2


def in_turn(*parts: tuple[float, float]) -> Callable[[float], float]:
    """So many seconds at such a pace, then as the next, over and over."""
    whole = sum(seconds for seconds, _ in parts)

    def pace(second: float) -> float:
        at = second % whole
        for seconds, steps in parts:
            if at < seconds:
                return steps
            at -= seconds
        return parts[-1][1]

    return pace


def written_in_an_hour(job: Trains) -> int:
    """After ten minutes; what another plan wrote is not of the pace."""
    job.seconds(600)
    job.writes = job.plans = 0
    job.seconds(3600)
    return job.writes - job.plans


STANDS = 0.0001


@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(in_turn((30, 5.0), (30, STANDS)), id="stands still half of each minute"),
        pytest.param(in_turn((20, 5.0), (40, STANDS)), id="two thirds of it"),
        pytest.param(in_turn((25, 5.0), (20, STANDS)), id="out of step with minutes"),
        pytest.param(in_turn((55, 1.0), (5, 60.0)), id="bursts"),
        pytest.param(in_turn(*((10, float(n)) for n in range(1, 10))), id="sawtooth"),
        pytest.param(in_turn((45, 3.0), (45, 8.0)), id="two paces"),
        pytest.param(wobbling(5.0, 0.9, 30.0), id="anything"),
    ],
)
def test_a_pattern_writes_no_more_than_noise(pace: Callable[[float], float]) -> None:
    """180 an hour before."""
    job = Trains(pace)
    assert written_in_an_hour(job) <= 65
    assert job.plans <= 2


def test_who_stands_still_half_of_each_minute_has_half_the_pace() -> None:
    assert Trains(in_turn((30, 5.0), (30, STANDS))).seconds(4200).measured() == pytest.approx(2.5, rel=0.1)


@settings(max_examples=8, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([5.0, 10.0, 30.0, 60.0, 300.0]), st.sampled_from([STANDS, 0.5, 3.0, 5.0, 9.0])),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_it_does_its_pace_is_worth_few_writes(parts: list[tuple[float, float]]) -> None:
    assert written_in_an_hour(Trains(in_turn(*parts))) <= 66


@pytest.mark.parametrize("known", [True, False])
def test_steps_that_are_taken_back_again_and_again_are_worth_few_writes(known: bool) -> None:
    """As by a job whose state is lost every quarter of a minute, also before its pace is known."""
    job = Trains(lambda _: 5.0).seconds(600 if known else 0)
    job.writes = job.plans = 0
    for _ in range(240):
        job.seconds(15)
        job.done = max(0.0, job.done - 70)
    assert job.writes - job.plans <= 66


def test_a_clock_that_was_ahead_for_years_does_not_silence_it() -> None:
    job = Trains(lambda second: 5.0 if second <= 3600 else 2.5).seconds(1200)
    assert job.status.energy is not None
    ahead = job.status.energy.model_copy(update={"pace_paid": 1e12})
    job.status = job.status.model_copy(update={"energy": ahead})
    job.seconds(2400)
    assert job.measured() == pytest.approx(5.0, rel=0.02)
    job.seconds(90)
    assert job.measured() == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("change", [0.7, 1.3, 0.5, 2.0])
def test_what_changes_is_taken_over(change: float) -> None:
    job = Trains(lambda second: 5.0 if second <= 3600 else 5.0 * change).seconds(3600)
    assert job.measured() == pytest.approx(5.0, rel=0.01)
    job.seconds(90)
    assert job.measured() == pytest.approx(5.0 * change, rel=0.03)


def test_a_pause_is_no_pace() -> None:
    job = Trains(lambda second: 0.0001 if 3000 < second <= 3020 else 5.0).seconds(3200)
    assert job.measured() == pytest.approx(5.0, rel=0.05)


def test_what_it_does_under_a_power_cap_is_not_its_pace() -> None:
    job = Trains(lambda second: 3.0 if 1200 < second <= 2400 else 5.0).seconds(1200)
    job.limit = PowerOrder(2, 250.0, "hall")
    job.seconds(1200)
    assert job.measured() == pytest.approx(5.0, rel=0.01)
    job.limit = None
    job.seconds(600)
    assert job.measured() == pytest.approx(5.0, rel=0.01)


def test_first_steps_do_not_count() -> None:
    """Three steps take 40 seconds; what is known then is of those after them, and made one plan."""
    job = Trains(lambda second: 3 / 40 if second <= 40 else 5.0).seconds(40)
    assert not job.measured()
    job.seconds(300)
    assert job.measured() == pytest.approx(5.0, rel=0.05)
    assert job.plans <= 1


def test_nor_do_those_of_another_membership() -> None:
    job = Trains(lambda second: 3 / 40 if 1200 < second <= 1240 else 5.0).seconds(1200)
    job.epoch = EpochId(1, 2)
    job.status = job.status.model_copy(update={"membership": Membership(term=1, epoch=1, since=b.ago(600))})
    job.plans = 0
    job.seconds(300)
    assert job.measured() == pytest.approx(5.0, rel=0.02)
    assert not job.plans


def test_who_stands_still_has_no_pace() -> None:
    job = Trains(lambda _: 5.0).seconds(1200)
    job.stands = Standstill(seconds=60.0, message="rank 0 waits")
    job.seconds(600)
    job.stands = None
    job.seconds(600)
    assert job.measured() == pytest.approx(5.0, rel=0.01)


def test_an_unknown_pace_is_known_within_a_minute() -> None:
    """And a plan is made of it."""
    job = Trains(lambda _: 5.0)
    assert job.seconds(40).measured() == pytest.approx(5.0, rel=0.05)
    energy = job.seconds(LOOK).status.energy
    assert energy is not None
    assert energy.plan is not None


def test_who_has_two_minutes_knows_sooner() -> None:
    wish = {"deadline": (b.NOW + timedelta(seconds=120)).isoformat()}
    of = b.spec(workers=2, training={"steps": 400}, energy=wish)
    assert Trains(lambda _: 5.0, of).seconds(3 * LOOK).measured() == pytest.approx(5.0, rel=0.05)


def test_what_an_older_release_has_measured_is_measured_again() -> None:
    job = Trains(lambda _: 5.0)
    old = EnergyStatus(measured=[EnergyMeasured(workers=2, steps_per_second=50.0)])
    job.status = job.status.model_copy(update={"energy": old})
    assert job.seconds(300).measured() == pytest.approx(5.0, rel=0.02)


def test_a_clock_that_is_set_back_measures_from_there() -> None:
    job = Trains(lambda _: 5.0).seconds(1800)
    job.second -= 900
    job.seconds(600)
    assert job.measured() == pytest.approx(5.0, rel=0.02)


def test_who_wishes_nothing_is_not_measured() -> None:
    job = Trains(lambda _: 5.0, of=spec().model_copy(update={"energy": None})).seconds(600)
    assert job.status.energy is None


@pytest.mark.parametrize("leap", [10**9, 10**12, 10**15])
def test_a_job_that_tells_of_any_number_of_steps_is_looked_at_all_the_same(leap: int) -> None:
    """What its own coordinator tells may be anything, and a thousand million steps are a long run."""
    trains = Trains(lambda at: 5.0, spec(pace=1000.0)).seconds(60)
    trains.done = float(leap)
    trains.seconds(120)
    assert trains.measured() <= 1e6
    assert trains.status.progress is not None
    assert trains.status.progress.step == trains.of.training.steps


@pytest.mark.parametrize("step_seconds", [1e300, 1e9, -1.0])
def test_a_job_that_would_take_for_ever_is_believed_all_else(step_seconds: float) -> None:
    told = b.report(progress=Progress(step=9, steps=10**12, step_seconds=step_seconds))
    found = plan(b.running(b.spec(), report=told)).status.progress
    assert found is not None
    assert (found.step, found.eta_seconds, found.eta) == (10, None, "")
