"""What coordinators, and launchers without one, tell the operator over HTTPS, and what it answers."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator

from drivetrain_api.messages import PROTOCOL_MAX, EpochId, Message, Progress
from drivetrain_api.places import Place, Standstill

MAX_PODS: Final = 8192
"""Twice the workers that a job may have: some on their way out, while their successors are there."""


MAX_EXACT: Final = 2**53
"""Every reader of JSON keeps whole numbers up to here as they are."""
MAX_TOLD: Final = MAX_EXACT - 1
"""The highest number of a report that is believed: the operator counts steps from 1, and has to be able to write it."""
MAX_RECOVERIES: Final = 2**40
"""One a second for thirty thousand years. The operator adds them up over terms."""
Number = Annotated[int, Field(ge=-1, le=MAX_TOLD)]
Recoveries = Annotated[int, Field(ge=0, le=MAX_RECOVERIES)]


class JobState(StrEnum):
    """What the coordinator is doing."""

    WAITING = "waiting"
    """For its first roster, or for enough ready processes."""
    FORMING = "forming"
    TRAINING = "training"
    COMPLETING = "completing"
    COMPLETE = "complete"
    STOPPED = "stopped"


class MemberReport(Message):
    """One member of the current epoch."""

    rank: int
    process: str
    pod_uid: str
    pid: int
    start_ticks: int
    step: int
    place: Place | None = None
    waiting: bool = False


class Failure(Message):
    """One rank process that ended when it should not have. Numbered within the term, oldest first."""

    seq: Number
    incident: int = Field(ge=-MAX_TOLD, le=MAX_TOLD)
    """Failures with one cause share it (all ranks raise at once): an incident costs one restart of the budget."""
    process: str
    pod_uid: str
    pod_name: str
    rank: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    log_tail: str = ""
    step: int | None = None
    """Last step that a member had committed when this was heard; -1 before the first. None from older coordinators."""
    remedy: str = ""
    """As in `ProcessState`: it costs nothing, and belongs to no incident: `incident` is the number of an event of
    remedies then, and negative."""

    @field_validator("step")
    @classmethod
    def _possible_step(cls, told: int | None) -> int | None:
        """Ranks say it. None if that cannot be."""
        return told if told is not None and -1 <= told <= MAX_TOLD else None


class Incompatible(Message):
    """A launcher that shares no protocol version with this coordinator."""

    pod_name: str
    protocol_min: int
    protocol_max: int


class Report(Message):
    """Everything the coordinator knows, POSTed to `<reports>/v1/report` at least once a second and on change."""

    protocol: int = PROTOCOL_MAX
    job_uid: str
    namespace: str
    job: str
    term: int
    seq: int
    roster_seen: int = -1
    """`Roster.revision` of the last roster applied; the operator may hold its answer (up to 1 s) until it has news."""
    state: JobState
    message: str = ""
    """What it waits for, in words: shown in the Running condition."""
    epoch: EpochId | None = None
    world: int = 0
    members: list[MemberReport] = Field(default_factory=list)
    joined: list[str] = Field(default_factory=list, max_length=MAX_PODS)
    """Pod uids whose launcher is connected."""
    ready: list[str] = Field(default_factory=list, max_length=MAX_PODS)
    """Pod uids with all their processes READY, MEMBER or DONE."""
    released: list[str] = Field(default_factory=list, max_length=MAX_PODS)
    progress: Progress | None = None
    standstill: Standstill | None = None
    """None while training moves, and while nothing trains (`state` and `message` say why then)."""
    failures: list[Failure] = Field(default_factory=list)
    """The last 20 of this term."""
    incompatible: list[Incompatible] = Field(default_factory=list)
    state_lost: int = Field(default=0, ge=0, le=1_000_000)
    """How often all holders of the training state were lost and training started over."""
    recoveries: Recoveries = 0
    """Of this term."""
    recoveries_before: Recoveries = 0
    """Of earlier terms, as their forms say that launchers handed over."""
    last_recovery_seconds: float | None = Field(default=None, allow_inf_nan=False)
    """From the first sign of a loss to the first step that every member of the new epoch finished. None if that loss
    was there before this coordinator, which cannot know for how long."""

    @field_validator("failures")
    @classmethod
    def _remedies_belong_to_no_incident(cls, told: list[Failure]) -> list[Failure]:
        """Their numbers are negative, whatever was said."""
        return [f.model_copy(update={"incident": -abs(f.incident)}) if f.remedy else f for f in told]

    @field_validator("progress")
    @classmethod
    def _possible(cls, told: Progress | None) -> Progress | None:
        """Ranks say it. None if that cannot be; without a pace, if no remaining time follows from it."""
        if told is None or not -1 <= told.step <= MAX_TOLD or not 0 <= (told.steps or 0) <= MAX_TOLD:
            return None
        if told.communication is not None and not 0 <= (told.communication.bytes_per_step or 0) <= MAX_TOLD:
            return None
        pace = told.step_seconds
        if pace is None or (math.isfinite(pace) and 0 <= pace * max(told.steps or 0, 10**6) <= MAX_TOLD):
            return told
        return told.model_copy(update={"step_seconds": None})


class RosterPod(Message):
    """A worker pod as Kubernetes knows it."""

    uid: str
    name: str
    index: int
    draining: bool = False
    """Deleted or on its way out by the operator's wish: do not seat it in new epochs."""


class Roster(Message):
    """The operator's answer to a report: Kubernetes' word on which pods exist and what the user wants."""

    protocol: int = PROTOCOL_MAX
    revision: int
    """Grows with every change of content, for one operator process; a new leader starts anew at a higher number."""
    term: int
    """Highest term of the job: a coordinator that sees a higher one than its own stops for good."""
    target: int
    """Workers wanted."""
    minimum: int
    """Workers below which training waits."""
    pods: list[RosterPod]
    proven_dead: list[str] = Field(default_factory=list)
    """Pod uids whose containers terminated, or that are gone from Kubernetes and cannot run any more."""
    no_progress_seconds: float | None = None
    """`recovery.noProgressSeconds`; None leaves it to the coordinator, which knows how long steps take."""
    stop: str | None = None


class LostCoordinator(Message):
    """The coordinator that had welcomed this launcher cannot be reached any more. POSTed to `<reports>/v1/lost` by the
    launcher, about once a second, while it is true."""

    protocol: int = PROTOCOL_MAX
    job_uid: str = Field(max_length=64)
    pod_uid: str = Field(max_length=64)
    term: int = Field(ge=0, le=2**31 - 1)
    """Of the last coordinator that had welcomed it; 0 if none ever did."""
