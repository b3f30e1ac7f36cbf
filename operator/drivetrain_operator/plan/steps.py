"""PURE: how many steps are done, by what was told last?"""

from __future__ import annotations

from drivetrain_api.messages import Progress
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.view import View


def steps_done(view: View, status: TrainingJobStatus) -> int | None:
    """By the newest report: what stands in status is up to a minute old. None: nobody has told of any."""
    before = status.progress.step if status.progress is not None else None
    report = fresh_report(view, status) if not status.is_true(ConditionType.SUSPENDED) else None
    told = report.progress if report is not None else None
    return step_of(told, before) if told is not None else before


def step_of(told: Progress, before: int | None) -> int:
    """Told by another rank after a loss, the number may be one or two behind what was said before."""
    return max(told.step + 1, before if before is not None and not told.goes_back else 0)


__all__ = ["step_of", "steps_done"]
