"""PURE: a plan in words and rows, with what a later deadline would save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from drivetrain_api.energy_spec import EnergyBudget
from drivetrain_api.figures import plain
from drivetrain_api.older_python import UTC
from drivetrain_cli.table import aligned
from drivetrain_energy.job.plan import Plan, PlanSlot, Totals
from drivetrain_energy.job.planner import plan
from drivetrain_energy.job.request import JOULES_PER_KWH, Request
from drivetrain_energy.signals.signal import Signal
from drivetrain_operator.plan.energy.budget import insufficient
from drivetrain_operator.plan.policies.progress import duration

LATER: Final = (("6 hours", 6 * 3600.0), ("a day", 86400.0), ("two days", 2 * 86400.0))
ROWS: Final = 48


@dataclass(frozen=True, slots=True)
class Later:
    """What comes of a later deadline."""

    name: str
    plan: Plan


def later(request: Request, horizon: float) -> list[Later]:
    """The same job with more time, as far as the signal goes."""
    if request.deadline is None:
        return []
    found = []
    for name, more in LATER:
        if request.deadline + more <= horizon:
            found.append(Later(name, plan(replace(request, deadline=request.deadline + more))))
    return found


def as_object(
    name: str, found: Plan, request: Request, others: Sequence[Later], budget: EnergyBudget
) -> dict[str, Any]:
    """For programs."""
    return {
        "job": name,
        "mode": found.mode.value,
        "why": found.why,
        "deadline": _time(found.deadline),
        "meetsDeadline": found.meets_deadline,
        "finish": _time(found.finish),
        "expected": _totals(found.totals),
        "atOnce": _totals(found.usual),
        "saved": _saved(found),
        "slots": [
            {
                "start": _time(slot.start),
                "end": _time(slot.end),
                "workers": slot.workers,
                "capWatts": slot.cap_watts,
                "stepsPerSecond": slot.throughput,
                "watts": slot.watts,
                "intensity": mean(request.signal, slot.start, slot.end),
            }
            for slot in found.slots
        ],
        "laterDeadlines": [
            {"later": each.name, "finish": _time(each.plan.finish), "expected": _totals(each.plan.totals)}
            for each in others
        ],
        "beyondBudget": _beyond(found, request, budget),
    }


def lines(
    name: str, found: Plan, request: Request, others: Sequence[Later], currency: str, budget: EnergyBudget
) -> list[str]:
    """For people."""
    now = request.now
    text = [found.why if found.why.endswith(".") else f"{found.why}."]
    if not found.meets_deadline:
        text.append(
            f"{name} will be LATE: as fast as it can it is done {duration(found.finish - found.deadline)} after."
        )
    rows = [["FROM", "FOR", "WORKERS", "CAP", "STEPS/S", "WATTS", "G/KWH"]]
    for slot in found.slots[:ROWS]:
        rows.append(_row(slot, request))
    text += aligned(rows).splitlines()
    if len(found.slots) > ROWS:
        text.append(f"and {len(found.slots) - ROWS} more (-o json has all)")
    rows = [["", "DONE IN", "KWH", "GRAMS", "COST", "NODE-HOURS"]]
    rows.append(_sum("this plan", found.finish - now, found.totals, currency))
    usual = found.work_steps / request.usual()
    rows.append(_sum("at once, without a plan", usual, found.usual, currency))
    for each in others:
        rows.append(_sum(f"{each.name} later", each.plan.finish - now, each.plan.totals, currency))
    text += ["", *aligned(rows).splitlines()]
    saved = _saved(found)
    if saved:
        text.append(f"Beside running at once: {', '.join(_beside(what, share) for what, share in saved.items())}.")
    return text + [f"{each}." for each in _beyond(found, request, budget)]


def _beyond(found: Plan, request: Request, budget: EnergyBudget) -> list[str]:
    totals = found.totals
    kwh = totals.joules / JOULES_PER_KWH / request.pue  # those of a budget are without the site's overhead
    return insufficient(budget, kwh, totals.grams, totals.cost)


def mean(signal: Signal | None, start: float, end: float) -> float | None:
    """Of a time, over what is known of it."""
    total = seconds = 0.0
    for slot in signal.slots if signal is not None else ():
        shared = min(slot.end, end) - max(slot.start, start)
        if shared > 0:
            total += slot.value * shared
            seconds += shared
    return round(total / seconds, 1) if seconds else None


def _row(slot: PlanSlot, request: Request) -> list[str]:
    known = mean(request.signal, slot.start, slot.end)
    return [
        datetime.fromtimestamp(slot.start, UTC).strftime("%a %d %b %H:%M"),
        duration(slot.end - slot.start),
        str(slot.workers) if slot.workers else "waits",
        plain(slot.cap_watts, 4) if slot.cap_watts is not None else "",
        plain(slot.throughput, 4) if slot.workers else "",
        f"{slot.watts:.0f}" if slot.workers else "",
        plain(known, 4) if known is not None else "",
    ]


def _sum(name: str, seconds: float, found: Totals, currency: str) -> list[str]:
    return [
        name,
        duration(seconds),
        plain(found.joules / JOULES_PER_KWH, 3),
        plain(found.grams, 4) if found.grams is not None else "?",
        f"{plain(found.cost, 4)} {currency}".strip() if found.cost is not None else "",
        plain(found.node_hours, 3),
    ]


def _beside(what: str, saved: float) -> str:
    percent = round(100 * abs(saved))
    return f"{percent}% {'less' if saved > 0 else 'more'} {what}" if percent else f"as much {what}"


def _saved(found: Plan) -> Mapping[str, float]:
    """Shares, beside running at once at the usual size."""
    pairs = {
        "carbon": (found.totals.grams, found.usual.grams),
        "cost": (found.totals.cost, found.usual.cost),
        "energy": (found.totals.joules, found.usual.joules),
        "node-hours": (found.totals.node_hours, found.usual.node_hours),
    }
    return {name: 1 - ours / usual for name, (ours, usual) in pairs.items() if ours is not None and usual}


def _totals(found: Totals) -> dict[str, Any]:
    return {
        "kwh": found.joules / JOULES_PER_KWH,
        "grams": found.grams,
        "cost": found.cost,
        "nodeHours": found.node_hours,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["Later", "as_object", "later", "lines", "mean"]
