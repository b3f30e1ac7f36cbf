"""PURE: a plan as it stands in status, and back. Times are whole seconds there: what is written is acted on. What of
its signal stands there, see remembered.py."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from drivetrain_api.energy_plan import EnergyHeld, EnergyPlan, EnergySlot, EnergyTotals
from drivetrain_energy.job.held import Held
from drivetrain_energy.job.plan import Mode, Plan, PlanSlot, Totals
from drivetrain_energy.job.request import JOULES_PER_KWH, Request
from drivetrain_energy.signals.signal import Measure
from drivetrain_operator.plan.energy.remembered import counting, signal_to_status
from drivetrain_operator.plan.energy.stamps import written_time

MOST: Final = 1e15
"""Of an amount in status."""


def to_status(plan: Plan, asked: str, question: Request) -> EnergyPlan:
    """`asked`: what of the spec its deadline follows from. `question`: what the plan answers."""
    return EnergyPlan(
        made=written_time(plan.made_at),
        mode=plan.mode.value,
        deadline=written_time(plan.deadline),
        asked=asked,
        finish=written_time(plan.finish),
        meets_deadline=plan.meets_deadline,
        steps=plan.work_steps,
        expected=_totals(plan.totals),
        usual=_totals(plan.usual),
        measure=plan.measure.value if plan.measure is not None else None,
        vintages=list(plan.vintages),
        why=plan.why,
        end=written_time(plan.slots[-1].end if plan.slots else plan.made_at),
        held=_held_to_status(plan.held),
        signal=signal_to_status(counting(question), plan) if plan.mode is Mode.PLANNED else None,
        slots=[
            EnergySlot(
                start=written_time(slot.start),
                workers=slot.workers,
                cap_watts=slot.cap_watts,
                steps_per_second=_short(slot.throughput),
                watts=_short(slot.watts),
            )
            for slot in plan.slots
        ],
    )


def from_status(written: EnergyPlan) -> Plan:
    """The plan that was written. A slot that whole seconds have left nothing of is dropped."""
    starts = [*(slot.start.timestamp() for slot in written.slots), written.end.timestamp()]
    slots = [
        PlanSlot(start, end, slot.workers, slot.cap_watts, slot.steps_per_second, slot.watts)
        for slot, (start, end) in zip(written.slots, pairwise(starts), strict=True)
        if end > start
    ]
    return Plan(
        made_at=written.made.timestamp(),
        mode=Mode(written.mode),
        slots=tuple(slots),
        finish=written.finish.timestamp(),
        deadline=written.deadline.timestamp(),
        meets_deadline=written.meets_deadline,
        work_steps=written.steps,
        totals=_of(written.expected),
        usual=_of(written.usual),
        measure=Measure(written.measure) if written.measure is not None else None,
        vintages=tuple(written.vintages),
        why=written.why,
        held=held_of(written),
    )


def held_of(written: EnergyPlan) -> Held | None:
    """The limit that it was made with."""
    held = written.held
    return Held(held.until.timestamp(), held.workers, held.pace) if held is not None else None


def _held_to_status(held: Held | None) -> EnergyHeld | None:
    if held is None:
        return None
    return EnergyHeld(until=written_time(held.until), workers=held.workers, pace=_short(held.pace))


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _bounded(value: float) -> float:
    return _short(min(max(value, -MOST), MOST))


def _totals(found: Totals) -> EnergyTotals:
    return EnergyTotals(
        kwh=_bounded(found.joules / JOULES_PER_KWH),
        grams=_bounded(found.grams) if found.grams is not None else None,
        cost=_bounded(found.cost) if found.cost is not None else None,
        node_hours=_bounded(found.node_hours),
    )


def _of(written: EnergyTotals) -> Totals:
    return Totals(written.kwh * JOULES_PER_KWH, written.grams, written.cost, written.node_hours)


__all__ = ["from_status", "held_of", "to_status"]
