"""Do jobs of a power domain that has places for so many workers follow one plan, and what holds when there is none?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Condition, ConditionType, ProgressStatus, TrainingJobStatus
from drivetrain_energy.fleet.sharing import Capacity
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy.remembered import newest
from drivetrain_operator.plan.energy.together import Look, look
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import JobView, Shared, Supply, View
from unit.plan import builders as b
from unit.plan.test_energy import CLEAN, DIRTY, HOUR, NIGHT, STRIPES, fresh, running, signal, spec

HALL = Capacity(4)


def uid(name: str) -> str:
    return f"{name.encode().hex():>08}-0000"


class Hall:
    """Jobs of a domain, looked at and passed over by one leader, without pods."""

    def __init__(self, places: Capacity = HALL, given: Signal | None = NIGHT) -> None:
        self.places = places
        self.given = given
        self.jobs: dict[str, JobView] = {}
        self.found = Look()
        self.later = 0.0

    def add(self, name: str, of: TrainingJobSpec, status: TrainingJobStatus | None = None) -> None:
        self.jobs[name] = replace(b.job(of, status, created=b.NOW), uid=uid(name), name=name)

    @property
    def supply(self) -> Supply:
        return Supply("DE", {Measure.AVERAGE: self.given} if self.given is not None else {})

    def look(self) -> frozenset[str]:
        """Who is moved."""
        now = b.NOW + timedelta(seconds=self.later)
        given = [(job, self.supply) for job in self.jobs.values()]
        self.found = look("hall-1", self.places, given, self.found, now, 1000.0)
        return self.found.moved

    def passes(self) -> None:
        """One over each job, with what the look has found."""
        for name, job in self.jobs.items():
            self.jobs[name] = replace(job, status=self.passed(name))

    def passed(self, name: str, **seen: Any) -> TrainingJobStatus:
        job = self.jobs[name]
        member = job.uid in self.found.members
        shared = Shared("hall-1", self.found.grants.get(job.uid)) if member else None
        supply = replace(self.supply, shared=shared)
        now = b.NOW + timedelta(seconds=self.later)
        return plan(View(job, now, supply=supply, serving_seconds=1000.0, **seen)).status

    def plan_of(self, name: str) -> EnergyPlan:
        energy = self.jobs[name].status.energy
        assert energy is not None
        assert energy.plan is not None
        return energy.plan

    def most(self) -> int:
        """Workers of all plans together, at any time."""
        plans = [self.plan_of(name) for name in self.jobs]
        edges = {slot.start for each in plans for slot in each.slots}
        return max(sum(_at(each, edge) for each in plans) for edge in edges)


def _at(found: EnergyPlan, time: Any) -> int:
    before = [slot.workers for slot in found.slots if slot.start <= time]
    return before[-1] if before and time < found.end else 0


def test_two_jobs_do_not_plan_for_the_same_nodes() -> None:
    """Each alone would take all four places of the clean hours."""
    hall, alone = Hall(), Hall(Capacity(100))
    for each in (hall, alone):
        each.add("a", spec(steps=30_000))
        each.add("b", spec(steps=30_000))
        each.look()
        each.passes()
    assert alone.most() > 4
    assert hall.most() <= 4
    assert all(hall.plan_of(name).meets_deadline for name in "ab")


def test_who_waits_for_others_says_so_in_its_condition() -> None:
    """Both want the two clean hours, and there is one place."""
    one = spec(hours=6, steps=3_600, profile=[{"workers": 1, "stepsPerSecond": 1, "watts": 300}])
    hall = Hall(Capacity(1), signal(CLEAN, CLEAN, *[DIRTY] * 10))
    hall.add("a", one)
    hall.add("b", one)
    hall.look()
    hall.passes()
    said = [job.status.condition(ConditionType.ENERGY_PLANNED) for job in hall.jobs.values()]
    waits = [job.status.is_true(ConditionType.SUSPENDED) for job in hall.jobs.values()]
    assert sorted(waits) == [False, True]
    message = next(each.message for each, rests in zip(said, waits, strict=True) if rests and each is not None)
    assert "others have the nodes" in message
    assert "hall-1" in message


def test_what_holds_is_not_planned_again_nor_by_another_leader() -> None:
    hall = Hall()
    hall.add("a", spec(steps=30_000))
    hall.add("b", spec(steps=30_000))
    assert hall.look() == {uid("a"), uid("b")}
    hall.passes()
    before = {name: job.status for name, job in hall.jobs.items()}
    hall.later = 30.0
    assert hall.look() == frozenset()
    hall.found = Look()  # another leader
    assert hall.look() == frozenset()
    hall.passes()
    assert {name: job.status for name, job in hall.jobs.items()} == before


def test_jobs_that_wish_nothing_have_their_places() -> None:
    hall = Hall()
    hall.add("a", spec(steps=20_000))
    hall.add("plain", b.spec(workers=3))
    hall.look()
    hall.passes()
    assert {slot.workers for slot in hall.plan_of("a").slots} <= {0, 1}


@pytest.mark.parametrize(
    "wish",
    [
        {"deadline": None},
        {"profile": None},
        {"objective": "time"},
    ],
)
def test_who_cannot_be_planned_is_alone_and_no_other_suffers(wish: dict[str, Any]) -> None:
    hall = Hall()
    hall.add("a", spec(steps=10_000))
    hall.add("b", spec(**wish))
    hall.look()
    hall.passes()
    assert hall.plan_of("a").meets_deadline
    assert not hall.jobs["b"].status.is_true(ConditionType.SUSPENDED)


def test_the_deadline_comes_before_what_was_granted() -> None:
    """Its slack is used up before the next look, whatever it was granted an hour ago."""
    hall = Hall(given=signal(*[DIRTY] * 7, *[CLEAN] * 5))
    hall.add("a", spec(12.0))
    hall.look()
    hall.passes()
    assert hall.jobs["a"].status.is_true(ConditionType.SUSPENDED)
    hall.later = 11 * HOUR
    done = hall.passed("a")
    assert not done.is_true(ConditionType.SUSPENDED)
    assert done.energy is not None
    assert done.energy.order is not None
    assert (done.energy.order.by, done.energy.order.workers) == ("deadline", 4)


def test_and_is_counted_with_by_the_others() -> None:
    """Who runs flat out by itself has the nodes: those who have time make room."""
    hall = Hall(given=signal(CLEAN, *[DIRTY] * 11))
    hall.add("slow", spec(40.0, steps=4_000))
    hall.look()
    hall.passes()
    hall.add("late", spec(0.95))
    hall.passes()
    hall.jobs["late"] = replace(hall.jobs["late"], status=hall.passed("late"))
    hall.later = 10.0
    hall.look()
    hall.passes()
    assert hall.plan_of("late").slots[0].workers == 4
    assert hall.most() <= 4


def test_without_signals_they_run_as_nodes_are_free() -> None:
    """Two of two workers fit at once; the third says that it waits for them."""
    hall = Hall(given=None)
    for name in "abc":
        hall.add(name, spec(hours=40.0))
    hall.look()
    hall.passes()
    targets = sorted(job.status.workers.target for job in hall.jobs.values())
    assert targets == [0, 2, 2]
    waits = next(job.status for job in hall.jobs.values() if not job.status.workers.target)
    found = waits.condition(ConditionType.ENERGY_PLANNED)
    assert found is not None
    assert (found.reason, "others have the nodes" in found.message) == ("RunsAtOnce", True)


def test_a_new_job_waits_until_it_is_counted() -> None:
    job = b.job(spec(), created=b.NOW)
    supply = Supply("DE", {Measure.AVERAGE: signal(*[CLEAN] * 12)}, shared=Shared("hall-1"))
    waits = plan(View(job, b.NOW, supply=supply)).status
    assert waits.is_true(ConditionType.SUSPENDED)
    found = waits.condition(ConditionType.SUSPENDED)
    assert found is not None
    assert "its part in the plan of hall-1" in found.message
    after = plan(View(replace(job, status=waits), b.NOW, supply=replace(supply, shared=None))).status
    assert not after.is_true(ConditionType.SUSPENDED)


def test_who_runs_goes_on_as_it_did_until_it_is_counted() -> None:
    status, seen = running(spec())
    supply = Supply("DE", {Measure.AVERAGE: signal(*[CLEAN] * 12)}, shared=Shared("hall-1"))
    job = b.job(spec(), status, created=b.NOW)
    assert not plan(View(job, b.NOW, supply=supply, **seen)).status.is_true(ConditionType.SUSPENDED)


def test_other_wishes_are_planned_at_the_next_look() -> None:
    hall = Hall()
    hall.add("a", spec(steps=20_000))
    hall.look()
    hall.passes()
    old = hall.plan_of("a")
    hall.jobs["a"] = replace(hall.jobs["a"], spec=spec(steps=20_000, objective="energy"))
    hall.later = 10.0
    hall.passes()
    assert hall.plan_of("a") == old
    assert hall.look() == {uid("a")}
    hall.passes()
    assert hall.plan_of("a").asked != old.asked


@pytest.mark.parametrize(
    "wish",
    [
        {"profile": [{"workers": 2, "stepsPerSecond": 1e-308, "watts": 300}]},
        {"profile": [{"workers": 2, "stepsPerSecond": 5e-324, "watts": 300}], "maxCompletionFactor": 2},
        {"profile": [{"workers": 2, "stepsPerSecond": 1, "watts": 5e-324}], "maxCompletionFactor": 2},
    ],
    ids=["pace", "factor", "watts"],
)
def test_numbers_that_no_arithmetic_bears_are_their_own_jobs_trouble(wish: dict[str, Any]) -> None:
    hall = Hall()
    deadline: dict[str, Any] = {"deadline": None} if "maxCompletionFactor" in wish else {}
    hall.add("a", spec(steps=10_000))
    hall.add("b", spec(**deadline, **wish))
    hall.look()
    hall.passes()
    assert uid("a") in hall.found.members
    said = hall.jobs["b"].status.condition(ConditionType.ENERGY_PLANNED)
    assert said is not None
    assert said.reason == "CannotBePlanned"
    assert "2 workers" in said.message


@pytest.mark.parametrize(
    ("reason", "since", "ready", "left"),
    [
        ("Unschedulable", 3600.0, 0, 4),
        ("QuotaExceeded", 3600.0, 1, 3),
        ("Unschedulable", 60.0, 0, 0),
        ("WorkersStarting", 3600.0, 0, 0),
        ("ImagePullFailed", 3600.0, 0, 0),
    ],
)
def test_who_gets_no_nodes_keeps_places_from_others_for_ten_minutes_only(
    reason: str, since: float, ready: int, left: int
) -> None:
    """A job that asked for 4,096 workers, and never had one, kept all others from running, past their deadlines."""
    hall = Hall()
    status = b.started(b.spec(workers=4096))
    stands = Condition(type=ConditionType.READY, status="False", reason=reason, last_transition_time=b.ago(since))
    counts = status.workers.model_copy(update={"ready": ready, "current": 4096})
    hall.add("hog", b.spec(workers=4096), status.model_copy(update={"conditions": [stands], "workers": counts}))
    hall.add("a", spec(0.5, steps=20_000))
    hall.look()
    granted = hall.found.grants[uid("a")]
    assert max(slot.workers for slot in granted.slots) == left


def test_a_week_of_quarter_hours_fits_into_the_places_as_it_is_written() -> None:
    """A status carries 200 slots. Plans that were shortened to that took more places than there are: all jobs of the
    domain were planned anew at each look."""
    rng, begin = random.Random(7), b.NOW.timestamp()
    values = [rng.choice([50.0, 500.0, 200.0, 350.0]) for _ in range(398)]
    slots = tuple(Slot(begin + at * 900, begin + (at + 1) * 900, value) for at, value in enumerate(values))
    hall = Hall(Capacity(4), Signal("DE", Measure.AVERAGE, Quality.FORECAST, slots, 1.0, "test"))
    for name in "abcd":
        hall.add(name, spec(hours=99, steps=260_000))
    hall.look()
    hall.passes()
    assert hall.most() <= 4
    hall.later += 10
    assert hall.look() == frozenset()


def test_who_has_no_snapshots_is_not_planned_to_rest_once_it_runs() -> None:
    """It does not rest, whatever its plan says, and others were granted its places meanwhile."""
    hall = Hall(given=fresh(STRIPES))
    of = spec(8.0, 12_000, marginPercent=0).model_copy(update={"snapshots": None})
    hall.add("fixed", of, running(of)[0])
    hall.add("a", spec(8.0, 30_000, marginPercent=0))
    hall.look()
    hall.passes()
    assert all(slot.workers for slot in hall.plan_of("fixed").slots)
    assert hall.most() <= 4
    assert hall.plan_of("fixed").meets_deadline


def late(hall: Hall, name: str, step: int) -> None:
    """It has done so many steps, which is less than was expected."""
    status = hall.jobs[name].status.model_copy(update={"progress": ProgressStatus(step=step, steps=10_000)})
    hall.jobs[name] = replace(hall.jobs[name], status=status)


@pytest.mark.parametrize("feed", [None, replace(STRIPES, quality=Quality.NONE)], ids=["gone", "doubtful"])
def test_without_a_feed_who_is_behind_is_planned_anew_by_what_was_known(feed: Signal | None) -> None:
    """It kept a plan that does not do its work, until its deadline came, and ran flat out in the dirty hours."""
    halls = Hall(given=fresh(STRIPES)), Hall(given=fresh(STRIPES))
    for hall, then in zip(halls, (feed, replace(STRIPES, vintage=b.NOW.timestamp())), strict=True):
        hall.add("a", spec(8.0, marginPercent=0))
        hall.add("b", spec(8.0, 2_000, marginPercent=0))
        hall.look()
        hall.passes()
        hall.given, hall.later = then, HOUR + 1
        late(hall, "a", 3_000)
        assert uid("a") in hall.look()
        hall.passes()
        assert hall.most() <= 4
    after, beside = halls
    assert after.plan_of("a").mode == "planned"
    assert after.plan_of("a").meets_deadline
    assert after.plan_of("a").slots == beside.plan_of("a").slots, "as with the feed"
    assert after.jobs["a"].status.workers.target == 0, "it rests in the dirty hours"
    after.later += 60
    assert after.look() == frozenset(), "it holds"


def test_a_job_remembers_what_the_newest_plan_of_its_zone_knows() -> None:
    """Each by its own plan, two would plan for hours of different prices, and all would be planned anew for that."""
    hall = Hall(given=fresh(STRIPES))
    hall.add("a", spec(8.0, marginPercent=0))
    hall.look()
    hall.passes()
    dirtier = replace(STRIPES.slots[5], value=DIRTY + 50)
    slots = (*STRIPES.slots[:5], dirtier, *STRIPES.slots[6:])
    hall.given, hall.later = replace(STRIPES, slots=slots, vintage=b.NOW.timestamp() + 60), 60.0
    late(hall, "a", 110)
    hall.add("b", spec(8.0, 2_000, marginPercent=0))
    assert hall.look() == {uid("b")}
    hall.passes()
    hall.given, hall.later = None, HOUR + 1
    late(hall, "a", 3_000)
    assert uid("a") in hall.look()
    told = hall.found.grants[uid("a")].signal
    assert told is not None
    assert DIRTY + 50 in told.values


def test_what_is_remembered_is_one_signal_whatever_the_order() -> None:
    rng = random.Random(3)
    for _ in range(200):
        told = []
        for _ in range(rng.randint(1, 5)):
            start, step = rng.randint(0, 9) * 100.0, rng.choice([50.0, 100.0])
            slots = tuple(
                Slot(start + k * step, start + (k + 1) * step, rng.random()) for k in range(rng.randint(1, 9))
            )
            made = float(rng.randint(0, 2))
            told.append(Signal(rng.choice("XY"), Measure.AVERAGE, Quality.FORECAST, slots, made, "its plan"))
        found = newest(told)
        assert found == newest(rng.sample(told, len(told)))
        for zone in {each.zone for each in told}:
            of, one = [each for each in told if each.zone == zone], found[zone, Measure.AVERAGE]
            assert one.vintage == max(each.vintage for each in of)
            assert one.slots[-1].end == max(each.slots[-1].end for each in of)
            assert all(before.end <= after.start < after.end for before, after in pairwise(one.slots))
