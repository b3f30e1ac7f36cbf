"""What has the coordinator reported that is not counted yet?

Reports carry full state and come again and again; `status.counted` remembers how far they were taken over, in the
same write that raises the counters, so that each failure counts once whatever crashes. It starts anew with each term.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.exit_codes import RankExitCode
from drivetrain_api.messages import DEVIATION, STATE_LOST
from drivetrain_api.report import Failure, JobState, Report
from drivetrain_api.status import (
    MAX_LOG_TAIL,
    ConditionType,
    FailureStatus,
    TrainingJobStatus,
)
from drivetrain_operator.plan.causes import hopeless_process, last_line, process_reason
from drivetrain_operator.plan.children import fresh_report, source_of_state
from drivetrain_operator.plan.conditions import ended, stamp, with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.incidents import charge, starts_over
from drivetrain_operator.plan.policies.recovered import recoveries
from drivetrain_operator.plan.view import View

MAX_PROCESS: Final = 128
MAX_REMEDIES: Final = 20
"""So many times may Drivetrain end processes for no fault of theirs, all at once or one, without a step between."""
SETBACK_STEPS: Final = 2
"""A step is told one step late, and by another rank after a loss; further back means that training started over."""


def tally(view: View, status: TrainingJobStatus) -> Decision:
    """restarts, failures, recoveries, attempt."""
    report = fresh_report(view, status)
    if report is None:
        return Decision(status)
    before = status.restarts
    status = _failures(view, status, report)
    status = _state_lost(view, status, report)
    if (found := _hopeless(status)) is not None:
        return Decision(ended(view, status, ConditionType.FAILED, found.reason, _said(found)), final=True)
    if status.restarts > before and (why := hopeless_process(status.failures)) is not None:
        reason = next(f.reason for f in reversed(status.failures) if f.counted)
        return Decision(ended(view, status, ConditionType.FAILED, reason, why), final=True)
    return Decision(recoveries(status, report))


def _failures(view: View, status: TrainingJobStatus, report: Report) -> TrainingJobStatus:
    counted = status.counted
    news = sorted((f for f in report.failures if f.seq > counted.failure), key=lambda f: f.seq)
    if not news:
        return status
    # Launchers list their dead for a while, so a new coordinator reports deaths that its predecessor had reported.
    known = {f.process for f in status.failures}
    nodes = {p.uid: p.node for p in view.pods}
    seen, entries = {counted.incident}, list[FailureStatus]()
    remedies, remedies_step, event = counted.remedies, counted.remedies_step, counted.remedy_event
    # A new term hears of old deaths, some of which its predecessor told: then all of that incident is paid for.
    seen |= {f.incident for f in news if f.process[:MAX_PROCESS] in known and not f.remedy}
    for failure in news:
        if failure.process[:MAX_PROCESS] in known:
            if not failure.remedy:
                seen.add(failure.incident)  # paid for already, also by those that fail beside it
            continue
        if failure.remedy:
            step = -1 if failure.step is None else failure.step
            fresh = failure.incident != event
            remedies = 1 if step != remedies_step else remedies + fresh
            remedies_step, event = step, failure.incident
            costs = fresh and remedies > MAX_REMEDIES
        else:
            costs = failure.incident > counted.incident and failure.incident not in seen
            seen.add(failure.incident)
        entries.append(_entry(view, failure, nodes.get(failure.pod_uid, ""), costs))
    updated = counted.model_copy(
        update={
            "failure": news[-1].seq,
            "incident": max(seen),
            "remedies": remedies,
            "remedies_step": remedies_step,
            "remedy_event": event,
        }
    )
    return charge(view, status.model_copy(update={"counted": updated}), entries)


_HOPELESS: Final = {STATE_LOST: RankExitCode.STATE_LOST, DEVIATION: RankExitCode.DEVIATION}
"""With which exit code a rank says that a repeat cannot help."""


def _hopeless(status: TrainingJobStatus) -> FailureStatus | None:
    """A part of the state is gone and nothing was saved to go on from, or the ranks' scripts have come apart."""
    return next((f for f in status.failures if f.reason in _HOPELESS and f.exit_code == _HOPELESS[f.reason]), None)


def _said(failure: FailureStatus) -> str:
    """Its line about that, without the prefix."""
    lines = (line for line in failure.log_tail.splitlines() if failure.reason in line)
    line = next(lines, last_line(failure.log_tail))  # the beginning of a long one may be cut off
    return line.split(f"{failure.reason}: ", 1)[-1].removesuffix(": asking for a fresh process")


def _state_lost(view: View, status: TrainingJobStatus, report: Report) -> TrainingJobStatus:
    lost = max(0, report.state_lost - status.counted.state_lost)
    if not lost and _went_back(status, report):
        lost = 1  # a coordinator that came after the loss cannot know of it: nobody was left to tell
    if not lost:
        return status
    at = f" at step {status.progress.step}" if status.progress is not None else ""
    attempt = status.attempt + lost
    part = next((f for f in reversed(status.failures) if f.reason == STATE_LOST), None)
    if part is not None:
        message = f"{_said(part)}; attempt {attempt}"
    else:
        message = (
            f"every process that held the training state was lost{at}; "
            f"attempt {attempt} started over from {source_of_state(view, status)}"
        )
    status = with_condition(view, status, ConditionType.STATE_LOST, True, "PartLost" if part else "NoSurvivor", message)
    counted = status.counted.model_copy(update={"state_lost": max(report.state_lost, status.counted.state_lost)})
    updated = {"attempt": attempt, "progress": None, "counted": counted, "state_losses": status.state_losses + lost}
    return starts_over(view, status).model_copy(update=updated)


def _went_back(status: TrainingJobStatus, report: Report) -> bool:
    if report.state is not JobState.TRAINING or report.progress is None or status.progress is None:
        return False
    if report.progress.goes_back:
        return False  # to a checkpoint of the script's own
    return report.progress.step + 1 < status.progress.step - SETBACK_STEPS


def _entry(view: View, failure: Failure, node: str, counted: bool) -> FailureStatus:
    return FailureStatus(
        time=stamp(view.now),
        reason=process_reason(failure),
        pod=failure.pod_name[:253],
        process=failure.process[:MAX_PROCESS],
        node=node,
        rank=_within(failure.rank, 0, MAX_EXACT),
        exit_code=_within(failure.exit_code, -(2**31), 2**31 - 1),
        signal=_within(failure.signal, 0, 255),
        counted=counted,
        log_tail=(failure.log_tail or failure.remedy)[-MAX_LOG_TAIL:],
        step=_step(view.job.status, failure),
    )


def _step(status: TrainingJobStatus, failure: Failure) -> int | None:
    """-1 of a job that has trained means that its coordinator, being new, does not know."""
    step = _within(failure.step, -1, MAX_EXACT)
    return None if step is None or (step < 0 and status.progress is not None) else step


def _within(number: int | None, least: int, most: int) -> int | None:
    """What a process's own words said of it, if that can be."""
    return number if number is not None and least <= number <= most else None
