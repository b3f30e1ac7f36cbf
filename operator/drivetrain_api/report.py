"""What coordinators, and launchers without one, tell the operator over HTTPS, and what it answers."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator

from drivetrain_api.bounds import (
    MAX_MEMBERS,
    MAX_PODS,
    MAX_TOLD,
    Count,
    Duration,
    Name,
    Number,
    ProcessId,
    Recoveries,
    Seconds,
    Sentence,
    Signed32,
    Small,
    Tail,
    Term,
    Uid,
)
from drivetrain_api.energy import EnergyByCoordinator, EnergyCounted
from drivetrain_api.goodput import SpentByJob
from drivetrain_api.holdup import HoldUp
from drivetrain_api.messages import PROTOCOL_MAX, EpochId, Message, PossibleProgress
from drivetrain_api.older_python import StrEnum
from drivetrain_api.places import Place, Standstill
from drivetrain_api.recovery import Recovered

MAX_TOLD_FAILURES: Final = 64
"""Coordinators tell the last 20."""


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

    rank: Small
    process: ProcessId
    pod_uid: Uid
    pid: Small
    start_ticks: Count
    step: Number
    place: Place | None = None
    waiting: bool = False


class Failure(Message):
    """One rank process that ended when it should not have. Numbered within the term, oldest first."""

    seq: Number
    incident: int = Field(ge=-MAX_TOLD, le=MAX_TOLD)
    """Failures with one cause share it (all ranks raise at once): an incident costs one restart of the budget."""
    process: ProcessId
    pod_uid: Uid
    pod_name: Name
    rank: Small | None = None
    exit_code: Signed32 | None = None
    signal: Signed32 | None = None
    log_tail: Tail = ""
    step: int | None = None
    """Last step that a member had committed when this was heard; -1 before the first. None from older coordinators."""
    remedy: Sentence = ""
    """As in `ProcessState`: it costs nothing, and belongs to no incident: `incident` is the number of an event of
    remedies then, and negative."""

    @field_validator("step")
    @classmethod
    def _possible_step(cls, told: int | None) -> int | None:
        """Ranks say it. None if that cannot be."""
        return told if told is not None and -1 <= told <= MAX_TOLD else None


class Incompatible(Message):
    """A launcher that shares no protocol version with this coordinator."""

    pod_name: Name
    protocol_min: Small
    protocol_max: Small


class Report(Message):
    """Everything the coordinator knows, POSTed to `<reports>/v1/report` at least once a second and on change."""

    protocol: Small = PROTOCOL_MAX
    job_uid: Uid
    namespace: Name
    job: Name
    term: Term
    seq: Count
    roster_seen: Number = -1
    """`Roster.revision` of the last roster applied; the operator may hold its answer (up to 1 s) until it has news."""
    state: JobState
    message: Sentence = ""
    """What it waits for, in words: shown in the Running condition."""
    epoch: EpochId | None = None
    world: int = Field(default=0, ge=0, le=MAX_MEMBERS)
    members: list[MemberReport] = Field(fail_fast=True, default_factory=list, max_length=MAX_MEMBERS)
    joined: list[Uid] = Field(fail_fast=True, default_factory=list, max_length=MAX_PODS)
    """Pod uids whose launcher is connected."""
    ready: list[Uid] = Field(fail_fast=True, default_factory=list, max_length=MAX_PODS)
    """Pod uids with all their processes READY, MEMBER or DONE."""
    released: list[Uid] = Field(fail_fast=True, default_factory=list, max_length=MAX_PODS)
    progress: PossibleProgress = None
    standstill: Standstill | None = None
    """None while training moves, and while nothing trains (`state` and `message` say why then)."""
    holdup: HoldUp | None = None
    """Who makes the others wait in every step; None if nobody does, if it is not known, and from older coordinators."""
    holdup_known: bool = False
    """`holdup` is so of the members as they are: enough of their steps was heard."""
    failures: list[Failure] = Field(fail_fast=True, default_factory=list, max_length=MAX_TOLD_FAILURES)
    """The last 20 of this term."""
    incompatible: list[Incompatible] = Field(fail_fast=True, default_factory=list, max_length=MAX_PODS)
    state_lost: int = Field(default=0, ge=0, le=1_000_000)
    """How often all holders of the training state were lost and training started over."""
    recoveries: Recoveries = 0
    """Of this term."""
    recoveries_before: Recoveries = 0
    """Of earlier terms, as their forms say that launchers handed over."""
    last_recovery_seconds: Duration = None
    """From the first sign of a loss to the first step that every member of the new epoch finished. None if that loss
    was there before this coordinator, which cannot know for how long."""

    last_recovery: Recovered | None = None
    """The same in phases; None where `last_recovery_seconds` is, and from older coordinators."""
    spent: SpentByJob | None = None
    """Seconds of this term by category, as far as it is known what they were: they only grow, so that a lost report
    loses nothing. Empty from one that does not know yet what it came to, None from older ones."""
    untold_seconds: Seconds = 0.0
    """The last ones, that are not in `spent` because it is not known yet what they were."""
    energy: EnergyByCoordinator = None
    """Of this term, as numbers that only grow."""
    went_on: bool = False
    """When this coordinator came, its job trained in the membership of an earlier term, and so had all the time."""

    @field_validator("failures")
    @classmethod
    def _remedies_belong_to_no_incident(cls, told: list[Failure]) -> list[Failure]:
        """Their numbers are negative, whatever was said."""
        return [f.model_copy(update={"incident": -abs(f.incident)}) if f.remedy else f for f in told]


class RosterPod(Message):
    """A worker pod as Kubernetes knows it."""

    uid: Uid
    name: Name
    index: Small
    draining: bool = False
    """Deleted or on its way out by the operator's wish: do not seat it in new epochs."""


class Roster(Message):
    """The operator's answer to a report: Kubernetes' word on which pods exist and what the user wants."""

    protocol: Small = PROTOCOL_MAX
    revision: Number
    """Grows with every change of content, for one operator process; a new leader starts anew at a higher number."""
    term: Term
    """Highest term of the job: a coordinator that sees a higher one than its own stops for good."""
    target: Small
    """Workers wanted."""
    minimum: Small
    """Workers below which training waits."""
    pods: list[RosterPod] = Field(fail_fast=True, max_length=2 * MAX_PODS)
    proven_dead: list[Uid] = Field(fail_fast=True, default_factory=list, max_length=MAX_TOLD)
    """Pod uids whose containers terminated, or that are gone from Kubernetes and cannot run any more."""
    no_progress_seconds: Duration = None
    """`recovery.noProgressSeconds`; None leaves it to the coordinator, which knows how long steps take."""
    trained: Count = 0
    """Most steps that were ever made before training went back: up to there they are made again."""
    energy: EnergyCounted | None = None
    """Up to where electricity is counted, as long as that is in earlier terms. None from older operators, too."""
    stop: Sentence | None = None


class LostCoordinator(Message):
    """The coordinator that had welcomed this launcher cannot be reached any more. POSTed to `<reports>/v1/lost` by the
    launcher, about once a second, while it is true."""

    protocol: Small = PROTOCOL_MAX
    job_uid: Uid
    pod_uid: Uid
    term: Term
    """Of the last coordinator that had welcomed it; 0 if none ever did."""
