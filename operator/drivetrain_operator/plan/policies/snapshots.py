"""Does the storage of spec.snapshots take what is written, and can what is written be applied again? As conditions.

Each is absent until it holds for the first time. Training goes on meanwhile.
"""

from __future__ import annotations

from drivetrain_api.messages import Snapshotted
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def snapshots(view: View, status: TrainingJobStatus) -> Decision:
    """SnapshotsFailing and StepsNotReplayed."""
    report = fresh_report(view, status)
    told = report.progress.snapshots if report is not None and report.progress is not None else None
    return Decision(_replayed(view, _failing(view, status, told), told))


def _failing(view: View, status: TrainingJobStatus, told: Snapshotted | None) -> TrainingJobStatus:
    kind = ConditionType.SNAPSHOTS_FAILING
    old = status.condition(kind)
    if told is not None and told.failure is not None and not status.finished:
        message = f"{told.failure}; training goes on, and its steps since cannot be gone back to"
        return with_condition(view, status, kind, True, "StorageFails", message)
    if old is None or old.status == "False" or (told is None and not status.finished):
        return status
    return with_condition(view, status, kind, False, "Written")


def _replayed(view: View, status: TrainingJobStatus, told: Snapshotted | None) -> TrainingJobStatus:
    kind = ConditionType.STEPS_NOT_REPLAYED
    if told is not None and told.differs is not None:
        message = f"{told.differs}; each step writes the state that it has made instead of what it applied"
        return with_condition(view, status, kind, True, "OtherBits", message)
    if told is None or status.condition(kind) is None:
        return status
    return with_condition(view, status, kind, False, "SameBits")
