"""How often did survivors go on after a loss, and how long did the last time take?

Asked by `tally`. A coordinator that dies with a worker, or right after it, has told nobody: what its launchers handed
to its successor makes up for that. `status.counted` remembers over terms how much of it is known already.
"""

from __future__ import annotations

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.recovery import Recovered
from drivetrain_api.recovery_status import RecoveryStatus
from drivetrain_api.report import JobState, Report
from drivetrain_api.status import TrainingJobStatus


def recoveries(status: TrainingJobStatus, report: Report) -> TrainingJobStatus:
    """recoveries, last_recovery_seconds, last_recovery."""
    counted = status.counted
    own = max(0, report.recoveries - counted.recoveries)
    untold = 0
    if report.state in (JobState.TRAINING, JobState.COMPLETING):  # only then do they go on
        untold = max(0, report.recoveries_before - counted.recoveries_before)
        counted = counted.model_copy(update={"recoveries_before": report.recoveries_before})
    if not own and not untold and counted == status.counted:
        return status
    took, phases = status.last_recovery_seconds, status.last_recovery
    if own or untold:  # for one that nobody timed, another one's time would be wrong
        took = round(report.last_recovery_seconds, 3) if own and report.last_recovery_seconds is not None else None
        phases = _phases(report.last_recovery) if took is not None else None
    return status.model_copy(
        update={
            "recoveries": min(status.recoveries + own + untold, MAX_EXACT),
            "last_recovery_seconds": took,
            "last_recovery": phases,
            "counted": counted.model_copy(update={"recoveries": max(report.recoveries, counted.recoveries)}),
        }
    )


def _phases(told: Recovered | None) -> RecoveryStatus | None:
    """None from coordinators of older releases."""
    if told is None:
        return None
    return RecoveryStatus(
        cause=told.cause,
        detected_seconds=round(told.detected, 3),
        formed_seconds=round(told.formed, 3),
        copied_seconds=round(told.copied, 3),
        first_step_seconds=round(told.first_step, 3),
    )
