"""Does the job train without moving? The coordinator's sentence, as a condition and as the reason for the phase.

Absent until it happens for the first time, as StateLost is. It may come and go with every evaluation, so its end is
written 10 s after its beginning at the soonest: a thousand jobs must not keep etcd busy with that.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.report import JobState
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import SILENT_SECONDS, fresh_report, silent_for
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

AT_LEAST_SECONDS: Final = 10.0
_TYPE: Final = ConditionType.STANDING_STILL


def standstill(view: View, status: TrainingJobStatus) -> Decision:
    """StandingStill; status.reason and message, where nothing else has one."""
    old = status.condition(_TYPE)
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        return Decision(with_condition(view, status, _TYPE, False, status.reason) if old is not None else status)
    report = fresh_report(view, status)
    if report is not None and report.standstill is not None and not _silent(view):
        reason = "RanksLate" if report.standstill.late else "AllRanksWait"
        return Decision(_shown(with_condition(view, status, _TYPE, True, reason, report.standstill.message)))
    if old is None or old.status == "False":
        return Decision(status)
    if _silent(view):
        return Decision(with_condition(view, status, _TYPE, None, "CoordinatorSilent", old.message))
    if report is None:
        return Decision(_shown(status))  # between two coordinators nothing else is known
    left = AT_LEAST_SECONDS - (view.now - old.last_transition_time).total_seconds()
    if left > 0 and report.state is JobState.TRAINING:
        return Decision(_shown(status), after=left)
    return Decision(with_condition(view, status, _TYPE, False, "Moving"))


def _silent(view: View) -> bool:
    return silent_for(view) >= SILENT_SECONDS


def _shown(status: TrainingJobStatus) -> TrainingJobStatus:
    """For `kubectl get` and `drivetrain why`, unless they have something better to say."""
    found = status.condition(_TYPE)
    if found is None or found.status != "True" or status.reason:
        return status
    return status.model_copy(update={"reason": _TYPE.value, "message": clip(found.message)})
