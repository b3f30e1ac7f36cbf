"""TrainingJob.status: what the operator says, and all that it must remember across its own death.

Written by the operator only, at most once a pass, with the resourceVersion as precondition. What is used up (a worker's
incarnation, a coordinator's term, the restart budget, the attempt) stands here *before* anything is done with it.

Every field has a bound, because others may write here, too: the API server refuses what is out of bounds, and
`drivetrain_operator.plan.stored` says what becomes of such a field that is read all the same.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.goodput_status import GoodputStatus
from drivetrain_api.holdup_status import HoldUpStatus
from drivetrain_api.late_status import LateRankStatus
from drivetrain_api.older_python import StrEnum
from drivetrain_api.places import MAX_LOOKS
from drivetrain_api.recovery_status import RecoveryStatus
from drivetrain_api.spec import MAX_PROCESSES, MAX_WORKERS
from drivetrain_api.status_model import Count, Named, Reason, Signed32, StatusModel, Text, Time

MAX_FAILURES: Final = 10
MAX_LOG_TAIL: Final = 2048
MAX_DEPARTURES: Final = 10
MAX_DEPARTED: Final = 5
"""Pods that a departure names; the others are counted."""
MAX_CHARGES: Final = 24
MAX_CORRUPTIONS_KEPT: Final = 12
"""More than ranks tell at a time."""
MAX_EXCLUDED: Final = 4
"""Nodes: not the whole of a cluster."""

MAX_METRICS_SHOWN: Final = 16
MAX_METRIC_NAME: Final = 128
MAX_SHARDS: Final = 2 * MAX_WORKERS * MAX_PROCESSES
INDICES: Final = r"^([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$"


MetricName = Annotated[str, Field(max_length=MAX_METRIC_NAME)]
Slot = Annotated[int, Field(ge=0, lt=MAX_WORKERS)]
RuntimeFound = Literal["", "drivetrain", "torchrun"]
"""As spec.runtime says, or was found out; empty as long as nobody knows."""


class Phase(StrEnum):
    """One word for `kubectl get`; conditions say more."""

    PENDING = "Pending"
    """No step was trained yet in this attempt: pods start, or cannot."""
    RUNNING = "Running"
    WAITING = "Waiting"
    """Training has begun and stands still: for replacements, or while the membership forms."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Condition types, in the order in which they are listed."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    """True while the membership trains."""
    READY = "Ready"
    """True while every wanted worker takes part; else its reason names what is missing, the most useful cause first."""
    STATE_LOST = "StateLost"
    """True once training had to start over, because no process that held its state was left."""
    KEPT_ELSEWHERE = "KeptElsewhere"
    """True once a second operator has seen the job, and stood back; the message says which keeps it."""
    CREDENTIALS_LOST = "CredentialsLost"
    """True while the root of trust that the job was started with does not hold: it trains on, unheard."""
    STANDING_STILL = "StandingStill"
    """True while the membership trains and nothing in it moves; the message says who waits for whom."""
    SNAPSHOTS_FAILING = "SnapshotsFailing"
    """True while the storage of spec.snapshots refuses what is written: training goes on, and its steps cannot be gone
    back to."""
    STEPS_NOT_REPLAYED = "StepsNotReplayed"
    """True where the optimizer was tried at the start and did not make the same bits again: each step writes the state
    that it made, which takes more bytes; the message has the numbers."""
    NODE_EXCLUDED = "NodeExcluded"
    """True once a node gets no more workers of the job, because those there held other bits than their peers three
    times in a row."""
    RESULTS_LOST = "ResultsLost"
    """True once a worker ended before all that it had left was at the URL of spec.storage; the message has which, and
    what the storage said."""
    NODE_TOO_HOT = "NodeTooHot"
    """True while a node of its workers is hotter than its power domain allows; its cards are capped, and the message
    says whether workers leave."""
    ENERGY_PLANNED = "EnergyPlanned"
    """True while the job runs by a plan of its energy; else its reason says why it runs at once."""
    REPORT_UNUSABLE = "ReportUnusable"
    """True while nothing can be decided with what the coordinator says: the job is looked after as if it was silent."""


class Condition(StatusModel):
    """metav1.Condition."""

    type: str = Field(max_length=64, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: Count = Field(default=0, description="metadata.generation that this was decided for.")
    last_transition_time: Time = Field(description="When status changed last.")
    reason: Reason = Field(description="Why, in one CamelCase word.")
    message: Text = Field(default="", description="Why, for a person.")


class Keeper(StatusModel):
    """Who looks after the job, for as long as its pods live."""

    operator: str = Field(
        default="", max_length=320, description="NAMESPACE/LEASE of the operator; another one stands back."
    )
    root: str = Field(
        default="", max_length=64, description="Fingerprint of the root of trust that the job's credentials come from."
    )


class ReplacedFor(StrEnum):
    """Why a coordinator has a successor."""

    FIRST = ""
    """It has no predecessor."""
    ENDED = "Ended"
    DELETED = "Deleted"
    GONE = "Gone"
    NOT_READY = "NotReady"
    UNREACHABLE = "Unreachable"
    NO_NODE = "NoNode"


class Membership(StatusModel):
    """Who leads the job's membership, and how often that changed."""

    term: Named = Field(default=0, description="Raised before each coordinator pod is created; the highest one rules.")
    epoch: Count = Field(default=0, description="Number of the membership within the term, as last reported.")
    since: Time | None = Field(default=None, description="When the term was raised.")
    replaced: Named = Field(
        default=0, description="Coordinators replaced in a row without a healthy minute between; sets the back-off."
    )
    replaced_for: ReplacedFor = Field(
        default=ReplacedFor.FIRST,
        description="Why the coordinator before was replaced: its container Ended, its pod was Deleted or is Gone, it "
        "was silent and its kubelet calls it NotReady, it was silent and launchers say that it is Unreachable, or "
        "NoNode was left for it but the avoided one.",
    )
    replaced_message: str = Field(
        default="", max_length=512, description="How the coordinator before ended, and on which node, for a person."
    )
    avoid_node: str | None = Field(
        default=None, max_length=253, description="Node of the coordinator before, where the next one does not go."
    )


class Workers(StatusModel):
    """Worker pods, counted."""

    target: int = Field(
        default=0, ge=0, le=MAX_WORKERS, description="Workers wanted: spec.workers, clamped by elastic's bounds."
    )
    current: int = Field(
        default=0, ge=0, le=MAX_WORKERS, description="Live worker pods; the scale subresource's replicas."
    )
    ready: int = Field(
        default=0, ge=0, le=MAX_WORKERS, description="Workers whose processes are all ready or training."
    )
    world: int = Field(
        default=0, ge=0, le=MAX_WORKERS * MAX_PROCESSES, description="Rank processes in the current membership."
    )
    indices: str = Field(
        default="",
        max_length=16384,
        pattern=INDICES,
        description="Slots in use, e.g. 0-2,5. Indices may have holes; rank is not index.",
    )
    seen: str = Field(
        default="",
        max_length=16384,
        pattern=INDICES,
        description="Slots whose current pod was there. Should it be missing, it is gone: an operator that leads later "
        "could not tell it from one that nobody has created yet.",
    )
    summary: str = Field(default="", max_length=16, description="ready/target, for kubectl get.")


class CommunicationStatus(StatusModel):
    """How the ranks of the current membership exchange gradients."""

    method: str = Field(max_length=16, description="As in spec.training.compression, or none.")
    reason: str = Field(default="", max_length=512, description="What was measured, where it was chosen by that.")
    bytes_per_step: Count | None = Field(default=None, description="Payload that a step brings to a rank, counted.")


class SnapshotsStatus(StatusModel):
    """What is in storage, with spec.snapshots. Of bytes: those of the worker with rank 0, which has a share of all."""

    durable_age_seconds: Count | None = Field(
        default=None, description="Since so many steps as durableStep says were seen to be in storage."
    )
    bytes_written: Count = Field(default=0, description="Since its process began.")
    backlog_bytes: Count = Field(default=0, description="That wait to be written.")
    dropped_steps: Count = Field(
        default=0, description="For which there was no room, because storage is slower than training."
    )
    restored_step: Count | None = Field(
        default=None, description="Step of the snapshot that training went on from when nobody had its state."
    )
    restored_seconds: Count | None = Field(default=None, description="How long that took.")


class ProgressStatus(StatusModel):
    """How far training is. Written when a percent passes, at least every 60 s and at most every 10 s."""

    step: Count = Field(default=0, description="Steps that every member has committed.")
    steps: Count | None = Field(default=None, description="Steps in all, where known.")
    percent: int | None = Field(default=None, ge=0, le=100, description="step in percent of steps.")
    summary: str = Field(default="", max_length=16, description="percent with its sign, for kubectl get.")
    eta_seconds: Count | None = Field(default=None, description="Seconds that the rest will take at this pace.")
    eta: str = Field(default="", max_length=16, description="etaSeconds as a person writes it, for kubectl get.")
    loss: float | None = Field(default=None, description="Loss of the last step told.")
    samples_per_second: float | None = Field(default=None, description="Samples a second over all ranks.")
    metrics: dict[MetricName, float] | None = Field(
        default=None,
        max_length=MAX_METRICS_SHOWN,
        description="What else the script tells with its steps, such as learning_rate: the first 16 by name.",
    )
    communication: CommunicationStatus | None = Field(
        default=None, description="How gradients are exchanged, with training.compression."
    )
    durable_step: Count | None = Field(
        default=None,
        description="Steps that the job can go back to from storage, with spec.snapshots: about as many as step says, "
        "less those of the last commitSeconds.",
    )
    snapshots: SnapshotsStatus | None = Field(default=None, description="More of storage, with spec.snapshots.")
    last_update_time: Time | None = Field(default=None, description="When this was written.")


class FailureStatus(StatusModel):
    """One failure, kept after its pod is gone."""

    time: Time = Field(description="When the operator saw it.")
    reason: Reason = Field(description="What kind of failure, in one CamelCase word.")
    pod: str = Field(default="", max_length=253, description="Pod in which it happened.")
    node: str = Field(default="", max_length=253, description="Node on which it happened.")
    process: str = Field(
        default="", max_length=128, description="Id of the rank process; empty if the whole worker failed."
    )
    rank: Count | None = Field(default=None, description="Rank of the process, where it had one.")
    exit_code: Signed32 | None = Field(default=None, description="Exit code of the process or container.")
    signal: int | None = Field(default=None, ge=0, le=255, description="Signal that ended the process.")
    counted: bool = Field(default=True, description="Whether it cost one restart of the budget.")
    step: int | None = Field(
        default=None,
        ge=-1,
        le=MAX_EXACT,
        description="Last step that all had finished; -1 before the first. Not known of pods.",
    )
    log_tail: str = Field(
        default="", max_length=MAX_LOG_TAIL, description="Traceback, or the last lines that the process printed."
    )


class DepartedPod(StatusModel):
    """A worker pod that was taken."""

    name: str = Field(max_length=253, description="Its name.")
    node: str = Field(default="", max_length=253, description="Where it was; empty if it had no node, or nobody saw.")


class DepartureStatus(StatusModel):
    """Workers that were taken for one cause at one time: by the platform, or by somebody who deleted them."""

    time: Time = Field(description="When the operator saw it.")
    reason: Reason = Field(
        description="Why, in one CamelCase word: Kubernetes' own where it gives one, such as EvictionByEvictionAPI; "
        "Deleted if nobody said why, Gone if the pod vanished without a word."
    )
    message: str = Field(default="", max_length=512, description="Why, for a person.")
    count: int = Field(ge=1, description="How many pods.")
    pods: list[DepartedPod] = Field(
        default_factory=list, max_length=MAX_DEPARTED, description="The first of them, by index."
    )


class CorruptionStatus(StatusModel):
    """A rank that held other bits than its peers, and has taken the state of one."""

    time: Time = Field(description="When the operator heard of it.")
    step: Count = Field(description="Step before which ranks found it.")
    rank: Count = Field(description="Its rank.")
    process: str = Field(default="", max_length=128, description="Id of the rank process.")
    pod: str = Field(default="", max_length=253, description="Pod in which it ran.")
    node: str = Field(default="", max_length=253, description="Node on which it ran.")
    peer: Count = Field(default=0, description="Rank whose state it has taken.")
    what: str = Field(default="", max_length=253, description="The first tensor that differed.")
    known: bool = Field(
        default=True, description="Whether most ranks agreed, so that this one was wrong; of two, nobody knows."
    )
    counted: bool = Field(
        default=True, description="Whether it says something about the node: known, and not of buffers alone."
    )


class Charge(StatusModel):
    """Incidents that were charged at about one time."""

    time: Time = Field(description="When the last of them was charged.")
    step: Count = Field(description="Most steps that all members had ever finished by then.")
    incidents: int = Field(default=1, ge=1, le=MAX_EXACT, description="How many they are.")


class Budget(StatusModel):
    """How much of recovery.maxRestarts is used."""

    used: Count = Field(default=0, description="Incidents that count now.")
    summary: str = Field(default="", max_length=40, description="used of recovery.maxRestarts, as a person reads it.")
    charges: list[Charge] = Field(
        default_factory=list,
        max_length=MAX_CHARGES,
        description="Incidents that count now, oldest first; many at about one time are one entry. A job that is "
        "suspended and resumed begins with none.",
    )
    steps: Count = Field(
        default=0,
        description="Most steps that were trained before training had to start over; 0 if it had not. Later incidents "
        "count until it is past that.",
    )


class Counted(StatusModel):
    """How much of the current coordinator's reports is already counted, so that nothing counts twice."""

    failure: int = Field(default=-1, ge=-1, le=MAX_EXACT, description="Highest failure number that was taken over.")
    incident: int = Field(default=-1, ge=-1, le=MAX_EXACT, description="Highest incident number that cost a restart.")
    state_lost: Count = Field(default=0, description="Losses of all state that were taken over.")
    recoveries: Count = Field(default=0, description="Recoveries that were taken over.")
    recoveries_before: Count = Field(default=0, description="Recoveries of earlier terms that were taken over.")
    remedies: Count = Field(
        default=0, description="How often Drivetrain ended processes itself at one step; too often is no remedy."
    )
    remedy_event: int = Field(default=0, ge=-MAX_EXACT, le=0, description="Number of the last such event; negative.")
    remedies_step: int = Field(
        default=-1, ge=-1, le=MAX_EXACT, description="Last step that was finished when the last one ended."
    )


class Resolved(StatusModel):
    """Defaults that follow from other fields, frozen when the job starts."""

    processes_per_worker: int = Field(default=1, ge=1, le=MAX_PROCESSES, description="Rank processes in each worker.")
    virtual_shards: int = Field(
        default=8, ge=1, le=MAX_SHARDS, description="Deterministic mode: parts that every global batch is cut into."
    )
    coordinator_address: str | None = Field(
        default=None, max_length=64, description="Address of the coordinator's Service, which workers were given."
    )
    name_suffix: str = Field(
        default="",
        max_length=8,
        pattern=r"^[0-9a-f]*$",
        description="Piece of the job's uid with which names of its pods end; empty in jobs of older releases.",
    )
    script: str | None = Field(
        default=None, max_length=253, description="The job's own copy of spec.script.configMap, which workers mount."
    )
    runtime_image: str | None = Field(
        default=None, max_length=512, description="Image that an init container brings the workers' runtime from."
    )


class TrainingJobStatus(StatusModel):
    """What the operator observed and decided."""

    phase: Phase | None = Field(default=None, description="One word for kubectl get.")
    reason: Reason = Field(default="", description="Why the job is in this phase, in one CamelCase word.")
    message: Text = Field(default="", description="Why the job is in this phase, for a person.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=32,
        description=", ".join(ConditionType) + ".",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: Count = Field(default=0, description="metadata.generation that this status is about.")
    start_time: Time | None = Field(
        default=None,
        description="When the job became active. Cleared while suspended; most of spec is immutable while set.",
    )
    completion_time: Time | None = Field(default=None, description="When the job succeeded or failed.")
    attempt: Named = Field(
        default=0, description="How often training had to start over because all its state was lost."
    )
    keeper: Keeper = Field(default=Keeper(), description="Who looks after the job.")
    membership: Membership = Field(default=Membership(), description="Who leads the membership.")
    runtime: RuntimeFound = Field(
        default="",
        description="How the workers run the script: drivetrain or torchrun, as spec.runtime says or, with auto, as "
        "they have found out; empty until one of them trains.",
    )
    workers: Workers = Field(default=Workers(), description="Worker pods, counted.")
    progress: ProgressStatus | None = Field(
        default=None, description="How far training is; while suspended, how far it was."
    )
    restarts: Count = Field(
        default=0,
        description="Incidents that were ever charged to recovery.maxRestarts; budget has those that count now.",
    )
    state_losses: Count = Field(default=0, description="How often all training state was lost at once.")
    budget: Budget = Field(default=Budget(), description="How much of recovery.maxRestarts is used.")
    recoveries: Count = Field(
        default=0,
        description="How often training went on after the loss of a member: survivors did without it or, with runtime "
        "torchrun, all ranks were started again in their pods.",
    )
    last_recovery_seconds: float | None = Field(
        default=None,
        description="From the last loss to the first step that all members finished. Absent if the coordinator was "
        "lost, too: its successor cannot know.",
    )
    last_recovery: RecoveryStatus | None = Field(
        default=None, description="The same in phases, and what was lost. Absent where lastRecoverySeconds is."
    )
    goodput: GoodputStatus | None = Field(
        default=None, description="Into what the job's time since its creation was split, up to the last write."
    )
    energy: EnergyStatus | None = Field(default=None, description="Electricity, and what it emitted and cost.")
    hold_up: HoldUpStatus | None = Field(
        default=None,
        description="The rank for which the others wait in every step. Absent if there is none, or ranks do not tell.",
    )
    failures: list[FailureStatus] = Field(
        default_factory=list, max_length=MAX_FAILURES, description="The last failures, oldest first."
    )
    departures: list[DepartureStatus] = Field(
        default_factory=list,
        max_length=MAX_DEPARTURES,
        description="Workers that were taken and cost no restart (drains, preemption, lost nodes, deletes), oldest "
        "first; each had a successor.",
    )
    counted: Counted = Field(default=Counted(), description="How much of the coordinator's reports is already counted.")
    incarnations: dict[Slot, Named] = Field(
        default_factory=dict,
        max_length=MAX_WORKERS,
        description="Pods that each slot has used up, where not 0. The pod of slot i is named JOB-i-INCARNATION.",
    )
    taken_away: dict[Slot, Named] = Field(
        default_factory=dict,
        max_length=MAX_WORKERS,
        description="Pods that the platform, or a person, took from each slot in a row, none of which ran for a "
        "minute; where not 0. They cost no restart; from the second on the next pod waits, up to five minutes.",
    )
    corruptions: list[CorruptionStatus] = Field(
        default_factory=list,
        max_length=MAX_CORRUPTIONS_KEPT,
        description="Ranks that held other bits than their peers, oldest first; each has a peer's state since.",
    )
    excluded_nodes: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list,
        max_length=MAX_EXCLUDED,
        description="Nodes that get no more workers of this job: three of corruptions in a row were there.",
    )
    late_ranks: list[LateRankStatus] = Field(
        default_factory=list,
        max_length=MAX_LOOKS,
        description="While the job stands still (condition StandingStill): ranks that hold the others up, and where.",
    )
    selector: str = Field(default="", max_length=512, description="Label selector of worker pods, for scaling.")
    resolved: Resolved | None = Field(
        default=None,
        description="Computed defaults, frozen when the job starts; of a suspended job, those that it ran with.",
    )

    def condition(self, type_: ConditionType) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((c for c in self.conditions if c.type == type_), None)

    def is_true(self, type_: ConditionType) -> bool:
        """Whether the condition of this type holds."""
        found = self.condition(type_)
        return found is not None and found.status == "True"

    @property
    def finished(self) -> bool:
        """Succeeded or failed: nothing is created any more, ever."""
        return self.is_true(ConditionType.COMPLETE) or self.is_true(ConditionType.FAILED)
