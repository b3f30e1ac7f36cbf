"""PURE: how much electricity a job has used, what that emitted, and what its plan is: the part of a page on energy."""

from __future__ import annotations

from typing import Any, Final

from drivetrain_api.figures import short
from drivetrain_cli.life.energy import KNOWN_BY, account, by_component, sentences
from drivetrain_cli.report import axis
from drivetrain_cli.report.axis import elapsed, number
from drivetrain_cli.report.markup import Html, Ids, tag
from drivetrain_cli.report.plot import Line, Plot, Point, Span, bars, drawn, folded, shades, table
from drivetrain_cli.report.told import Told
from drivetrain_cli.table import parsed

Json = dict[str, Any]
MADE: Final = "before this plan was made"
_PIECES: Final = {"gpu": "productive", "cpu": "resizing", "dram": "snapshot"}
"""Looks of components."""


def electricity(told: Told, ids: Ids) -> list[Html]:
    """What it used, and its plan."""
    found = account(told.job)
    text = [tag("p", each) for each in sentences(found)] if found.get("joules") else []
    return [*text, *_components(found, ids), *_foreseen(found), *_plan(told, ids)]


def _components(found: Json, ids: Ids) -> list[Html]:
    parts = by_component(found)
    whole = sum(kwh for *_, kwh in parts)
    if whole <= 0:
        return []
    row = [(_PIECES.get(c, "other"), kwh, f"{c} {short(kwh)} kWh ({100 * kwh / whole:.1f} %)") for c, _, kwh in parts]
    rows = [[c, short(kwh), f"{100 * kwh / whole:.1f} %", KNOWN_BY.get(s, s)] for c, s, kwh in parts]
    numbers = table(
        "Electricity by component", ["Component", "kWh", "Share", "How it is known"], rows, numbers=frozenset({1, 2})
    )
    title = "Electricity by component"
    return [tag("figure", *bars(title, f"{short(whole)} kWh:", [row], whole, ids)), numbers]


def _foreseen(found: Json) -> list[Html]:
    from_plans = found.get("planned") or {}
    first = from_plans.get("first")
    if first is None:
        return []
    last = from_plans.get("foreseen") or first
    rows = [
        [name, *(short(value) if (value := each.get(of)) is not None else "–" for each in (first, last))]
        for name, of in (("kWh", "kwh"), ("g CO2e", "grams"), ("Cost", "cost"))
    ]
    rows.append(["Done", *(str(each.get("finish") or "–") for each in (first, last))])
    return [table("What plans foresaw of the whole job", ["", "First plan", "Last plan"], rows)]


def _plan(told: Told, ids: Ids) -> list[Html]:
    plan = (told.status.get("energy") or {}).get("plan") or {}
    slots = plan.get("slots") or []
    if not slots:
        return []
    created = parsed(told.job["metadata"]["creationTimestamp"])

    def since(stamp: str) -> float:
        return max(0.0, (parsed(stamp) - created).total_seconds())

    end = since(plan["end"])
    starts = [since(each["start"]) for each in slots]
    workers = [float(each.get("workers") or 0) for each in slots]
    points = [Point(at, n, n, n) for at, n in zip([*starts, end], [*workers, workers[-1]], strict=True)]
    title = "Workers as planned"
    steps = ", ".join(f"from {elapsed(at)} {n:g}" for at, n in zip(starts[:20], workers, strict=False))
    before = [Span(0.0, starts[0], "before", MADE)] if starts[0] > 0 else []
    plot = Plot(
        title,
        f"Workers over time, by the plan that holds: {steps}; until {elapsed(end)} after creation.",
        axis.of_time(max(end, told.seconds)),
        axis.whole(int(max(workers))),
        [Line("workers", [points])],
        before,
        stepped=True,
    )
    rows = [
        [elapsed(at), elapsed(until - at), f"{n:g}", _cap(each), f"{number(float(each.get('watts') or 0.0))} W"]
        for at, until, n, each in zip(starts, [*starts[1:], end], workers, slots, strict=True)
    ]
    head = ["From", "For", "Workers", "Cap of a GPU", "Draws"]
    steps_table = table(f"{title}, since creation", head, rows, numbers=frozenset({1, 2, 3, 4}))
    why = tag("p", f"{plan.get('why') or 'Its plan'}. To be done by {plan.get('deadline', 'no deadline')}.")
    picture = tag("figure", tag("h3", title), drawn(plot, ids), shades(plot.spans, ()), folded("Steps", steps_table))
    return [why, picture]


def _cap(slot: Json) -> str:
    return f"{slot['capWatts']:g} W" if slot.get("capWatts") is not None else "–"


__all__ = ["electricity"]
