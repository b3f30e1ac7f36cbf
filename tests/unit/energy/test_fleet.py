"""Do many jobs fit into what they share, near the optimum, fairly, and whatever the order in which they came?"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.energy import fleets
from bench.energy.zones import zones
from drivetrain_energy.fleet.member import Granted, Member
from drivetrain_energy.fleet.sharing import Capacity, share
from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.request import RequestInvalid
from harness.energy import AMDAHL, HOUR, request, signal

DAY = signal([100.0, 300.0, 200.0, 400.0] * 12)


def member(name: str, namespace: str = "one", hours: float = 10, deadline: float = 24, **given: object) -> Member:
    asked = {"signal": DAY, "work_steps": hours * HOUR, "deadline": deadline * HOUR, **given}
    return Member(namespace, name, request(**asked))


MEMBERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(1, 30), st.integers(2, 48)), min_size=1, max_size=12
).map(lambda rows: [member(f"job-{at}", *row) for at, row in enumerate(rows)])


def steps(one: Granted) -> float:
    return sum(slot.throughput * (slot.end - slot.start) for slot in one.slots)


def most(granted: Sequence[Granted], attribute: str) -> float:
    """The highest sum over jobs, at any time."""
    edges = sorted({edge for one in granted for slot in one.slots for edge in (slot.start, slot.end)})
    sums = [
        sum(getattr(slot, attribute) for one in granted for slot in one.slots if slot.start <= edge < slot.end)
        for edge in edges
    ]
    return max(sums, default=0)


@settings(max_examples=80, deadline=None)
@given(members=MEMBERS, nodes=st.integers(1, 30), watts=st.sampled_from([None, 900.0, 5000.0]), seed=st.integers(0, 99))
def test_what_is_granted_is_there_and_does_not_depend_on_order(
    members: list[Member], nodes: int, watts: float | None, seed: int
) -> None:
    granted = share(members, Capacity(nodes, watts))

    assert most(granted, "workers") <= nodes
    assert watts is None or most(granted, "watts") <= watts + 1e-6
    for one in granted:
        asked = one.member.request
        assert steps(one) == pytest.approx(asked.work_steps, rel=1e-6) or not one.done
        assert steps(one) <= asked.work_steps * (1 + 1e-6)
    random.Random(seed).shuffle(members)
    assert share(members, Capacity(nodes, watts)) == granted


@pytest.mark.parametrize("seed", range(3))
def test_forty_jobs_are_near_the_optimum_and_in_time(seed: int) -> None:
    found = fleets.measure(zones()["solar"], seed)
    assert found.missed == 0
    assert found.at_once < 1.06
    assert found.ours < min(1.10, found.scaler)


def test_namespaces_get_alike_where_there_is_too_little() -> None:
    many = [member(f"job-{at}", "many", hours=40) for at in range(9)]
    few = [member(f"job-{at}", "few", hours=40) for at in range(3)]
    got = {"many": 0.0, "few": 0.0}
    for one in share([*many, *few], Capacity(4)):
        got[one.member.namespace] += steps(one)
    assert got["few"] > 0.4 * sum(got.values())


def test_who_has_no_time_comes_before_who_has() -> None:
    late = member("late", "b", hours=20, deadline=5)
    early = [member(f"job-{at}", "a", hours=8, deadline=48) for at in range(8)]
    granted = {one.member.name: one for one in share([*early, late], Capacity(8))}
    assert all(one.done for one in granted.values())
    assert granted["late"].slots[0].workers == 8


def test_without_a_signal_it_takes_its_usual_size_at_once() -> None:
    one = share([member("job", signal=None, usual_workers=3)], Capacity(8))[0]
    assert [slot.workers for slot in one.slots] == [3]
    assert one.slots[0].start == 0
    assert one.done


def test_a_grant_as_a_plan_says_whether_it_is_enough() -> None:
    granted = share([member("enough"), member("more", hours=400)], Capacity(4))
    plans = {one.member.name: one.plan() for one in granted}
    assert plans["enough"].meets_deadline
    assert not plans["more"].meets_deadline
    assert plans["more"].slots[-1].end <= 24 * HOUR


def test_a_wrong_request_is_named() -> None:
    with pytest.raises(RequestInvalid, match="one/job: curve"):
        share([member("job", curve=(Point(1, 0.0, 10.0),))], Capacity(1))


def test_caps_give_way_to_a_limit_of_watts() -> None:
    curve = tuple(
        Point(p.workers, p.throughput * rate, p.watts * watts, cap)
        for p in AMDAHL
        for cap, rate, watts in ((300.0, 1.0, 1.0), (200.0, 0.9, 0.7))
    )
    members = [member(f"job-{at}", hours=60, curve=curve) for at in range(2)]
    granted = share(members, Capacity(16, watts=3400.0))
    assert all(one.done for one in granted)
    assert {slot.cap_watts for one in granted for slot in one.slots if slot.workers} <= {200.0, 300.0}
