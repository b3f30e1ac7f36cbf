"""What becomes of a plan if its sizes stay, from hour to hour, and only its end moves? The other way to go on where
progress, rates or watts are not what was expected: it moves nobody.

Without it each small difference makes another optimum: a few seconds more of three workers, then two, as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.plan import Plan, PlanSlot
from drivetrain_energy.job.request import Request, Switch
from drivetrain_energy.job.windows import Window


def kept(old: Plan, request: Request) -> tuple[PlanSlot, ...] | None:
    """From `request.now` on, by the rates that hold now, until work and margin are done. None: they are not before the
    reserve, or it may not run so any more."""
    if request.held is not None or old.held is not None:
        return None  # its sizes are those of the limit
    ways = {(point.workers, point.cap_watts): point for point in request.curve}
    left, until = request.work_steps * (1 + request.margin), old.deadline - request.reserve
    before, lost, slots = workers_now(old, request), 0.0, list[PlanSlot]()
    for start, end, way in _ahead(old, request.now, until):
        if not way[0]:
            if request.started and not request.may_suspend:
                return None
            before, lost = 0, 0.0
            slots.append(PlanSlot(start, end, 0, None, 0.0, 0.0))
            continue
        point = ways.get(way)
        if point is None:
            return None
        if point.workers != before:
            lost, before = request.switch.resume if not before else request.switch.resize, point.workers
        idle = min(lost, end - start)
        takes = idle + left / point.throughput
        last = takes <= end - start
        stop = start + takes if last else end
        slots.append(_slot(start, stop, point, idle))
        if last:
            return tuple(slots)
        left, lost = left - point.throughput * (end - start - idle), lost - idle
    return None


def switching(slots: Sequence[PlanSlot], has: int, spans: Sequence[Window], switch: Switch) -> float:
    """What all changes of size cost that these slots make, for who has so many workers: a gang draws watts while it
    forms again, and workers that come draw them until they are part of it. Who goes may have to come again."""
    cost, at = 0.0, 0
    for slot in slots:
        if slot.workers != has and slot.workers:
            while at + 1 < len(spans) and spans[at].end <= slot.start:
                at += 1
            each = spans[at].price * slot.watts / slot.workers + spans[at].node_price
            come = abs(slot.workers - has)
            cost += each * (switch.resize * slot.workers + switch.resume * come)
        has = slot.workers
    return cost


def workers_now(old: Plan, request: Request) -> int:
    """That it has by the plan, which is what it has as a rule."""
    if request.running_since is None:
        return 0
    at = old.at(request.now) or (old.slots[-1] if old.slots else None)
    return at.workers if at is not None else 0


def _ahead(old: Plan, now: float, until: float) -> Iterator[tuple[float, float, tuple[int, float | None]]]:
    """What is left of its slots; then as in the last one that works, for as long as may be."""
    at, last = now, None
    for slot in old.slots:
        last = (slot.workers, slot.cap_watts) if slot.workers else last
        if slot.end > at:
            yield at, slot.end, (slot.workers, slot.cap_watts)
            at = slot.end
    if last is not None and at < until:
        yield at, until, last


def _slot(start: float, end: float, point: Point, idle: float) -> PlanSlot:
    progress = (end - start - idle) / (end - start) if end > start else 1.0
    return PlanSlot(start, end, point.workers, point.cap_watts, point.throughput * progress, point.watts)


__all__ = ["kept", "switching", "workers_now"]
