"""PURE: when may a create that the API server refused be tried again?"""

from __future__ import annotations

from typing import Final

from drivetrain_operator.plan.view import Refusal, RefusalKind, View

MAX_RETRY_SECONDS: Final = 60.0


def retry_delay(view: View, name: str) -> float:
    """Seconds until `name` may be created (again); 0 or less: now. Infinite while only a change of spec can help."""
    return max((_left(view, refusal) for refusal in view.refusals if refusal.name == name), default=0.0)


def _left(view: View, refusal: Refusal) -> float:
    if refusal.kind is RefusalKind.INVALID and refusal.generation >= view.job.generation:
        return float("inf")
    if refusal.generation < view.job.generation:
        return 0.0  # somebody changed the job: what was refused may be another pod now
    return min(2.0 ** min(refusal.count - 1, 10), MAX_RETRY_SECONDS) - refusal.age_seconds


def finite(seconds: float) -> float | None:
    """A delay as `Plan.requeue_after` means it: None where time alone changes nothing."""
    return None if seconds == float("inf") else seconds
