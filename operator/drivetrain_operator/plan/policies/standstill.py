"""Does the job train without moving? The coordinator's sentence, as a condition and as the reason for the phase, and
where the ranks are that hold it up.

Absent until it happens for the first time, as StateLost is. It may come and go with every evaluation, so its end is
written 10 s after its beginning at the soonest: a thousand jobs must not keep etcd busy with that.
"""

from __future__ import annotations

import re
from typing import Final

from drivetrain_api.late_status import MAX_LATE_STACK, LateRankStatus
from drivetrain_api.places import Look
from drivetrain_api.report import JobState
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import SILENT_SECONDS, fresh_report, silent_for
from drivetrain_operator.plan.conditions import clip, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.policies.corruption import MAX_NODE
from drivetrain_operator.plan.view import View

AT_LEAST_SECONDS: Final = 10.0
_IN_BRACKETS: Final = re.compile(r"\(([a-z0-9.-]+)\)")
_TYPE: Final = ConditionType.STANDING_STILL


def standstill(view: View, status: TrainingJobStatus) -> Decision:
    """StandingStill; status.reason and message, where nothing else has one."""
    old = status.condition(_TYPE)
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        return Decision(_over(view, status, status.reason) if old is not None else status)
    report = fresh_report(view, status)
    if report is not None and report.standstill is not None and not _silent(view):
        reason = "RanksLate" if report.standstill.late else "AllRanksWait"
        late = [_late_rank(view, look) for look in report.standstill.looks]
        status = status.model_copy(update={"late_ranks": late})
        message = _with_nodes(report.standstill.message, view)
        return Decision(_shown(with_condition(view, status, _TYPE, True, reason, message)))
    if old is None or old.status == "False":
        return Decision(status)
    if _silent(view):
        return Decision(with_condition(view, status, _TYPE, None, "CoordinatorSilent", old.message))
    if report is None:
        return Decision(_shown(status))  # between two coordinators nothing else is known
    left = AT_LEAST_SECONDS - (view.now - old.last_transition_time).total_seconds()
    if left > 0 and report.state is JobState.TRAINING:
        return Decision(_shown(status), after=left)
    return Decision(_over(view, status, "Moving"))


def _over(view: View, status: TrainingJobStatus, reason: str) -> TrainingJobStatus:
    return with_condition(view, status.model_copy(update={"late_ranks": []}), _TYPE, False, reason)


def _late_rank(view: View, look: Look) -> LateRankStatus:
    uid = look.process.partition("/")[0]
    pod = next((each for each in view.pods if each.uid == uid), None)
    last = look.calls[-1] if look.calls else None
    return LateRankStatus(
        rank=look.rank,
        process=look.process,
        pod=pod.name if pod is not None else "",
        node=pod.node[:MAX_NODE] if pod is not None else "",
        where=look.where,
        collective=f"{last}, {last.state}"[:200] if last is not None else "",
        stack=look.stack[-MAX_LATE_STACK:],
    )


def _with_nodes(message: str, view: View) -> str:
    """The coordinator names pods; on which nodes they are, only the operator knows."""
    nodes = {pod.name: pod.node for pod in view.pods if pod.node}

    def named(found: re.Match[str]) -> str:
        node = nodes.get(found[1])
        return f"({found[1]} on {node})" if node is not None else found[0]

    return _IN_BRACKETS.sub(named, message)


def _silent(view: View) -> bool:
    return silent_for(view) >= SILENT_SECONDS


def _shown(status: TrainingJobStatus) -> TrainingJobStatus:
    """For `kubectl get` and `drivetrain why`, unless they have something better to say."""
    found = status.condition(_TYPE)
    if found is None or found.status != "True" or status.reason:
        return status
    return status.model_copy(update={"reason": _TYPE.value, "message": clip(found.message)})
