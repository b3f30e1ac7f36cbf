"""PURE: how does `kubectl get tj` print a job? With the columns of the CRD, so that both always agree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from drivetrain_api.crd import COLUMNS
from drivetrain_cli.printable import printable

Json = dict[str, Any]


def table(jobs: list[Json], now: datetime, *, wide: bool = False) -> str:
    """Header and one row a job."""
    columns = [column for column in COLUMNS if wide or column[4] == 0]
    rows = [["NAME", *(column[0].upper() for column in columns)]]
    for job in jobs:
        rows.append([job["metadata"]["name"], *(_cell(job, kind, path, now) for _, kind, path, _, _ in columns)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl writes them: as wide as their widest cell, three blanks between."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) + 3 for index in range(len(rows[0]))]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cell(job: Json, kind: str, path: str, now: datetime) -> str:
    found: Any = job
    for step in path.strip(".").split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if found is None:
        return ""
    return age(str(found), now) if kind == "date" else str(found)


def age(timestamp: str, now: datetime) -> str:
    """Time since then as kubectl writes it: 45s, 3m20s, 25m, 5h10m, 3d."""
    seconds = max(0, int((now - parsed(timestamp)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d{hours % 24}h" if days < 8 and hours % 24 else f"{days}d"


def parsed(timestamp: str) -> datetime:
    """RFC 3339 to a time in UTC."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).astimezone(UTC)
