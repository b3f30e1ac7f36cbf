"""When does a job try another size, and what does it learn of it? Through whole passes, as an operator makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyOrder
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.report import MemberReport
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.tries import TRY_SECONDS
from drivetrain_operator.plan.stored import read
from drivetrain_operator.plan.view import PowerOrder, ReportView, Shared, Supply, View
from unit.plan import builders as b

LOOK = 5.0
START = 20.0
"""Seconds until other workers train."""
DAY = 86_400


def spec(steps: int = DAY, days: float = 3.0, workers: int = 2, **energy: Any) -> TrainingJobSpec:
    """A day of work for its two workers."""
    wish = {"deadline": (b.NOW + timedelta(days=days)).isoformat(), "minRunSeconds": 0} | energy
    elastic = {"minWorkers": 1, "maxWorkers": 8}
    return b.spec(workers=workers, elastic=elastic, training={"steps": steps}, energy=wish)


@dataclass
class Scales:
    """A job that has the workers that were ordered, a little later, and is faster by that."""

    power: float = 0.6
    of: TrainingJobSpec = field(default_factory=spec)
    supply: PowerOrder | None = None
    status: TrainingJobStatus = field(default_factory=TrainingJobStatus)
    second: float = 0.0
    done: float = 0.0
    sizes: list[int] = field(default_factory=list)
    changes: int = 0
    shared: Shared | None = None
    stuck: bool = False
    """There is no room for more workers."""
    _since: float = 0.0

    def __post_init__(self) -> None:
        self.status = b.started(self.of)
        self.sizes = [self.of.workers]

    def seconds(self, length: float) -> Scales:
        until = self.second + length
        while self.second < until:
            self.second += LOOK
            wanted = self.status.workers.target
            if wanted == self.sizes[-1] or (self.stuck and wanted > self.sizes[-1]):
                self._since = self.second
            elif self.second - self._since >= START:
                self.sizes.append(wanted)
                self.changes += 1
            self.done += LOOK * (self.sizes[-1] / 2) ** self.power
            self._pass()
        return self

    def message(self) -> str:
        found = self.status.condition(ConditionType.ENERGY_PLANNED)
        return found.message if found is not None else ""

    def _pass(self) -> None:
        begin, world = b.NOW.timestamp(), self.sizes[-1]
        slots = tuple(Slot(begin + i * 3600, begin + (i + 1) * 3600, 100.0 + (i > 30)) for i in range(120))
        members = [
            MemberReport(rank=i, process=f"p{i}", pod_uid=f"w-{i}-0", pid=1, start_ticks=1, step=9)
            for i in range(world)
        ]
        uids = [each.pod_uid for each in members]
        progress = Progress(step=int(self.done) - 1, step_seconds=1.0)
        told = b.report(
            progress=progress, world=world, epoch=EpochId(1, 1 + self.changes), members=members, joined=uids, ready=uids
        )
        signal = Signal("DE", Measure.AVERAGE, Quality.FORECAST, slots, 1.0, "test")
        view = View(
            b.job(self.of, self.status, created=b.NOW),
            b.NOW + timedelta(seconds=self.second),
            pods=(*(b.worker(i) for i in range(world)), b.coordinator()),
            service=b.service(),
            report=ReportView(told.report, 0.0),
            supply=Supply("DE", {Measure.AVERAGE: signal}, order=self.supply, shared=self.shared),
        )
        self.status = read(status_json(plan(b.seen(view)).status))[0]


def test_a_job_without_a_profile_tries_one_other_size_once() -> None:
    """It says so meanwhile, and its next plan rests on both."""
    job = Scales(of=spec(days=1.2)).seconds(180)
    assert job.sizes == [2, 4]
    assert "4 workers for five minutes at most" in job.message()
    assert job.status.energy is not None
    assert job.status.energy.summary == "plan: 4"
    job.seconds(900)
    assert job.status.energy is not None
    assert job.status.energy.tried is not None
    assert job.status.energy.tried.over
    assert {each.workers for each in job.status.energy.measured} >= {2, 4}
    assert job.status.energy.plan is not None
    assert job.status.energy.plan.made > job.status.energy.tried.began
    assert "to the power of 0.6" in job.message()
    assert "minutes at most" not in job.message()
    before = len(job.sizes)
    job.seconds(3600)
    assert len(job.sizes) - before <= 1


def test_where_there_is_no_room_it_goes_on_as_before() -> None:
    job = Scales(of=spec(days=1.2), stuck=True).seconds(200)
    assert job.status.workers.target == 4
    job.seconds(TRY_SECONDS + 60)
    assert job.status.workers.target == 2
    assert job.status.energy is not None
    assert job.status.energy.tried is not None
    assert job.status.energy.tried.over


def test_with_all_its_workers_it_tries_fewer() -> None:
    assert Scales(of=spec(days=1.2, workers=8, steps=190_000)).seconds(300).sizes[:2] == [8, 4]


PROFILE = [{"workers": n, "stepsPerSecond": float(n), "watts": 300.0 * n} for n in range(1, 9)]


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("its author has said it", spec(days=1.2, profile=PROFILE)),
        ("little is left", spec(steps=DAY // 4, days=0.35)),
        ("there is no slack", spec(days=0.45)),
        ("it may have one size only", spec(days=1.2).model_copy(update={"elastic": None})),
        ("it waits for nothing", spec(objective="time")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_tries_nothing(name: str, of: TrainingJobSpec) -> None:
    job = Scales(of=of).seconds(900)
    assert job.status.energy is not None
    assert job.status.energy.tried is None


def test_a_limit_of_power_ends_it() -> None:
    job = Scales(of=spec(days=1.2)).seconds(180)
    assert job.status.workers.target == 4
    job.supply = PowerOrder(1, None, "hall-1 at 25%")
    job.seconds(LOOK)
    assert job.status.workers.target == 1
    assert job.status.energy is not None
    assert job.status.energy.order == EnergyOrder(workers=1, by="limit", why="hall-1 at 25%")


def test_who_shares_places_tries_nothing_and_ends_what_it_tries() -> None:
    """What one tries is another's."""
    job = Scales(of=spec(days=1.2), shared=Shared("hall-1")).seconds(600)
    assert job.status.energy is not None
    assert job.status.energy.tried is None
    job = Scales(of=spec(days=1.2)).seconds(180)
    job.shared = Shared("hall-1")
    job.seconds(2 * LOOK)
    assert job.status.workers.target == 2


def test_a_script_of_torchruns_tries_nothing() -> None:
    job = Scales(of=spec(days=1.2))
    job.status = job.status.model_copy(update={"runtime": "torchrun"})
    job.seconds(600)
    assert job.status.energy is not None
    assert job.status.energy.tried is None
