"""Do the plans of jobs that share nodes fit at all times, hold for as long as they can, and keep deadlines?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.fleet.member import Member
from drivetrain_energy.fleet.settle import Standing, settle
from drivetrain_energy.fleet.sharing import Capacity, Ceiling, share
from drivetrain_energy.job.plan import Mode, Plan
from drivetrain_energy.job.request import TIME, Objective, Switch
from harness.energy import AMDAHL, HOUR, can_be_in_time, request, signal

DAYS = signal([100.0, 300.0, 200.0, 400.0] * 24)
LINEAR = tuple(replace(point, throughput=float(point.workers)) for point in AMDAHL[:4])


def member(name: str, namespace: str = "one", hours: float = 4, deadline: float = 24, **asked: object) -> Member:
    fields = {"signal": DAYS, "work_steps": hours * HOUR, "deadline": deadline * HOUR, **asked}
    return Member(namespace, name, request(**fields))


def later(job: Standing, now: float) -> Standing:
    """It has done what its plan says."""
    asked = job.member.request
    done = job.plan.steps_by(now) if job.plan is not None else 0.0
    left = (job.plan.work_steps if job.plan is not None else asked.work_steps) - done
    return replace(job, member=replace(job.member, request=replace(asked, now=now, work_steps=left)))


def settled(jobs: Sequence[Standing], capacity: Capacity, now: float = 0.0, news: bool = True) -> list[Standing]:
    plans = settle(jobs, capacity, "hall-1", news, now)
    return [replace(job, plan=plans.get(job.key, job.plan)) for job in jobs]


def most(jobs: Sequence[Standing], now: float, attribute: str = "workers") -> float:
    """Of all together, at any time from now on."""
    slots = [slot for job in jobs if job.plan is not None for slot in job.plan.slots]
    edges = {now, *(edge for slot in slots for edge in (slot.start, slot.end) if edge > now)}
    sums = [sum(getattr(slot, attribute) for slot in slots if slot.start <= edge < slot.end) for edge in edges]
    return max(sums, default=0)


def new(*members: Member) -> list[Standing]:
    return [Standing(each, None) for each in members]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 16), watts=st.sampled_from([None, 3000.0]))
def test_what_is_planned_is_there_whatever_comes_and_goes(seed: int, nodes: int, watts: float | None) -> None:
    rng, jobs, now = random.Random(seed), list[Standing](), 0.0
    for step in range(5):
        came = [
            member(f"job-{step}-{at}", rng.choice("ab"), rng.uniform(1, 12), now / HOUR + rng.uniform(2, 40), now=now)
            for at in range(rng.randrange(3))
        ]
        jobs = [job for job in (later(job, now) for job in jobs) if job.member.request.work_steps >= 1]
        jobs = [*(job for job in jobs if rng.random() < 0.9), *new(*came)]
        capacity = Capacity(rng.choice([nodes, max(1, nodes // 2)]), watts)
        mixed = rng.sample(jobs, len(jobs))
        jobs = settled(jobs, capacity, now)
        assert most(jobs, now) <= capacity.nodes
        assert watts is None or most(jobs, now, "watts") <= watts + 1e-6
        assert all(job.plan is not None and job.plan.slots for job in jobs)
        by_name = {job.key: job.plan for job in settled(mixed, capacity, now)}
        assert by_name == {job.key: job.plan for job in jobs}
        assert settle(jobs, capacity, "hall-1", True, now) == {}  # nobody is moved twice
        now += rng.uniform(0.1, 6) * HOUR


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_no_deadline_is_missed_that_a_plan_can_meet(seed: int, linear: bool) -> None:
    """With the margin that jobs have by default: what is just so possible is found by the linear program alone."""
    rng = random.Random(seed)
    members = [
        member(
            f"job-{at}",
            rng.choice("abc"),
            rng.uniform(1, 30),
            rng.randint(3, 48),
            curve=LINEAR if linear else AMDAHL,
            margin=0.1,
        )
        for at in range(rng.randint(2, 10))
    ]
    nodes = rng.randint(1, 12)
    if not can_be_in_time([each.request for each in members], nodes, spare=0.15):
        return
    jobs = settled(new(*members), Capacity(nodes))
    assert [job.key for job in jobs if job.plan is None or not job.plan.meets_deadline] == []


@pytest.mark.parametrize("seed", range(6))
def test_while_the_domain_is_limited_no_more_is_planned_and_afterwards_all(seed: int) -> None:
    """Half of the watts for six hours, of which it is known until when, alone or together, and whoever comes later."""
    rng = random.Random(seed)
    limit = Ceiling(2 * HOUR, 8.5 * HOUR, 1500.0)
    capacity = Capacity(10, 3000.0, (limit,))
    jobs = new(*(member(f"job-{at}", rng.choice("ab"), rng.uniform(2, 16), 24, margin=0.1) for at in range(4)))
    jobs = settled(jobs, capacity)
    jobs = settled([*jobs, *new(member("later", hours=4))], capacity)
    slots = [slot for job in jobs if job.plan is not None for slot in job.plan.slots]
    for quarter in range(96):
        at = quarter * HOUR / 4 + 1
        drawn = sum(slot.watts for slot in slots if slot.start <= at < slot.end)
        assert drawn <= (1500.0 if limit.start <= at < limit.end else 3000.0) + 1e-6
    assert all(job.plan is not None and job.plan.meets_deadline for job in jobs)


def test_a_limit_that_is_told_of_moves_those_whose_plans_do_not_fit() -> None:
    free = Capacity(8, 2400.0)
    jobs = settled(new(member("a", hours=12, signal=signal([100.0] * 4 + [300.0] * 20))), free)
    limited = replace(free, ceilings=(Ceiling(0.0, 4 * HOUR, 600.0),))
    after = settled(jobs, limited)
    assert most(jobs, 0.0, "watts") > 600.0
    assert after[0].plan is not None
    assert all(slot.watts <= 600.0 for slot in after[0].plan.slots if slot.start < 4 * HOUR)
    assert settled(after, limited) == after


def done_with_starts(job: Standing) -> float:
    """Steps by its deadline, of a job that loses what switching takes."""
    asked, done, has, lost = job.member.request, 0.0, 0, 0.0
    for slot in job.plan.slots if job.plan is not None else ():
        if slot.workers and slot.workers != has:
            lost = asked.switch.resume if not has else asked.switch.resize
        has = slot.workers
        seconds = max(0.0, min(slot.end, asked.deadline or 0.0) - slot.start)
        idle = min(lost, seconds)
        lost -= idle
        done += next((p.throughput for p in asked.curve if p.workers == has), 0.0) * (seconds - idle)
    return done


@pytest.mark.parametrize("seed", range(12))
def test_what_starts_take_is_done_on_top(seed: int) -> None:
    """Starts of five minutes, in places that leave a quarter to spare: without that, most jobs were late."""
    rng = random.Random(seed)
    starts = Switch(30.0, 300.0, 30.0)
    members = [
        member(f"job-{at}", rng.choice("abc"), rng.uniform(4, 30), rng.randint(8, 48), margin=0.0, switch=starts)
        for at in range(rng.randint(2, 8))
    ]
    nodes = rng.randint(2, 12)
    if not can_be_in_time([each.request for each in members], nodes, spare=0.25):
        return
    jobs = settled(new(*members), Capacity(nodes))
    late = [job.key for job in jobs if done_with_starts(job) < job.member.request.work_steps * (1 - 2e-3)]
    assert late == []
    assert most(jobs, 0.0) <= nodes


def test_who_gets_by_without_the_others_has_a_plan_of_its_own() -> None:
    jobs = settled(new(member("a"), member("b")), Capacity(16))
    assert all(job.plan is not None and job.plan.why.startswith("The least of its objective: runs") for job in jobs)


def test_who_waits_because_others_have_the_nodes_says_so() -> None:
    """Two jobs of an hour of all the nodes, and one cheap hour after another."""
    hourly = signal([100.0, 110.0, *[900.0] * 22])
    one = (AMDAHL[0],)
    jobs = settled(new(*(member(name, hours=1, curve=one, signal=hourly) for name in "ab")), Capacity(1))
    assert most(jobs, 0.0) == 1
    starts = [job.plan.slots[0].workers for job in jobs if job.plan is not None]
    assert sorted(starts) == [0, 1]
    waits = next(job.plan for job in jobs if job.plan is not None and not job.plan.slots[0].workers)
    assert "other jobs of hall-1" in waits.why
    assert "It waits until 01 Jan 01:00Z: others have the nodes." in waits.why


def test_who_comes_later_moves_nobody() -> None:
    before = settled(new(member("a", hours=12, curve=AMDAHL[:2])), Capacity(2))
    both = settled([*before, *new(member("b", hours=2, curve=AMDAHL[:2], deadline=40))], Capacity(2))
    assert both[0].plan is before[0].plan
    assert both[1].plan is not None
    assert both[1].plan.meets_deadline
    assert most(both, 0.0) <= 2


def test_but_who_has_time_makes_room_for_who_has_none() -> None:
    early = settled(
        new(member("a", hours=6, curve=AMDAHL[:1], deadline=40, signal=signal([1.0] * 8 + [9.0] * 40))), Capacity(1)
    )
    both = settled([*early, *new(member("b", hours=5, curve=AMDAHL[:1], deadline=5.6))], Capacity(1))
    assert all(job.plan is not None and job.plan.meets_deadline for job in both)
    assert both[0].plan is not early[0].plan


def test_who_waits_goes_on_when_another_ends_early() -> None:
    late = [member(name, hours=30, deadline=2, curve=AMDAHL[:4]) for name in "ab"]
    jobs = settled(new(*late), Capacity(4))
    assert most(jobs, 0.0) == 4
    waits = next(job for job in jobs if job.plan is not None and not job.plan.slots[0].workers)
    alone = settled([later(waits, HOUR / 2)], Capacity(4), HOUR / 2)[0]
    assert alone.plan is not None
    assert alone.plan.slots[0].workers == 4
    assert alone.plan.mode is Mode.FLAT_OUT


def test_a_namespace_that_comes_late_is_served_as_well() -> None:
    many = settled(new(*(member(f"job-{at}", "many", hours=40, curve=AMDAHL[:4]) for at in range(9))), Capacity(4))
    jobs = settled(
        [*many, *new(*(member(f"new-{at}", "few", hours=40, curve=AMDAHL[:4]) for at in range(3)))], Capacity(4)
    )
    done = {"many": 0.0, "few": 0.0}
    for job in jobs:
        done[job.member.namespace] += job.plan.steps_by(24 * HOUR) if job.plan is not None else 0.0
    assert done["few"] > 0.3 * sum(done.values())


@pytest.mark.parametrize("known", [True, False])
def test_signals_that_are_known_no_more_make_all_run_as_nodes_are_free(known: bool) -> None:
    """Whose plan is held to what was foreseen keeps it, and others go by what it leaves."""
    night = signal([900.0] * 10 + [100.0] * 10)
    jobs = settled(
        new(*(member(name, hours=2, curve=AMDAHL[:2], signal=night, usual_workers=1) for name in "abc")), Capacity(2)
    )
    assert most(jobs, 0.0) > 0
    blind = [
        replace(
            later(job, HOUR / 2),
            member=replace(job.member, request=replace(later(job, HOUR / 2).member.request, signal=None)),
            pinned=known and job.key[1] == "a",
        )
        for job in jobs
    ]
    after = settled(blind, Capacity(2), HOUR / 2)
    modes = {job.key[1]: (job.plan.mode if job.plan is not None else None) for job in after}
    assert modes["b"] is Mode.NOW
    assert modes["a"] is (Mode.PLANNED if known else Mode.NOW)
    now = [plan_at(job.plan, HOUR / 2) for job in after]
    assert sum(now) == 2
    assert most(after, HOUR / 2) <= 2


def plan_at(plan: Plan | None, now: float) -> int:
    slot = plan.at(now) if plan is not None else None
    return slot.workers if slot is not None else 0


def test_held_slots_are_left_alone() -> None:
    held = settled(new(member("a", hours=10, curve=AMDAHL[:2])), Capacity(2))[0]
    assert held.plan is not None
    found = share([member("b", hours=10, curve=AMDAHL[:2])], Capacity(2), [held.plan.slots])
    both = [held, Standing(found[0].member, found[0].plan())]
    assert most(both, 0.0) <= 2


def test_a_job_that_has_nothing_left_to_do_stops_no_look_and_is_told_nothing() -> None:
    """Its last step may be counted before it is seen to be over."""
    jobs = settled(new(member("a", hours=4), member("b", hours=4)), Capacity(4))
    over = replace(jobs[0].member.request, now=HOUR, work_steps=0.0)
    jobs = [replace(jobs[0], member=replace(jobs[0].member, request=over)), later(jobs[1], HOUR)]
    plans = settle([*jobs, *new(member("c", hours=4, now=HOUR))], Capacity(4), "hall-1", True, HOUR)
    assert ("one", "a") not in plans
    assert settle(new(member("d", work_steps=0.0)), Capacity(4), "hall-1", True, 0.0) == {}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_told_the_same_again_where_a_limit_leaves_nothing(seed: int) -> None:
    """Sums of floats left a hair above no watts at all: no plan fitted, and all were told theirs at every look."""
    rng = random.Random(seed)
    ways = [tuple(replace(point, watts=point.watts * rng.uniform(0.5, 2)) for point in LINEAR) for _ in range(9)]
    jobs = [member(f"job-{at}", hours=20, curve=way, objective=TIME) for at, way in enumerate(ways)]
    capacity = Capacity(40, None, (Ceiling(2 * HOUR, 4 * HOUR, 0.0),))
    first = settled(new(*jobs), capacity)
    assert most(first, 0.0) == 36
    assert settle(first, capacity, "hall-1", True, 0.0) == {}


@pytest.mark.parametrize("seed", range(40))
def test_who_finds_too_little_is_not_moved_at_the_next_look(seed: int) -> None:
    """What was offered and what was told of it were judged by different ends: an hour of waiting stood in one only."""
    rng, now, jobs = random.Random(seed), 0.0, list[Standing]()
    for step in range(5):
        jobs = [job for job in (later(job, now) for job in jobs) if job.member.request.work_steps >= 1]
        came = [
            member(
                f"job-{step}-{at}", rng.choice("abc"), rng.choice([0.01, 0.2, 3.0]),
                now / HOUR + rng.choice([0.01, 0.5, 6.0]), now=now,
                objective=rng.choice([Objective(carbon=1.0), Objective(energy=1.0), TIME]),
                switch=Switch(5, 120, 5),
            )
            for at in range(rng.randrange(4))
        ]  # fmt: skip
        capacity = Capacity(6, 1300.0)
        jobs = settled([*jobs, *new(*came)], capacity, now)
        assert settle(jobs, capacity, "hall-1", True, now) == {}
        now += rng.choice([60.0, 900.0, 2 * HOUR])
