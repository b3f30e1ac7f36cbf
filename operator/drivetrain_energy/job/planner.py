"""The least carbon (or cost, or energy) that a deadline allows, for one job: `plan(request)`.

Pure: the same request gives the same plan, in the operator and offline. The order of what is decided:

1. Work done, or none that could be waited for: said.
2. The deadline first: if the time left is just enough at full speed, run flat out, whatever the rest says (`guard`).
3. What has no forecast gets ours, from its history (`forecast`). No signal that may make a job wait: run now at the
   usual size, and say why.
4. Else the optimum over workers and caps (`hull`, `fill`), with what switching costs and `min_run` (`runs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.fill import Ladder
from drivetrain_energy.job.guard import must_run
from drivetrain_energy.job.held import Held, ways
from drivetrain_energy.job.hull import fastest
from drivetrain_energy.job.plan import MOST_SLOTS, Mode, Plan, PlanSlot, Totals, merged
from drivetrain_energy.job.request import HORIZON, Request, check
from drivetrain_energy.job.runs import Search, begin
from drivetrain_energy.job.slotted import slot_of, slotted
from drivetrain_energy.job.windows import Window, usable, windows
from drivetrain_energy.signals.forecast import foreseen
from drivetrain_energy.signals.signal import Signal

HOLDS = 60.0
"""Seconds that a plan lasts at least, however little is left: what ends at once is made anew, and written, at once."""


def plan(request: Request) -> Plan:
    """Raises `RequestInvalid`, with the field's name, for what cannot be planned."""
    check(request)
    if request.held is not None and request.held.until <= request.now:
        request = replace(request, held=None)
    deadline = latest(request)
    if request.work_steps <= 0:
        return answer(request, deadline, Mode.NOW, [], "all work is done")
    if request.held is not None and not ways(request.curve, request.held):
        return _after(request, request.held, deadline)
    if must_run(request, deadline):
        return _flat_out(request, deadline, "the time left is what the work takes at full speed")
    if request.objective.time:
        return _flat_out(request, deadline, "the objective is time")
    request = foreseen(request, min(deadline, request.now + HORIZON))
    if (reason := _nothing_to_go_by(request)) is not None:
        return _at_once(request, deadline, reason)
    spans = windows(request, min(deadline - request.reserve, request.now + HORIZON))
    slots = _optimum(request, spans)
    if slots is None:
        return _flat_out(request, deadline, "the work fits no runs that its flexibility allows")
    return answer(request, deadline, Mode.PLANNED, slots, _summary(request, slots, deadline))


def latest(request: Request) -> float:
    """The deadline; without one, as late as the usual size takes after the longest wait that is allowed."""
    if request.deadline is not None:
        return request.deadline
    wait = 0.0 if request.started else request.max_start_delay or 0.0
    took = request.work_steps * (1 + request.margin) / request.usual()
    return request.now + wait + request.switch.resume + took + request.reserve


def least(request: Request, until: float) -> float:
    """What no plan for the work that is left can cost less than, in the objective's unit; 0 if it does not fit."""
    spans = windows(request, until)
    found = Ladder(spans, request.curve, may_idle=True).fill(request.work_steps, [span.seconds for span in spans])
    return 0.0 if found is None else found.cost


def _after(request: Request, held: Held, deadline: float) -> Plan:
    """It stands still as long as it is held."""
    begins = replace(request, now=held.until, running_since=None, held=None, deadline=deadline, max_start_delay=None)
    after = plan(begins)
    rests = PlanSlot(request.now, held.until, 0, None, 0.0, 0.0)
    return answer(request, deadline, after.mode, [rests, *after.slots], after.why)


def _nothing_to_go_by(request: Request) -> str | None:
    weights = request.objective
    for name, weight, signal in (("carbon", weights.carbon, request.signal), ("price", weights.cost, request.tariff)):
        if weight and not usable(signal):
            return f"no {name} signal that a job may wait for: {_worth(signal)}"
    return None


def _worth(signal: Signal | None) -> str:
    if signal is None:
        return "there is none"
    return signal.why or f"that of {signal.source} is {signal.quality.value}"


def _flat_out(request: Request, deadline: float, why: str) -> Plan:
    slots = _constant(request, fastest(request.curve))
    return answer(request, deadline, Mode.FLAT_OUT, slots, f"As fast as it can: {why}.")


def _at_once(request: Request, deadline: float, why: str) -> Plan:
    """At the usual size, or the next that meets the deadline."""
    left = deadline - request.reserve - request.now - _starting(request)
    wanted = request.work_steps * (1 + request.margin) / left
    own = request.usual_workers
    unknown = own is not None and all(point.workers != own for point in request.curve)
    least = wanted if unknown else max(wanted, request.usual())
    enough = [point for point in request.curve if point.throughput >= least * (1 - 1e-9)] or [fastest(request.curve)]
    if own is not None and unknown:  # what its own size brings, nobody knows: the nearest
        point = min(enough, key=lambda point: (abs(point.workers - own), point.watts))
    else:
        point = min(enough, key=lambda point: (point.throughput, point.watts))
    usual = point.workers == request.usual_workers or point.throughput <= request.usual()
    size = "at its usual size" if usual else f"with {point.workers} workers, for its deadline"
    return answer(request, deadline, Mode.NOW, _constant(request, point), f"At once, {size}: {why}.")


def _constant(request: Request, point: Point) -> list[PlanSlot]:
    """From now until the work and its margin are done; as much of it as it may, while it is held."""
    slots, now, steps, lost = [], request.now, request.work_steps * (1 + request.margin), _starting(request)
    if request.held is not None:
        slow = fastest([way for way in ways(request.curve, request.held) if way.workers <= point.workers] or [point])
        seconds = request.held.until - now
        if (done := slow.throughput * max(0.0, seconds - lost)) < steps:
            slots.append(slot_of(now, request.held.until, slow, max(0.0, seconds - lost) / seconds))
            now, steps, lost = request.held.until, steps - done, max(0.0, lost - seconds)
        else:
            point = slow
    takes = lost + steps / point.throughput  # may be less than a float of today can be told from
    end = now + max(takes, HOLDS)
    return [*slots, PlanSlot(now, end, point.workers, point.cap_watts, steps / takes, point.watts)]


def _starting(request: Request) -> float:
    return 0.0 if request.running_since is not None else request.switch.resume


def _optimum(request: Request, spans: list[Window]) -> list[PlanSlot] | None:
    work = request.work_steps * (1 + request.margin)
    free = Ladder(spans, request.curve, may_idle=True)
    found = free.fill(work, [span.seconds for span in spans])
    if found is None:
        return None
    if _free(request):
        return slotted(spans, free.rungs, [span.seconds for span in spans], found)
    spans, on = begin(spans, found)
    runs = Ladder(spans, request.curve, may_idle=False)
    tried = Search(request, runs, work).best(on)
    return None if tried is None else slotted(spans, runs.rungs, tried.useful, tried.filled, request.switch.resize)


def _free(request: Request) -> bool:
    """Does nothing keep it from being on in any window, and off in the next?"""
    switch = request.switch
    bound = request.max_start_delay is not None and not request.started
    return request.may_suspend and not (request.min_run or switch.suspend or switch.resume or switch.resize or bound)


def answer(request: Request, deadline: float, mode: Mode, slots: list[PlanSlot], why: str) -> Plan:
    """`slots`, which begin at `request.now`, as a plan, with what they take."""
    kept = _lasting(_bounded(merged(slots)), request.now)
    finish, left = _finish(kept, request)
    point = fastest([p for p in request.curve if p.throughput == request.usual()])
    usual_end = request.now + request.work_steps / point.throughput
    usual = (PlanSlot(request.now, usual_end, point.workers, None, point.throughput, point.watts),)
    known = [signal for signal in (request.signal, request.tariff) if signal is not None]
    spans = windows(request, max(finish, usual_end, request.now + 1))
    return Plan(
        made_at=request.now,
        mode=mode,
        slots=kept,
        finish=finish,
        deadline=deadline,
        meets_deadline=finish <= deadline + 1e-6 and left <= 1e-6 * request.work_steps,
        work_steps=request.work_steps,
        totals=_totals(kept, finish, spans, request),
        usual=_totals(usual, usual_end, spans, request),
        measure=request.signal.measure if request.signal is not None else None,
        vintages=tuple(signal.vintage for signal in known),
        why=f"{why}{_held(request)}",
        held=request.held,
    )


def _held(request: Request) -> str:
    held = request.held
    if held is None:
        return ""
    until = f"{datetime.fromtimestamp(held.until, UTC):%d %b %H:%MZ}"
    pace = f" at {100 * held.pace:.0f} % of their pace" if held.pace < 1 else ""
    return f" Until {until} its power domain leaves it {held.workers} workers{pace}; that is planned with."


def _lasting(slots: tuple[PlanSlot, ...], now: float) -> tuple[PlanSlot, ...]:
    """With a last slot that goes on after the work, if all of it is so little."""
    if not slots or slots[-1].end >= now + HOLDS:
        return slots
    return (*slots[:-1], replace(slots[-1], end=now + HOLDS))


def _bounded(slots: tuple[PlanSlot, ...]) -> tuple[PlanSlot, ...]:
    """No more than a status may carry: the shortest neighbours go together, at the higher of their sizes."""
    while len(slots) > MOST_SLOTS:
        pairs = [(after.end - before.start, at) for at, (before, after) in enumerate(pairwise(slots))]
        at = min(pairs)[1]
        high = max(slots[at : at + 2], key=lambda slot: slot.throughput)
        joined = PlanSlot(slots[at].start, slots[at + 1].end, high.workers, high.cap_watts, high.throughput, high.watts)
        slots = merged([*slots[:at], joined, *slots[at + 2 :]])
    return slots


def _finish(slots: Sequence[PlanSlot], request: Request) -> tuple[float, float]:
    """When the work is done, and how much of it is not."""
    left = request.work_steps
    for slot in slots:
        done = slot.throughput * (slot.end - slot.start)
        if done >= left * (1 - 1e-9):
            return (min(slot.end, slot.start + left / slot.throughput) if left > 0 else slot.start), 0.0
        left -= done
    return (slots[-1].end if slots else request.now), left


def _totals(slots: Sequence[PlanSlot], until: float, spans: Sequence[Window], request: Request) -> Totals:
    joules = grams = cost = node_seconds = 0.0
    at = 0
    for slot in slots:
        end = min(slot.end, until)
        if end <= slot.start:
            break
        node_seconds += slot.workers * (end - slot.start)
        joules += slot.watts * (end - slot.start) * request.pue
        while at < len(spans) and spans[at].end <= slot.start:
            at += 1
        for span in spans[at:]:
            if span.start >= end:
                break
            drawn = slot.watts * (min(span.end, end) - max(span.start, slot.start))
            grams += drawn * (span.grams or 0.0)
            cost += drawn * (span.cost or 0.0)
    known = spans[0] if spans else None
    return Totals(
        joules=joules,
        grams=grams if known is not None and known.grams is not None else None,
        cost=cost if known is not None and known.cost is not None else None,
        node_hours=node_seconds / 3600,
    )


def _summary(request: Request, slots: Sequence[PlanSlot], deadline: float) -> str:
    on = [slot for slot in slots if slot.workers]
    hours = sum(slot.end - slot.start for slot in on) / 3600
    sizes = sorted({slot.workers for slot in on})
    workers = f"{sizes[0]} workers" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} workers"
    left = (deadline - request.now) / 3600
    return f"The least of its objective: runs {hours:.1f} of the {left:.1f} hours to its deadline, with {workers}."


__all__ = ["answer", "latest", "least", "plan"]
