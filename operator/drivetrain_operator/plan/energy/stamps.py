"""PURE: times as they stand in a status."""

from __future__ import annotations

from datetime import datetime

from drivetrain_api.older_python import UTC
from drivetrain_api.status_model import FIRST, LAST


def written_time(seconds: float) -> datetime:
    """In whole seconds, and of a year that a status can have: a job may be slow enough to be done in none."""
    return datetime.fromtimestamp(round(min(max(seconds, FIRST.timestamp()), LAST.timestamp())), UTC)


__all__ = ["written_time"]
