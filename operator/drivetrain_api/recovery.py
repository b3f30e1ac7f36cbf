"""What was lost, and what did it take until training went on? One recovery in four phases, each after the other."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from drivetrain_api.bounds import Seconds
from drivetrain_api.figures import plain
from drivetrain_api.older_python import StrEnum


class RecoveryCause(StrEnum):
    """What the first thing was that went wrong."""

    PROCESS = "process"
    """A rank's process ended."""
    POD = "pod"
    """A worker's pod ended or is gone, by Kubernetes' word."""
    UNREACHABLE = "unreachable"
    """A worker's launcher was not heard any more."""
    COMMUNICATION = "communication"
    """Ranks could not talk to one another, and all of them lived."""
    STANDSTILL = "standstill"
    """A rank held the others up for longer than recovery.noProgressSeconds."""
    FORMATION = "formation"
    """A membership that was forming came to nothing."""
    COORDINATOR = "coordinator"
    """The coordinator was lost while a membership formed."""
    UNKNOWN = "unknown"
    """A word of a newer release."""


RECOVERY_PHASES: Final = ("detected", "formed", "copied", "first_step")
"""In their order. *detected*: from the first sign to the decision to go on without what was lost. *formed*: until all
members of the new membership had entered it; what waits for replacements is in here. *copied*: until its group stood
and all held the same state. *first_step*: until all had finished a step."""


def _known(told: Any) -> Any:
    if not isinstance(told, str):
        return told
    return told if told in set(map(str, RecoveryCause)) else RecoveryCause.UNKNOWN


class Recovered(BaseModel):
    """The last recovery, by the clock of the coordinator that saw all of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cause: Annotated[RecoveryCause, BeforeValidator(_known)]
    detected: Seconds
    formed: Seconds
    copied: Seconds
    first_step: Seconds


def sentence(cause: str, detected: float, formed: float, copied: float, first_step: float) -> str:
    """The one of events and of the command line."""
    return (
        f"{cause} lost: detected in {plain(detected, 2)} s, formed in {plain(formed, 2)} s, "
        f"state copied in {plain(copied, 2)} s, first step in {plain(first_step, 2)} s"
    )
