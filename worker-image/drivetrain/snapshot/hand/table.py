"""PURE: how does a person read what a storage has?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from drivetrain.snapshot.hand.survey import Base, Range, Run, Survey
from drivetrain_api.older_python import UTC

_FIRST_COPY = (
    "Steps are written, but they lead on from a full copy of the state (a base), and the first one is not whole: it is",
    "copied beside training. While the job runs, wait; of a job that has ended, no step can be gone back to.",
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def told(survey: Survey) -> str:
    """Lines."""
    lines = [f"{survey.storage}: {survey.objects} objects, {size(survey.bytes)}"]
    if survey.newest is None:
        lines.append("No step can be gone back to.")
        if survey.unfinished and any(run.steps for run in survey.runs):
            lines += _FIRST_COPY
    else:
        lines.append(f"Steps that can be gone back to: {spans(survey.steps)}")
        how = "all that is there was read" if survey.verified else "by the names of objects; verify reads all of them"
        lines.append(f"Training would go on with step {survey.newest} ({how}).")
    if survey.promised is not None and survey.promised > (survey.newest or 0):
        lines.append(f"Step {survey.promised} was written, and cannot be reached: see what is damaged.")
    if survey.runs:
        header: tuple[str, ...] = ("RUN", "FROM", "STEPS", "RANKS", "SIZE", "BEGAN")
        lines += ["", *_columns(header, [_run(each) for each in survey.runs])]
    if survey.bases:
        header = ("BASE", "RUN", "REACHES", "STEPS SINCE", "RANKS", "SIZE", "WRITTEN", "")
        lines += ["", *_columns(header, [_base(each) for each in survey.bases])]
    for name, held in survey.unfinished.items():
        lines += ["", f"{name}: {size(held)} of a full copy that is not whole"]
    if survey.damaged:
        lines += ["", "DAMAGED", *(f"{name}: {what}" for name, what in survey.damaged.items())]
    return "\n".join(lines)


def _run(run: Run) -> Sequence[str]:
    before = "-" if run.came_from is None else f"run {run.came_from[0]}, step {run.came_from[1]}"
    if run.branch_of is not None:
        before = f"{run.branch_of['storage']}, step {run.branch_of['step']}"
    worlds = list(dict.fromkeys(run.world)) if len(set(run.world)) == 1 else run.world
    steps = spans(run.steps) or "none"
    return (
        str(run.run),
        before,
        steps if run.leads_on else "nobody's: a newer run does not follow it",
        ", ".join(map(str, worlds)) or "-",
        size(run.bytes),
        _time(run.began),
    )


def _base(base: Base) -> Sequence[str]:
    reaches = "-" if base.reaches is None else spans([(base.whole_from, base.reaches)])
    since = "-" if base.reaches is None else str(base.reaches - base.step)
    damage = "damaged" if base.damaged is not None else ""
    return (
        str(base.step),
        str(base.run),
        reaches,
        since,
        str(base.world),
        size(base.bytes),
        _time(base.written),
        damage,
    )


def spans(ranges: Sequence[Range]) -> str:
    """`3, 7 to 9`."""
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges)


def size(number: float) -> str:
    """Bytes with a unit."""
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _time(unix: float | None) -> str:
    return "-" if unix is None else datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in (header, *rows)) + 3 for index in range(len(header))]
    return [
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)
    ]
