"""Nodes that are too hot, by what agents report: capped at once, left when that does not help, and given back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from drivetrain_api.power import DeviceReport, NodeReport
from drivetrain_energy.heat import COOL_S, DRAIN_S, STEP_S, STEPS
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.energy.capped import Placed, capped
from drivetrain_operator.energy.hot import FORGET_SECONDS, HotNodes, allowed
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
    def domain(name: str, degrees: float | None) -> PowerDomain:
        given = {"name": name, "nodeSelector": {"a": "b"}, "zone": "DE", "maxTemperatureC": degrees}
        return PowerDomain.model_validate(given)

    domains = {"x": domain("x", 80.0), "y": domain("y", 90.0), "z": domain("z", None)}
    placed = {name: Placed(name, None, (b.worker(0, node="a"), b.worker(1, node=name))) for name in domains}
    jobs = [b.job(uid=name) for name in (*domains, "none")]
    found = allowed(frozenset({"a", "y", "z"}), placed, jobs, lambda job: domains.get(job.uid))
    assert found == {"a": 80.0, "y": 90.0}
