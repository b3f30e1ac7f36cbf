"""What an adapter found, before it is judged: points as they came, and what the source said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drivetrain_energy.feeds.errors import Mismatch, Unreadable


@dataclass(frozen=True, slots=True)
class Point:
    """From `start` (to `end`, if the source says so) this holds. None: the source has no value there."""

    start: float
    value: float | None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer for one zone."""

    points: tuple[Point, ...]
    """In any order, with repetitions, gaps and overlaps as they came."""
    forecast: bool
    """Somebody's forecast, not only what was measured."""
    vintage: float | None = None
    """When the source made it, if it says so."""
    skew: float = 0.0
    """Seconds by which the source's clock is ahead of ours."""
    zero_is_missing: bool = True
    """No grid's average is zero; a price, or the marginal plant, can be."""
    low_is_wrong: bool = True
    """Values below 2 are kilograms, or tons a megawatt-hour."""


def mapping(found: Any, what: str) -> Mapping[str, Any]:
    """A JSON object. Raises Unreadable."""
    if not isinstance(found, dict):
        raise Unreadable(f"{what} is no object")
    return found


def items(found: Any, what: str) -> list[Any]:
    """A JSON list. Raises Unreadable."""
    if not isinstance(found, list):
        raise Unreadable(f"{what} is no list")
    return found


def same(field_name: str, expected: str, found: Any) -> None:
    """The source speaks of what it was asked for. Raises Mismatch."""
    if found is not None and found != expected:
        raise Mismatch(f"asked for {field_name} {expected}, answered {str(found)[:60]!r}")


__all__ = ["Point", "Reading", "items", "mapping", "same"]
