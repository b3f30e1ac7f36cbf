"""Does a plan still hold? `renew` makes another only where something really differs: no job is moved for noise."""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_energy.job.guard import must_run
from drivetrain_energy.job.held import Held
from drivetrain_energy.job.hull import fastest
from drivetrain_energy.job.keep import kept, switching, workers_now
from drivetrain_energy.job.plan import Mode, Plan, PlanSlot
from drivetrain_energy.job.planner import answer, least, plan
from drivetrain_energy.job.request import HORIZON, Request
from drivetrain_energy.job.windows import Window, usable, windows
from drivetrain_energy.signals.forecast import foreseen

REAL = 0.05
"""Share by which progress, rates, watts or the objective have to differ."""

FRESH = 10.0
"""Seconds by which what is known of progress may be late where the time is short: so often it is told at most, ..."""
TOLD = 60.0
"""... and at least. That alone is no news, also of a job that is almost done."""


def renew(old: Plan | None, request: Request, patience: float = 0.0) -> tuple[Plan, str] | None:
    """A plan in place of `old`, and for what reason, in a few words; None: `old` still holds. `request` says how things
    stand now, with `old.deadline` as its deadline. `patience`: as in `overtaken`."""
    if old is None:
        return plan(request), "it has none yet"
    if request.work_steps <= 0:
        return None  # it ends by itself
    if (reason := overtaken(old, request, patience)) is not None:
        return successor(old, request), reason
    if tuple(s.vintage for s in (request.signal, request.tariff) if s is not None) == old.vintages:
        return None
    request = foreseen(request, min(old.deadline, request.now + HORIZON))
    if old.mode is Mode.PLANNED and usable(request.signal) and _cannot_be_beaten(old, request):
        return None
    new = plan(request)
    if new.mode is not old.mode and Mode.NOW in (new.mode, old.mode):
        return new, "signals may be trusted again" if old.mode is Mode.NOW else "signals may be trusted no more"
    spans = windows(request, max(_end(new), _end(old), request.now + 1))
    before, after = (worth(one.slots, spans, request.work_steps, request.now) for one in (old, new))
    return (new, "newer signals make another one better") if after < before * (1 - REAL) else None


def successor(old: Plan, request: Request) -> Plan:
    """In place of one that is overtaken: another optimum, or the old plan with another end. Nobody is moved unless the
    first is really better, also of what changing sizes takes."""
    new = plan(request)
    if must_run(request, old.deadline) or new.deadline != old.deadline or Mode.NOW in (new.mode, old.mode):
        return new
    stays = kept(old, request)
    if stays is None:
        return new
    asked = foreseen(request, min(old.deadline, request.now + HORIZON))
    spans = windows(asked, max(stays[-1].end, _end(new), request.now + 1))
    has = workers_now(old, request)
    before, after = (
        worth(slots, spans, request.work_steps, request.now) + switching(slots, has, spans, request.switch)
        for slots in (stays, new.slots)
    )
    return new if after < before * (1 - REAL) else answer(request, old.deadline, old.mode, list(stays), old.why)


def _cannot_be_beaten(old: Plan, request: Request) -> bool:
    """By the bound of all plans, which takes a tenth of the time that a plan takes."""
    until = min(old.deadline - request.reserve, request.now + HORIZON)
    if until <= request.now:
        return False
    before = worth(old.slots, windows(request, max(_end(old), until)), request.work_steps, request.now)
    return before * (1 - REAL) <= least(request, until)


def overtaken(old: Plan, request: Request, patience: float = 0.0) -> str | None:
    """What makes it useless, whatever signals say. A plan younger than `patience`, in seconds, is not for its progress:
    that of a job that may not run as planned is behind again at once."""
    if must_run(request, old.deadline) and old.mode is not Mode.FLAT_OUT:
        return "its deadline is close"
    if request.deadline is not None and request.deadline != old.deadline:
        return "its deadline is another one"
    if old.held is not None and request.held is None and old.held.until > request.now + TOLD:
        return "what held it back is over"
    if request.now < old.made_at + patience:
        return _other_rates(old, request)
    if request.work_steps > 0 and request.now >= _end(old):
        return "the plan has ended before the work"
    if request.held is not None and not _as_before(old.held, request.held, request.now):
        return "what holds it back is another"
    told = max(min(TOLD, REAL * max(0.0, old.deadline - old.made_at)), FRESH)
    noise = max(REAL * old.work_steps, told * fastest(request.curve).throughput)
    if abs(old.work_steps - old.steps_by(request.now) - request.work_steps) > noise:
        return "progress is not what was expected"
    return _other_rates(old, request)


def _other_rates(old: Plan, request: Request) -> str | None:
    ways = {(point.workers, point.cap_watts): point for point in request.curve}
    for slot in old.slots:
        if slot.end <= request.now or not slot.workers:
            continue
        if old.held is not None and slot.start < old.held.until:
            continue  # the limit's, not the curve's
        point = ways.get((slot.workers, slot.cap_watts))
        if point is None:
            return "it may not run as planned any more"
        if _apart(point.watts, slot.watts) or point.throughput < slot.throughput * (1 - REAL):
            return "steps a second, or watts, are not what was expected"
    return None


def _as_before(before: Held | None, held: Held, now: float) -> bool:
    """Ends that are told anew wander by seconds."""
    if before is None or before.workers != held.workers or _apart(before.pace, held.pace):
        return False
    return abs(before.until - held.until) <= max(TOLD, REAL * (held.until - now))


def _apart(one: float, other: float) -> bool:
    return abs(one - other) > REAL * max(one, other)


def worth(slots: Sequence[PlanSlot], spans: Sequence[Window], work: float, now: float) -> float:
    """What it costs to do the work so from now on, at the prices that hold now; without end if it is not done."""
    cost, left, ahead = 0.0, work, iter(spans)
    span = next(ahead)
    for slot in slots:
        start = max(slot.start, now)
        while start < slot.end and left > 0:
            while span.end <= start:
                span = next(ahead)
            end = min(slot.end, span.end)
            if slot.throughput:
                end = min(end, start + left / slot.throughput)
            cost += (end - start) * (span.price * slot.watts + span.node_price * slot.workers)
            left -= slot.throughput * (end - start)
            if end <= start:
                left = 0.0
            start = end
    return cost if left <= 1e-6 * work else float("inf")


def _end(old: Plan) -> float:
    return old.slots[-1].end if old.slots else old.made_at


__all__ = ["REAL", "overtaken", "renew", "successor", "worth"]
