"""status.lastRecovery: what the last loss was, and what it took until training went on."""

from __future__ import annotations

from pydantic import Field

from drivetrain_api.recovery import RecoveryCause
from drivetrain_api.status_model import Elapsed, StatusModel


class RecoveryStatus(StatusModel):
    """Four phases, one after the other; together they are lastRecoverySeconds."""

    cause: RecoveryCause = Field(description="What the first thing was that went wrong.")
    detected_seconds: Elapsed = Field(
        description="From the first sign of it to the decision to go on without what was lost."
    )
    formed_seconds: Elapsed = Field(
        description="Until all members of the next membership had entered it, with the wait for replacements, if any."
    )
    copied_seconds: Elapsed = Field(description="Until its group stood and all held the same state.")
    first_step_seconds: Elapsed = Field(description="Until all had finished a step.")
