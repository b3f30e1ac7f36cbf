"""Does the leader plan the jobs of a power domain together, beside its loop, and each alone where it cannot?"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergySlot
from drivetrain_energy.settings import PowerDomain
from drivetrain_energy.signals.signal import Measure
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy import fleets
from drivetrain_operator.energy.fleets import LOST_SECONDS, NEW_SECONDS, Fleets
from drivetrain_operator.plan.energy.together import Look, look
from drivetrain_operator.plan.view import JobView, Supply
from unit.plan import builders as b
from unit.plan.test_energy import NIGHT, spec

HALL = PowerDomain.model_validate({"name": "hall-1", "nodeSelector": {"hall": "1"}, "zone": "DE", "workers": 4})


class Still(SystemClock):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return b.NOW + timedelta(seconds=self.seconds)


@dataclass
class Leader:
    jobs: list[JobView]
    clock: Still = field(default_factory=Still)
    moved: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        supply = Supply("DE", {Measure.AVERAGE: NIGHT})
        self.fleets = Fleets(self.clock, lambda: self.jobs, lambda: lambda job: (HALL, supply), self.moved.extend)

    async def look(self, domain: PowerDomain = HALL) -> None:
        await self.fleets.look([domain])

    def workers(self, job: JobView) -> list[EnergySlot]:
        shared = self.fleets.of(HALL, job)
        assert shared is not None
        assert shared.granted is not None
        return shared.granted.slots


def job(name: str, **wish: Any) -> JobView:
    return replace(b.job(spec(steps=30_000, **wish), created=b.NOW), name=name, uid=f"{name.encode().hex():>08}")


async def test_they_are_told_of_one_plan() -> None:
    leader = Leader([job("a"), job("b")])
    await leader.look()
    assert sorted(leader.moved) == sorted(each.uid for each in leader.jobs)
    slots = [slot for each in leader.jobs for slot in leader.workers(each)]
    edges = {slot.start for slot in slots}
    for edge in edges:
        at = [[s.workers for s in leader.workers(each) if s.start <= edge] for each in leader.jobs]
        assert sum(each[-1] for each in at if each) <= 4
    leader.clock.seconds += 10
    leader.moved.clear()
    await leader.look()
    assert leader.moved == []


async def test_the_order_in_which_they_are_known_is_of_no_matter() -> None:
    names = "abcdef"
    one, other = Leader([job(n) for n in names]), Leader([job(n) for n in reversed(names)])
    await one.look()
    await other.look()
    assert all(one.workers(each) == other.workers(each) for each in one.jobs)


async def test_without_places_each_is_alone() -> None:
    leader = Leader([job("a")])
    bare = HALL.model_copy(update={"workers": None})
    await leader.look(bare)
    assert leader.fleets.of(bare, leader.jobs[0]) is None
    assert leader.moved == []


async def test_a_new_job_is_waited_for_and_not_for_long() -> None:
    leader = Leader([job("a")])
    await leader.look()
    new = job("b")
    assert leader.fleets.of(HALL, new) is not None
    leader.clock.seconds += NEW_SECONDS
    assert leader.fleets.of(HALL, new) is None


async def test_who_cannot_be_planned_with_others_is_not_waited_for() -> None:
    leader = Leader([job("a"), job("b", deadline=None)])
    assert leader.fleets.of(HALL, leader.jobs[1]) is not None
    await leader.look()
    assert leader.fleets.of(HALL, leader.jobs[1]) is None


async def test_where_looks_fail_each_is_alone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader([job("a")])
    await leader.look()

    def fails(*_: Any) -> Look:
        raise RuntimeError("a defect")

    monkeypatch.setattr(fleets, "look", fails)
    leader.clock.seconds += 60
    await leader.look()
    assert leader.fleets.of(HALL, leader.jobs[0]) is not None
    leader.clock.seconds += LOST_SECONDS
    assert leader.fleets.of(HALL, leader.jobs[0]) is None


async def test_the_loop_goes_on_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends only because the loop has gone on."""
    leader, going = Leader([job("a")]), threading.Event()

    def waits(*given: Any) -> Look:
        assert going.wait(10)
        return look(*given)

    monkeypatch.setattr(fleets, "look", waits)
    looking = asyncio.create_task(leader.look())
    await asyncio.sleep(0.05)
    assert not looking.done()
    going.set()
    await looking
    assert len(leader.moved) == 1
