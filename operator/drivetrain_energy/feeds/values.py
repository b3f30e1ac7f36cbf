"""Numbers and times as strangers write them: each function gives None for what is none, and never raises."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

EARLIEST: Final = 946684800.0
"""2000: before it there was no feed."""
LATEST: Final = 7258118400.0
"""2200."""
_DURATION: Final = re.compile(
    r"P(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?"
    r"(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?"
)
_UNITS: Final = (31536000.0, 2592000.0, 604800.0, 86400.0, 3600.0, 60.0, 1.0)


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text; True is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def instant(value: Any, zone: ZoneInfo | None = None) -> float | None:
    """Seconds since the epoch of a time in ISO 8601. One without an offset is of `zone`; without a zone it is UTC."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        found = datetime.fromisoformat(value.strip())
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone or UTC)
        return within(found.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def within(seconds: float | None) -> float | None:
    """A time that can be meant."""
    return seconds if seconds is not None and EARLIEST <= seconds < LATEST else None


def duration(value: Any) -> float | None:
    """Seconds of an ISO 8601 duration such as PT1H; a month has 30 days."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    found = _DURATION.fullmatch(value)
    if found is None or value in ("P", "") or value.endswith("T"):
        return None
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


def told(seconds: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def stamp(seconds: float) -> str:
    """A time for providers, to the second."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["EARLIEST", "LATEST", "duration", "instant", "number", "stamp", "told", "within"]
