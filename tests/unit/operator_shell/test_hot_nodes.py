"""Nodes that are too hot, by what agents report: capped at once, left when that does not help, and given back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

import pytest

from drivetrain_api.power import REPORTS_CONFIGMAPS, DeviceReport, NodeReport, shard
from drivetrain_energy.power.heat import COOL_S, DRAIN_S, RELAPSE_S, STEP_S, STEPS
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy.agents import Agents
from drivetrain_operator.energy.capped import Placed, capped
from drivetrain_operator.energy.hot import FORGET_SECONDS, HotNodes, allowed
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.told_caps import ToldCaps
from drivetrain_operator.kube.client import KubeClient
from unit.plan import builders as b

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
ALLOWED = 85.0


def report(celsius: float | None = None, host: float | None = None, cards: int = 1) -> NodeReport:
    devices = [DeviceReport(uuid=f"GPU-{n}", least=100, most=400, celsius=celsius) for n in range(cards)]
    return NodeReport(at=0, devices=tuple(devices), host_celsius=host)


class Room:
    """Nodes that are looked at every five seconds."""

    def __init__(self) -> None:
        self.hot = HotNodes()
        self.now = 0.0
        self.news = 0

    def run(self, seconds: float, **reports: NodeReport) -> HotNodes:
        until = self.now + seconds
        while self.now < until:
            self.now += 5
            degrees = dict.fromkeys(self.hot.suspects(reports, ALLOWED), ALLOWED)
            self.news += self.hot.look(reports, degrees, self.now, BEGAN + timedelta(seconds=self.now))
        return self.hot


def test_a_hot_node_is_capped_at_once_and_no_other_is() -> None:
    room = Room()
    hot = room.run(5, a=report(91), b=report(70), c=report())
    assert dict(hot.caps) == {"a": 325}
    assert [(each.node, each.leaves_since) for each in hot.found.values()] == [("a", None)]
    assert hot.found["a"].why == "node a: 91 °C, 85 °C allowed: its cards are capped"
    room.run(20, a=report(92), b=report(70))
    assert room.news == 1, "what is said once is not said with every degree"


def test_the_cap_holds_for_all_pods_of_ours_there_and_the_lower_of_two_counts() -> None:
    jobs = [
        Placed("x", None, (b.worker(0, uid="x0", node="a"), b.worker(1, uid="x1", node="b"))),
        Placed("y", 300.0, (b.worker(0, uid="y0", node="a"),)),
    ]
    hot = Room().run(5, a=report(91))
    assert capped(jobs, {"a": report()}, hot.caps) == {"a": {"x0": 325, "y0": 300}}


def test_it_is_left_when_its_least_cap_does_not_help() -> None:
    room = Room()
    hot = room.run(STEP_S * STEPS, a=report(91))
    assert (dict(hot.caps), hot.found["a"].leaves_since) == ({"a": 100}, None)
    hot = room.run(DRAIN_S + 5, a=report(91))
    assert hot.found["a"].leaves_since is not None
    since = hot.found["a"].leaves_since
    assert "jobs are to leave" in hot.found["a"].why
    assert room.run(60, a=report(91)).found["a"].leaves_since == since
    hot = room.run(COOL_S + 10, a=report(60))
    assert hot.found["a"].leaves_since is None
    assert hot.found["a"].why == "node a cools down: its cards are still capped"
    hot = room.run(COOL_S * STEPS, a=report(60))
    assert (dict(hot.caps), dict(hot.found)) == ({}, {})


def test_a_node_without_cards_is_left_without_a_word_of_caps() -> None:
    hot = Room().run(5, a=report(host=95, cards=0))
    assert (dict(hot.caps), hot.found["a"].why) == ({}, "node a: 95 °C, 85 °C allowed")


def test_an_agent_that_is_gone_changes_nothing_for_a_while() -> None:
    room = Room()
    room.run(5, a=report(91))
    assert dict(room.run(FORGET_SECONDS - 10).caps) == {"a": 325}
    assert dict(room.run(20).caps) == {}


def test_a_node_may_be_as_hot_as_the_domains_of_its_jobs_say() -> None:
    domains = {"x": domain("x", 80.0), "y": domain("y", 90.0), "z": domain("z", None)}
    placed = {name: Placed(name, None, (b.worker(0, node="a"), b.worker(1, node=name))) for name in domains}
    jobs = [b.job(uid=name) for name in (*domains, "none")]
    found = allowed(frozenset({"a", "y", "z"}), placed, jobs, lambda job: domains.get(job.uid))
    assert found == {"a": 90.0, "y": 90.0}, "x's word caps nobody but itself"
    own = {"a": 70.0, "y": math.inf}
    found = allowed(frozenset({"a", "y", "x"}), placed, jobs, lambda job: domains.get(job.uid), own.get)
    assert found == {"a": 70.0, "y": math.inf, "x": 80.0}, "what the node itself hangs on, where that is known"


@pytest.mark.parametrize(("hot", "cool"), [(5, 65), (10, 70), (30, 120), (5, 600)])
def test_a_node_that_is_hot_whenever_it_has_no_cap_is_no_news_every_minute(hot: int, cool: int) -> None:
    """Each is an event, a write of each job's status, and a plan: there were a hundred an hour."""
    room = Room()
    while room.now < 3600:
        room.run(hot, a=report(86))
        room.run(cool, a=report(79))
    assert room.news <= 12
    first, room.news = room.now, 0
    while room.now < first + 3600:
        room.run(hot, a=report(86))
        room.run(cool, a=report(79))
    assert room.news <= 5


def test_after_an_hour_without_a_cap_it_begins_anew() -> None:
    room = Room()
    for _ in range(3):
        room.run(5, a=report(86))
        room.run(300, a=report(60))
    assert dict(room.hot.caps) == {}
    room.run(RELAPSE_S, a=report(60))
    room.run(5, a=report(86))
    assert dict(room.run(COOL_S + 10, a=report(60)).caps) == {}


def test_a_hall_that_cools_and_heats_makes_nobody_leave_each_time() -> None:
    """Workers that come back to hot nodes, as there are no others, would leave again and again."""
    room, left = Room(), set()
    while room.now < 2 * 3600:
        hot = room.run(5, a=report(91 if room.now % 300 < 220 else 79))
        if hot.found and hot.found["a"].leaves_since is not None:
            left.add(hot.found["a"].leaves_since)
    assert len(left) <= 2


class Time(SystemClock):
    """By which our clock is ahead of the API server's, and how long it goes."""

    ahead = timedelta(0)
    seconds = 0.0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.seconds) + self.ahead

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Leader:
    """What it hears of one node at each look, and one job with a worker there."""

    degrees: float | None = 60.0
    own: float | None = None
    celsius: float = 70.0
    clock: Time = field(default_factory=Time)

    def __post_init__(self) -> None:
        client = cast(KubeClient, self)
        reports, told = Reports(client, "ns", self.clock), ToldCaps(client, "ns", self.clock, Random(1))
        pods = (b.worker(0, uid="x0", node="a", created=BEGAN),)
        self.agents = Agents(reports, told, self.clock, lambda: [Placed("x", None, pods)], lambda: True)

    async def get(self, kind: Any, name: str, *args: Any, **options: Any) -> dict[str, Any]:
        said = report(self.celsius).model_copy(update={"at": self.clock.now().timestamp()})
        return {"data": {"a": said.model_dump_json()}} if name == REPORTS_CONFIGMAPS[shard("a")] else {}

    async def run(self, seconds: float) -> bool:
        """Whether anything was news."""
        news, until = False, self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.clock.seconds += 5
            await self.agents.hear()
            news = self._feel() or news
        return news

    def _feel(self) -> bool:
        mine, other = domain("mine", self.degrees), domain("other", 80.0)
        return self.agents.feel([mine, other], [b.job(uid="x")], lambda job: mine, lambda node: self.own)


def domain(name: str, degrees: float | None) -> PowerDomain:
    given = {"name": name, "nodeSelector": {"a": "b"}, "zone": "DE", "maxTemperatureC": degrees}
    return PowerDomain.model_validate(given)


@pytest.mark.parametrize("higher", [75.0, None], ids=["raised", "taken away"])
async def test_a_limit_that_is_raised_caps_nobody_any_more(higher: float | None) -> None:
    """The node stayed capped, and was left, as long as it was above the old limit."""
    leader = Leader()
    assert await leader.run(5)
    assert leader.agents.hot.caps
    leader.degrees = higher
    assert await leader.run(5 if higher is None else COOL_S + 10)
    assert (dict(leader.agents.hot.caps), dict(leader.agents.hot.found)) == ({}, {})


async def test_a_known_node_without_a_limit_is_given_back() -> None:
    leader = Leader(degrees=80.0, own=80.0, celsius=85.0)
    assert await leader.run(5)
    leader.own = math.inf
    assert await leader.run(5)
    assert dict(leader.agents.hot.caps) == {}


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=3), timedelta(hours=-3)], ids=str)
async def test_whatever_our_clock_says_those_leave_that_are_there_and_no_later_ones(ahead: timedelta) -> None:
    """By a clock that was ahead, each successor was older than the moment when the node had to be left."""
    leader = Leader()
    leader.clock.ahead = ahead
    await leader.run(STEP_S * STEPS + DRAIN_S + 30)
    assert leader.agents.hot.found["a"].leaves_since == BEGAN
