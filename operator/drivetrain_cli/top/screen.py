"""PURE: what `drivetrain top` shows of jobs, as lines that fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from drivetrain_cli.printable import printable
from drivetrain_cli.reasons import short
from drivetrain_cli.report.axis import number
from drivetrain_cli.table import age

Json = dict[str, Any]
_HEAD: Final = [
    "NAME",
    "PHASE",
    "WORKERS",
    "STEP",
    "DONE",
    "SAMPLES/S",
    "LOSS",
    "ETA",
    "GOODPUT",
    "LOSSES",
    "AGE",
    "WHY",
]
_RIGHT: Final = frozenset({"STEP", "DONE", "SAMPLES/S", "LOSS", "GOODPUT", "LOSSES"})
_COLOURS: Final = {
    "Running": "32",
    "Succeeded": "32",
    "Failed": "31",
    "Waiting": "33",
    "Pending": "33",
    "Suspended": "36",
}
_ORDER: Final = ("Running", "Waiting", "Pending", "New", "Suspended", "Failed", "Succeeded")


def table(jobs: Sequence[Json], now: datetime, *, namespaces: bool) -> list[list[str]]:
    """Header and a row a job: what goes on comes first."""
    head = ["NAMESPACE", *_HEAD] if namespaces else list(_HEAD)
    rows = [_row(job, now, namespaces) for job in sorted(jobs, key=_rank)]
    return [head, *rows]


def plain(rows: Sequence[Sequence[str]]) -> list[str]:
    """For a file or a pipe: as wide as it is."""
    return [_line(row, rows[0], _widths(rows)) for row in rows]


def screen(
    rows: Sequence[Sequence[str]], title: str, columns: int, lines: int, *, colour: bool, note: str = ""
) -> list[str]:
    """At most so many lines, each of which fits. `note`: what is wrong, if anything is."""
    widths = _widths(rows)
    room = max(1, lines - 4)
    shown = rows[1 : 1 + room]
    found = [_cut(printable(title), columns), _cut(printable(note), columns)]
    found.append(_painted(_cut(_line(rows[0], rows[0], widths), columns), "1", colour))
    phase = list(rows[0]).index("PHASE")
    for row in shown:
        text = _cut(_line(row, rows[0], widths), columns)
        found.append(_painted(text, _COLOURS.get(row[phase], ""), colour))
    hidden = len(rows) - 1 - len(shown)
    found.append(_cut(f"… and {hidden} more (make the window higher, or use -n)" if hidden else "", columns))
    return found[:lines]


def _row(job: Json, now: datetime, namespaces: bool) -> list[str]:
    meta, status = job["metadata"], job.get("status") or {}
    progress, over = status.get("progress") or {}, status.get("phase") in ("Succeeded", "Failed")
    trains = status.get("phase") == "Running"
    row = [
        str(meta["name"]),
        status.get("phase") or "New",
        str((status.get("workers") or {}).get("summary") or "-"),
        _cell(progress.get("step")),
        progress.get("summary") or "-",
        _number(progress.get("samplesPerSecond") if trains else None),
        _number(progress.get("loss")),
        (progress.get("eta") if trains else None) or "-",
        (status.get("goodput") or {}).get("summary") or "-",
        _cell(status.get("recoveries")),
        age(meta["creationTimestamp"], now),
        "" if over and status.get("phase") == "Succeeded" else short(job),
    ]
    return [printable(cell) for cell in ([str(meta["namespace"]), *row] if namespaces else row)]


def _rank(job: Json) -> tuple[int, str, str]:
    phase = (job.get("status") or {}).get("phase") or "New"
    meta = job["metadata"]
    return _ORDER.index(phase) if phase in _ORDER else len(_ORDER), str(meta["namespace"]), str(meta["name"])


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]


def _line(row: Sequence[str], head: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for cell, name, width in zip(row, head, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: max(0, columns - 1)]}…"


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def _number(value: float | None) -> str:
    return "-" if value is None else number(value)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
