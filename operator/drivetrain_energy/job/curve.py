"""What does a job get, and draw, at each number of workers and each power cap?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One way to run a job."""

    workers: int
    throughput: float
    """Steps a second."""
    watts: float
    """Of the whole job, with its share of the hosts where that is counted."""
    cap_watts: float | None = None
    """Of each device; None: as it comes."""


Curve = tuple[Point, ...]
"""All ways that are known, in any order; never empty where it is asked for."""

__all__ = ["Curve", "Point"]
