"""Does the storage of spec.snapshots take what is written? What it says, as a condition.

Absent until it fails for the first time. Training goes on meanwhile.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

_TYPE: Final = ConditionType.SNAPSHOTS_FAILING


def snapshots(view: View, status: TrainingJobStatus) -> Decision:
    """SnapshotsFailing."""
    report, old = fresh_report(view, status), status.condition(_TYPE)
    told = report.progress.snapshots if report is not None and report.progress is not None else None
    if told is not None and told.failure is not None and not status.finished:
        message = f"{told.failure}; training goes on, and its steps since cannot be gone back to"
        return Decision(with_condition(view, status, _TYPE, True, "StorageFails", message))
    if old is None or old.status == "False" or (told is None and not status.finished):
        return Decision(status)
    return Decision(with_condition(view, status, _TYPE, False, "Written"))
