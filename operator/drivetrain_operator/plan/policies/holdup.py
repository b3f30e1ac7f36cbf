"""For which rank do the others wait in every step? The coordinator's finding, with the node's name, in status.

It stays for half a minute at least, and for as long as nobody knows better: a coordinator that has just come tells
nothing before it has heard of some steps.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.holdup import HoldUp
from drivetrain_api.holdup_status import HoldUpStatus
from drivetrain_api.report import Report
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.conditions import stamp
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View

AT_LEAST_SECONDS: Final = 30.0


def holdup(view: View, status: TrainingJobStatus) -> Decision:
    """status.holdUp."""
    old = status.hold_up
    if status.finished or status.is_true(ConditionType.SUSPENDED):
        return Decision(_with(status, None))
    report = fresh_report(view, status)
    if report is None:
        return Decision(status)
    if report.holdup is not None:
        new = _entry(view, report.holdup)
        if old is not None and old.process == new.process:
            new = new.model_copy(update={"since": old.since})
        return Decision(_with(status, new))
    if old is None or not _is_over(report, old):
        return Decision(status)
    left = AT_LEAST_SECONDS - (view.now - old.since).total_seconds()
    return Decision(status, after=left) if left > 0 else Decision(_with(status, None))


def _is_over(report: Report, old: HoldUpStatus) -> bool:
    """Somebody has looked who knows enough, or it is no member any more."""
    return report.holdup_known or (
        report.epoch is not None and all(each.process != old.process for each in report.members)
    )


def _with(status: TrainingJobStatus, new: HoldUpStatus | None) -> TrainingJobStatus:
    return status if new == status.hold_up else status.model_copy(update={"hold_up": new})


def _entry(view: View, found: HoldUp) -> HoldUpStatus:
    pod = next((each for each in view.pods if each.uid == found.pod_uid), None)
    on = f" on {pod.node}" if pod is not None and pod.node else ""
    return HoldUpStatus(
        rank=found.rank,
        pod=pod.name if pod is not None else "",
        node=pod.node[:253] if pod is not None else "",
        process=found.process,
        stage=found.stage,
        slower_by_seconds=found.slower_by,
        share=found.share,
        ranks=found.late,
        since=stamp(view.now),
        message=f"{found.message}{on and f'; it runs{on}'}"[:1024],
    )
