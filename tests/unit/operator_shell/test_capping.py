"""A limited power domain whose nodes have agents: caps first, by what cards take; the meter corrects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from drivetrain_api.power import DeviceReport, NodeReport
from drivetrain_energy.job.curve import Point
from drivetrain_energy.power.assumed_caps import SHARES, with_caps
from drivetrain_energy.power.caps import Limits, line
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.energy.capped import Placed
from drivetrain_operator.energy.cards import Cards, cards, drawn
from drivetrain_operator.energy.domains import Domain
from drivetrain_operator.energy.limits import Limited
from drivetrain_operator.plan.view import JobView
from unit.plan import builders as b

DOMAIN = PowerDomain.model_validate({"name": "hall-1", "nodeSelector": {"hall": "1"}, "zone": "DE"})
LIMITS = Limits(100, 400)
PROFILE = [{"workers": n, "stepsPerSecond": n, "watts": 400 * n} for n in (1, 2, 3, 4)]


def job(workers: int = 4, current: int | None = None, gpus: int = 1) -> JobView:
    of = b.spec(
        workers=workers,
        elastic={"minWorkers": 1, "maxWorkers": workers},
        gpusPerWorker=gpus,
        energy={"profile": PROFILE, "tier": 3},
    )
    status = b.started(of)
    counts = status.workers.model_copy(update={"current": workers if current is None else current})
    return b.job(of, status.model_copy(update={"workers": counts}))


@dataclass
class Hall:
    """One job on four cards that do what they are told, two seconds later."""

    job: JobView = field(default_factory=job)
    has_agents: bool = True
    obeys: bool = True
    truth: float = 1.0
    """Watts drawn over watts expected."""
    held: Domain = field(default_factory=Domain)
    now: float = 0.0
    cap: float | None = None
    _orders: list[tuple[float, float | None]] = field(default_factory=list)

    @property
    def watts(self) -> float:
        full = with_caps(tuple(Point(n, n, 400 * n) for n in (1, 2, 3, 4)), 1, LIMITS)
        workers = self.job.status.workers.current
        return line(full, workers, LIMITS).at_cap(self.cap).watts * self.truth

    def run(self, seconds: int, limit: float | None) -> None:
        for _ in range(seconds):
            self.now += 1
            told = Limited(limit, "a limit") if limit is not None else None
            known = {self.job.uid: Cards(LIMITS, self.cap)} if self.has_agents else {}
            self.held.tick(DOMAIN, told, [self.job], self.now, known, self.measured())
            order = self.held.orders.get(self.job.uid)
            self._orders.append((self.now, order.cap_watts if order is not None else None))
            if self.obeys:
                self.cap = next((cap for at, cap in reversed(self._orders) if at <= self.now - 2), None)
            if order is not None and order.workers < self.job.status.workers.current:
                self.job = job(current=order.workers)

    def measured(self) -> Callable[[float], float | None]:
        return lambda since: self.watts if since < self.now else None


def test_where_agents_report_a_limit_is_met_by_caps_and_no_worker_goes() -> None:
    hall = Hall()
    hall.run(10, 0.8 * 1600)
    order = hall.held.orders[hall.job.uid]
    assert order.workers == 4
    assert order.cap_watts is not None
    assert 250 < order.cap_watts < 400
    assert hall.cap == order.cap_watts
    assert hall.watts <= 0.8 * 1600


def test_without_agents_workers_go() -> None:
    hall = Hall(has_agents=False)
    hall.run(5, 0.8 * 1600)
    order = hall.held.orders[hall.job.uid]
    assert (order.workers, order.cap_watts) == (3, None)


def test_who_takes_longer_to_shrink_than_is_waited_for_is_told_as_long_as_it_takes() -> None:
    """A job shrinks when its step is over. After twelve seconds the limit was taken back, and the job never shrank."""
    held, slow = Domain(), job()
    for second in range(60):
        held.tick(DOMAIN, Limited(0.7 * 1600, "a limit"), [slow], float(second))
        assert held.orders[slow.uid].workers == 2, f"after {second} s"
    slow = job(current=2)
    for second in range(60, 90):
        held.tick(DOMAIN, Limited(0.7 * 1600, "a limit"), [slow], float(second))
        assert held.orders[slow.uid].workers == 2
    second = 90
    while not held.idle and second < 300:
        second += 1
        held.tick(DOMAIN, None, [slow], float(second))
    assert dict(held.orders) == {}


def test_a_job_without_gpus_has_no_caps_whatever_its_nodes_have() -> None:
    hall = Hall(job(gpus=0))
    hall.run(1, 0.8 * 1600)
    order = hall.held.orders[hall.job.uid]
    assert (order.workers, order.cap_watts) == (3, None)


def test_below_what_caps_reach_workers_go_and_the_rest_is_capped_never_below_the_knee() -> None:
    hall = Hall()
    hall.run(60, 0.4 * 1600)
    order = hall.held.orders[hall.job.uid]
    assert order.workers < 4
    assert order.cap_watts is None or order.cap_watts >= int(SHARES[0][0] * 400)
    assert hall.watts <= 0.4 * 1600


def test_an_agent_that_sets_nothing_is_made_up_for() -> None:
    hall = Hall(obeys=False)
    hall.run(30, 0.8 * 1600)
    assert hall.held.orders[hall.job.uid].workers == 3
    assert hall.watts <= 0.8 * 1600


def test_the_meter_lowers_caps_that_are_not_enough() -> None:
    hall = Hall(truth=1.08)
    hall.run(60, 0.8 * 1600)
    assert hall.watts <= 0.8 * 1600
    assert hall.held.orders[hall.job.uid].workers == 4


def test_caps_are_over_within_a_minute_after_the_limit() -> None:
    hall = Hall()
    hall.run(30, 0.8 * 1600)
    hall.run(60, None)
    assert (dict(hall.held.orders), hall.cap, hall.held.idle) == ({}, None, True)


def device(uid: str, pods: tuple[str, ...] = (), cap: float | None = None, **fields: float | None) -> DeviceReport:
    given = {"least": 100.0, "most": 400.0, "watts": 300.0} | fields
    return DeviceReport.model_validate({"uuid": uid, "pods": pods, "cap": cap, **given})


def node(*devices: DeviceReport, host: float | None = 150.0) -> NodeReport:
    return NodeReport(at=0, devices=devices, host_watts=host)


TEAM = Placed("job", 250.0, (b.worker(0, uid="p0", node="a"), b.worker(1, uid="p1", node="b")))


def test_cards_of_a_job_are_those_on_which_its_workers_compute() -> None:
    reports = {
        "a": node(device("1", ("p0",), 250), device("2", ("other",), None, least=300.0)),
        "b": node(device("3", ("p1",), 240, most=350.0)),
    }
    assert cards(TEAM, reports) == Cards(Limits(100, 400), 250)


def test_what_an_administrator_has_set_is_in_force_too() -> None:
    """His is lower, so that the agent sets none: nobody waits for ours, or makes up for it."""
    reports = {
        "a": node(device("1", ("p0",), 250, limit=250.0)),
        "b": node(device("2", ("p1",), None, limit=220.0)),
    }
    found = cards(TEAM, reports)
    assert found is not None
    assert found.cap == 250
    free = {name: node(device(name, (f"p{n}",), None, limit=400.0)) for n, name in enumerate("ab")}
    known = cards(TEAM, free)
    assert known is not None
    assert known.cap is None


@pytest.mark.parametrize(
    "b_has",
    [node(device("3", ("p1",), None)), node(device("3", (), 250))],
    ids=["one without a cap", "nobody computes there"],
)
def test_a_cap_counts_only_where_it_is_on_all_cards(b_has: NodeReport) -> None:
    found = cards(TEAM, {"a": node(device("1", (), None)), "b": b_has})
    assert found is not None
    assert found.cap is None


@pytest.mark.parametrize("reports", [{}, {"a": node(device("1"))}, {"a": node(device("1")), "b": node()}])
def test_a_job_with_a_node_that_nobody_tells_of_is_not_capped(reports: dict[str, NodeReport]) -> None:
    assert cards(TEAM, reports) is None


def test_a_domain_is_measured_only_if_all_of_it_is() -> None:
    whole = {"a": node(device("1"), device("2")), "b": node(device("3"))}
    assert drawn(["a", "b"], whole) == 1200
    assert drawn(["a", "b", "c"], whole) is None
    assert drawn(["a"], {"a": node(device("1", watts=None))}) is None
    assert drawn(["a"], {"a": node(device("1"), host=None)}) is None
    assert drawn([], whole) is None


def test_caps_that_an_author_measured_are_not_assumed_again() -> None:
    said = (Point(1, 1.0, 400.0), Point(1, 0.9, 250.0, 240.0), Point(2, 1.9, 800.0))
    found = with_caps(said, 1, LIMITS)
    assert found[:3] == said
    assert {point.workers for point in found[3:]} == {2}
    assert all(point.cap_watts is not None and point.cap_watts >= 100 for point in found[3:])
    assert with_caps(said, 0, LIMITS) == said
