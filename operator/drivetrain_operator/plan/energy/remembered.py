"""PURE: what a plan's signal said, as it stands in status. While no source answers, a job that is slower than was
expected is planned anew by that, in place of running through the hours that its plan wanted to avoid. Jobs that share
nodes remember as one: by the newest of their plans, and by older ones where that says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil
from statistics import median

from drivetrain_api.energy_plan import MAX_VALUES, EnergyPlan, EnergySignal
from drivetrain_energy.job.plan import Plan
from drivetrain_energy.job.request import Request
from drivetrain_energy.job.windows import Means, usable
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy.stamps import written_time

HAIR = 1.0
"""Seconds: edges of the same hour, as two plans have written it, are that far apart at most."""
Kind = tuple[str, Measure]
"""Its zone, and what it counts."""


def counting(question: Request) -> Signal | None:
    """The signal that its objective counts, if a job may wait for it."""
    weights = question.objective
    signal = question.signal if weights.carbon else question.tariff if weights.cost else None
    return signal if usable(signal) else None


def signal_to_status(signal: Signal | None, plan: Plan) -> EnergySignal | None:
    """As it is from when the plan was made until its deadline; hours that are too many are averaged."""
    known = [slot for slot in signal.slots if plan.made_at < slot.end] if signal is not None else []
    known = [slot for slot in known if slot.start < plan.deadline]
    if not known:
        return None
    start = written_time(known[0].start)
    span = max(1.0, min(known[-1].end, plan.deadline) - start.timestamp())
    seconds = max(min(median(slot.end - slot.start for slot in known), span), span / MAX_VALUES)
    means, count = Means(signal, plan.made_at), max(1, min(MAX_VALUES, ceil(span / seconds - 1e-6)))
    edges = [start.timestamp() + seconds * number for number in range(count + 1)]
    now = plan.made_at
    found = [means.mean(max(one, now), max(other, max(one, now) + 1)) for one, other in pairwise(edges)]
    return EnergySignal(start=start, seconds=seconds, values=[_short(value or 0.0) for value in found])


def remembering(question: Request, written: EnergyPlan, zone: str) -> tuple[Request, tuple[float, ...]]:
    """The question by the plan's own signal, and the vintages that a plan of it has."""
    told = written.signal
    if told is None or not told.values or not written.vintages:
        return replace(question, signal=None, tariff=None), ()
    edges = [told.start.timestamp() + told.seconds * number for number in range(len(told.values) + 1)]
    slots = tuple(Slot(*span, value) for span, value in zip(pairwise(edges), told.values, strict=True))
    carbon, vintage = bool(question.objective.carbon), min(written.vintages)
    measure = Measure(written.measure) if carbon and written.measure is not None else Measure.PRICE
    signal = Signal(zone, measure, Quality.FORECAST, slots, vintage, "its plan")
    found = replace(question, signal=signal if carbon else None, tariff=None if carbon else signal)
    return found, (vintage,)


def newest(told: Iterable[Signal]) -> Mapping[Kind, Signal]:
    """One signal of all that plans remember, of each kind, whatever their order."""
    found: dict[Kind, Signal] = {}
    for each in sorted(told, key=_newest_first):
        kind = (each.zone, each.measure)
        known = found.setdefault(kind, each)
        end = known.slots[-1].end
        more = tuple(
            replace(slot, start=slot.start if slot.start > end + HAIR else end)
            for slot in each.slots
            if slot.end > end + HAIR
        )
        if more:
            found[kind] = replace(known, slots=known.slots + more)
    return found


def _newest_first(told: Signal) -> tuple[float, ...]:
    each = (number for slot in told.slots for number in (slot.start, slot.end, slot.value))
    return -told.vintage, -told.slots[0].start, -told.slots[-1].end, *each


def _short(value: float) -> float:
    return float(f"{min(max(value, -1e9), 1e9):.4g}")


__all__ = ["Kind", "counting", "newest", "remembering", "signal_to_status"]
