"""How does a power domain get to a limit and back, tick by tick?

Down at once, what lowers before what raises; up by a ramp. A job that does not heed an order in time is counted as it
is, and the others make up for it. What was measured corrects what the curves say. Whoever calls keeps the `Course`, and
may lose it: the next one starts from what is in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from drivetrain_energy.power.demand import Job, Means, Order, Shed, as_wished, shed
from drivetrain_energy.power.waterfill import Change, at_once

MARGIN = 0.0075
"""Of a limit, that is not given out: meters are noisy, and loads go up and down."""
RAMP_S = 50.0
"""From nothing to all of a domain's watts, on the way back: full power within a minute."""
CAP_PATIENCE_S = 6.0
"""So long after an order a cap that is not in force is not counted on, unless whoever asks says otherwise."""
WORKERS_PATIENCE_S = 12.0
"""The same of workers that were to go, which takes a job a step."""
GROWTH_MARGIN = 0.05
"""A job grows or resumes only if it would with so much less, too: a limit that trembles moves nobody."""
SETTLE_S = 6.0
"""Nothing was ordered, or came into force, for so long: what is measured is what is expected."""
TRUST = (0.8, 1.25)
"""What is measured corrects the curves so far. Less is a broken meter, and ignored; more may be another tenant."""
LEARNING = 0.3
"""How much of the difference one tick corrects, unless the domain is above its limit: then all of it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in force of a job."""

    workers: int
    """That draw power; 0: suspended."""
    cap: float | None = None
    """The highest of any of its devices; None: one has none."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A job's last order."""

    workers: int
    cap: float | None
    cap_heeded: float
    """When its devices were last seen to have no higher cap."""
    workers_heeded: float
    """When it was last seen to have no more workers."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is remembered from one tick to the next."""

    ceiling: float | None = None
    """Watts that may be drawn now; None: no limit."""
    at: float = 0.0
    bias: float = 1.0
    """Measured over expected."""
    changed: float = 0.0
    """When an order, or what is in force, last did."""
    sent: Mapping[str, Sent] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tick:
    """What comes of one."""

    course: Course
    orders: tuple[Order, ...]
    """Of all jobs by name, to be put in force now; the same again until they are."""
    target: Shed | None
    """Where this leads; None: no limit."""
    deaf: tuple[str, ...]
    """Jobs that do not heed their orders."""


def advance(
    course: Course,
    time: float,
    limit: float | None,
    jobs: Sequence[Job],
    seen: Mapping[str, Seen],
    *,
    fixed: float = 0.0,
    measured: float | None = None,
    cap_patience: float = CAP_PATIENCE_S,
) -> Tick:
    """One tick; called every second or two while there is a limit or a ceiling.

    `limit` and `measured` (a mean of the last few seconds) are watts of the whole domain, `fixed` those of them that no
    job of it accounts for. A job that is not in `seen` has no workers. `cap_patience` is how many seconds it takes at
    most until a cap that was ordered is seen in force.
    """
    jobs = sorted(jobs, key=lambda job: job.name)
    in_force = {job.name: seen.get(job.name, Seen(0)) for job in jobs}
    drawn = {job.name: _watts(job, in_force[job.name]) for job in jobs}
    whole = (fixed + sum(job.line(job.workers).most.watts for job in jobs)) * max(1.0, course.bias) / (1 - MARGIN)
    ceiling = _ceiling(course, time, limit, whole)
    if ceiling is None:
        orders = as_wished(jobs)
        return Tick(_next(course, time, None, 1.0, orders, in_force), orders, None, ())
    if course.seen != in_force:
        course = replace(course, changed=time)
    bias = _bias(course, time, fixed + sum(drawn.values()), measured, ceiling)
    room = max(0.0, ceiling * (1 - MARGIN) / bias - fixed)
    heard = [_heard(job, course.sent.get(job.name), in_force[job.name], time, cap_patience) for job in jobs]
    target = _target(heard, course, room)
    orders = _now(target.orders, course, in_force, drawn, room)
    deaf = tuple(job.name for job, known in zip(jobs, heard, strict=True) if job is not known)
    return Tick(_next(course, time, ceiling, bias, orders, in_force), orders, target, deaf)


def _ceiling(course: Course, time: float, limit: float | None, whole: float) -> float | None:
    if course.ceiling is None or (limit is not None and limit <= course.ceiling):
        return limit
    ceiling = course.ceiling + whole / RAMP_S * max(0.0, time - course.at)
    if limit is None:
        return None if ceiling >= whole else ceiling
    return min(ceiling, limit)


def _bias(course: Course, time: float, expected: float, measured: float | None, ceiling: float) -> float:
    if measured is None or expected <= 0 or time - course.changed < SETTLE_S:
        return course.bias
    if measured < TRUST[0] * expected:
        return course.bias
    found = min(measured / expected, TRUST[1])
    return found if measured > ceiling else course.bias + LEARNING * (found - course.bias)


def _heard(job: Job, sent: Sent | None, seen: Seen, time: float, cap_patience: float) -> Job:
    """The job without what it does not heed. It is still told, and counted on again once it does."""
    if sent is None:
        return job
    if not _heeds_cap(sent, seen) and time - sent.cap_heeded >= cap_patience:
        job = replace(job, capped=False, whole=job.full)
    if not _heeds_workers(sent, seen) and time - sent.workers_heeded >= WORKERS_PATIENCE_S:
        job = replace(job, workers=seen.workers, least_workers=seen.workers, may_suspend=False, whole=job.full)
    return job


def _target(jobs: Sequence[Job], course: Course, room: float) -> Shed:
    """Workers only go down while `room` trembles, and up where they would with less of it, too."""
    careful = {order.name: order.workers for order in shed(jobs, room * (1 - GROWTH_MARGIN)).orders}
    had = {name: sent.workers for name, sent in course.sent.items()}
    most = {job.name: max(careful[job.name], min(had.get(job.name, job.workers), job.workers)) for job in jobs}
    bounded = [
        job
        if most[job.name] == job.workers
        else replace(job, workers=most[job.name], least_workers=min(job.least_workers, most[job.name]), whole=job.full)
        for job in jobs
        if most[job.name]
    ]
    tight = shed(bounded, room, {name: sent.cap for name, sent in course.sent.items()})
    found = {order.name: order for order in tight.orders}
    orders = [_order(job, found.get(job.name)) for job in jobs]
    below = tuple(order.name for order, job in zip(orders, jobs, strict=True) if order.share < job.share - 1e-9)
    return Shed(tuple(orders), below, tight.watts, tight.short)


def _order(job: Job, order: Order | None) -> Order:
    if order is None:
        return Order(job.name, Means.SUSPEND, 0, None, 0.0, 0.0)
    return replace(order, means=Means.SHRINK) if 0 < order.workers < job.workers else order


def _now(
    wanted: Sequence[Order],
    course: Course,
    in_force: Mapping[str, Seen],
    drawn: Mapping[str, float],
    room: float,
) -> tuple[Order, ...]:
    """What of it is told now."""
    may = at_once([Change(order.name, drawn[order.name], order.watts) for order in wanted], room)
    orders = []
    for order in wanted:
        seen = in_force[order.name]
        sent = course.sent.get(order.name)
        workers, cap = order.workers, order.cap
        if sent is not None and not _heeds_cap(sent, seen) and _lower(sent.cap, cap):
            cap = sent.cap  # not counted on, but still wished
        if sent is not None and not _heeds_workers(sent, seen) and sent.workers < workers:
            # Still told: who takes longer than we wait would else hear that there is no limit, and never go.
            workers, order = sent.workers, replace(order, means=Means.SHRINK)
        if order.name not in may:
            workers, cap = min(workers, seen.workers), _min(cap, seen.cap)
        elif workers > seen.workers > 0 and _lower(cap, seen.cap):
            workers = seen.workers  # the cap first
        elif workers < seen.workers and _lower(seen.cap, cap):
            cap = seen.cap  # the workers first
        told = replace(order, workers=workers, cap=cap)
        # Until its workers are gone, the cap holds.
        orders.append(told if workers else replace(told, means=Means.SUSPEND, watts=0.0, share=0.0))
    return tuple(orders)


def _next(
    course: Course,
    time: float,
    ceiling: float | None,
    bias: float,
    orders: Sequence[Order],
    in_force: Mapping[str, Seen],
) -> Course:
    sent = {}
    changed = course.changed
    for order in orders:
        before, seen = course.sent.get(order.name), in_force[order.name]
        after = Sent(order.workers, order.cap, time, time)
        if before is not None:
            after = replace(
                after,
                cap_heeded=time if _heeds_cap(after, seen) else before.cap_heeded,
                workers_heeded=time if _heeds_workers(after, seen) else before.workers_heeded,
            )
        if before is None or (before.workers, before.cap) != (after.workers, after.cap):
            changed = time
        sent[order.name] = after
    return Course(ceiling, time, bias, changed, sent, in_force)


def _watts(job: Job, seen: Seen) -> float:
    return job.line(seen.workers).at_cap(seen.cap).watts if seen.workers > 0 else 0.0


def _heeds_cap(sent: Sent, seen: Seen) -> bool:
    return seen.workers == 0 or not _lower(sent.cap, seen.cap)


def _heeds_workers(sent: Sent, seen: Seen) -> bool:
    return seen.workers <= sent.workers


def _lower(cap: float | None, than: float | None) -> bool:
    return cap is not None and (than is None or cap < than)


def _min(cap: float | None, other: float | None) -> float | None:
    return other if cap is None or _lower(other, cap) else cap


__all__ = ["MARGIN", "RAMP_S", "Course", "Seen", "Sent", "Tick", "advance"]
