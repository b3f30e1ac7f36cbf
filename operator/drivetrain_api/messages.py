"""Everything that goes over the wire between coordinator and launcher. See docs/protocol.md for the story; `report.py`
has what coordinators and launchers tell the operator.

Messages carry full state, not changes: losing, repeating or reordering one is harmless, because each sender numbers
its messages (`seq`) and the receiver keeps the highest. JSON, snake_case, a `type` field on every launcher message.
Unknown fields are ignored, so that version N can talk to N-1. Every field has a bound, as `bounds.py` says.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from drivetrain_api.bounds import (
    MAX_MEMBERS,
    MAX_TOLD,
    Count,
    Measured,
    Metrics,
    Name,
    Number,
    ProcessId,
    Seconds,
    Sentence,
    Signed32,
    Small,
    Tail,
    Term,
    Uid,
    Word,
)
from drivetrain_api.counters import Counters
from drivetrain_api.energy import EnergyAsked, MeteredByLauncher
from drivetrain_api.goodput import Spent
from drivetrain_api.holdup import StageTimes
from drivetrain_api.older_python import StrEnum
from drivetrain_api.places import Place, Seen

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1

MAX_PROCESS_STATES: Final = 4096
"""Of one launcher: 64 that live, and those that died within a minute."""
MAX_FORMS: Final = 256
MAX_VALUE: Final = 2 << 20
"""Characters of one rank's addresses, in base64."""
MAX_ENTRIES: Final = 256 * MAX_MEMBERS
Key = Annotated[str, Field(max_length=512)]
Value = Annotated[str, Field(max_length=MAX_VALUE)]


class EpochId(NamedTuple):
    """Number of a membership epoch: ordered, never reused. `term` is the coordinator's, `n` counts within it."""

    term: Term
    n: Count

    def __str__(self) -> str:
        return f"{self.term}.{self.n}"


class Message(BaseModel):
    """Immutable; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- membership, told by the coordinator and handed back to its successor ----------------------------------------


class Member(Message):
    """One seat of an epoch. The position in `Form.members` is the rank."""

    process: ProcessId
    pod_uid: Uid
    new: bool
    """Brings no state that counts (a stale one neither): `has_state` is false from entering until `formed`."""


class Boundary(StrEnum):
    """When members move to the new epoch."""

    NOW = "now"
    """A member is gone: abandon what is in flight."""
    STEP = "step"
    """A join or a leave: finish the current step first; the flag travels on the step's own collective."""


class Form(Message):
    """Move to this epoch. Obeyed only if `epoch` is higher than any that the process entered."""

    type: Literal["form"] = "form"
    epoch: EpochId
    members: list[Member] = Field(fail_fast=True, max_length=MAX_MEMBERS)
    boundary: Boundary
    fresh: bool = False
    """Permission: if, on comparing, no member holds state, start from `resume` or step 0. Without it such an epoch is a
    fault, because somebody outside may hold state. Given when nobody outside can (first epoch, holders proven dead)."""
    deadline_seconds: Seconds = 10.0
    reason: Sentence = ""
    recoveries: int = Field(default=0, ge=0, le=2**31 - 1)
    """After how many losses the job's members had gone on, or were about to, when this was ordered. A coordinator of a
    later term learns from it of those that its predecessor could tell nobody. 0 from older coordinators."""


# --- launcher -> coordinator ------------------------------------------------------------------------------------


class Hello(Message):
    """First message of a launcher on a new connection. The bearer token travels in the HTTP header."""

    type: Literal["hello"] = "hello"
    protocol_min: Small = PROTOCOL_MIN
    protocol_max: Small = PROTOCOL_MAX
    job_uid: Uid
    pod_uid: Uid
    pod_name: Name
    index: Small
    boot: Uid
    """Random id of this launcher's life: a restarted launcher in the same pod is another one."""
    highest_term: Term = 0
    """Highest coordinator term that this launcher ever saw; a coordinator of a lower term must go away."""
    version: Word = ""


class ProcessPhase(StrEnum):
    """Life of one rank process."""

    STARTING = "starting"
    """Spawned; the user's script has not asked for its first batch."""
    READY = "ready"
    """Waits for a membership epoch: a candidate or a spare."""
    MEMBER = "member"
    """Belongs to `epoch`: forming it, or training in it."""
    DONE = "done"
    """Finished its steps and keeps its state for the others until all have finished."""
    DEAD = "dead"
    """Reaped by waitpid: the only proof of death that a launcher can give."""


OUT_OF_MEMORY: Final = "killed by the kernel: the container used more memory than its limit (resources.limits.memory)"
"""Last line of `ProcessState.log_tail` when that is why."""

STATE_LOST: Final = "StateLost"
"""Begins the line of `ProcessState.log_tail` that says which part of a shared-out state is gone, and with whom."""

DEVIATION: Final = "Deviation"
"""Begins the line of `ProcessState.log_tail` that says at which operations the ranks' scripts are, if they differ."""

NO_PROGRESS: Final = "NoProgress"
"""Begins `Kill.reason` where a rank dies for holding the job up (`recovery.noProgressSeconds`). Any other kill is a
remedy."""

LOST: Final = "lost/"
"""Begins a key that the coordinator itself puts where no membership can follow yet: the process after it is lost.
Only members that start scripts anew are told (`STOCK`): a script that fails now fails for that."""

NEVER_STARTED: Final = "NeverStarted: the script ended with exit code 0 and never called drivetrain.start()"
"""Last line of `ProcessState.log_tail` when that is so."""

NOT_COPIED: Final = "not all results are in "
"""Stands in a launcher's last words if what its ranks left did not get to the URL of spec.storage."""

KILLED: Final = "killed by its launcher: "
"""Begins the last line of `ProcessState.log_tail` of a rank that its launcher killed; the reason follows."""


class ProcessState(Message):
    """One rank process as its launcher knows it."""

    id: ProcessId
    """Unique in the job for ever: `<pod uid>/<boot>/<counter>`."""
    pid: Small
    start_ticks: Count
    """Field 22 of /proc/PID/stat: together with pid it proves that a process is still the same one."""
    phase: ProcessPhase
    epoch: EpochId | None = None
    """Highest epoch that this process entered (its acknowledgement); it takes part in no lower one ever again."""
    formed: bool = False
    """The process group of `epoch` stands and members have compared their steps."""
    has_state: bool = False
    """Holds the job's training state (took part in a formed epoch); False for newcomers."""
    step: Number = -1
    """Last step that this process committed; -1 before the first."""
    fault: Sentence | None = None
    """Why communication in `epoch` failed, as this process saw it (a peer's connection closed, a time-out)."""
    waiting: bool = False
    """Blocked in a collective. One that is not, while all others are, is the one that holds them up."""
    place: Place | None = None
    """None from images that do not tell it."""
    silent_seconds: float = Field(default=0.0, ge=0, le=MAX_TOLD, allow_inf_nan=False)
    """Since its launcher heard of it last, which is usually every 0.25 s: place and `waiting` are as old as that."""
    spent: Spent = Field(default_factory=dict)
    """How its script's thread has spent its time; empty from images that do not tell it."""
    stages: StageTimes | None = None
    """The same by stage of its steps, to find out who holds the others up. None from images that do not tell it, and
    of stock scripts, of whose steps nobody hears."""
    seen: Seen | None = None
    """The answer to `Inspect`, for as long as it stays where it was."""
    exit_code: Signed32 | None = None
    signal: Signed32 | None = None
    log_tail: Tail = ""
    """DEAD only: traceback, or the last lines that the process printed."""
    remedy: Sentence = ""
    """DEAD only: why Drivetrain itself ended it, where that is no failure of the script; a fresh process follows."""
    dead_seconds: float | None = Field(default=None, ge=0, le=MAX_TOLD, allow_inf_nan=False)
    """DEAD only: for how long, by its launcher's clock. None from images that do not tell it."""


class Communication(Message):
    """How the ranks of the current membership exchange gradients."""

    method: Word
    """As in `spec.training.compression`, or none."""
    reason: Sentence = ""
    """Why, where it was chosen by measurement."""
    bytes_per_step: int | None = None
    """Payload that a step brings to a rank."""


class Snapshotted(Message):
    """What is in storage, as the rank sees it that writes for all."""

    durable: Count | None = None
    """Steps that can be gone back to from there; None if that is not known, or none."""
    age_seconds: Measured = None
    """Since as many as that were seen to be durable."""
    restored: Count | None = None
    """Steps of the snapshot that this process began with; None: with none."""
    restored_seconds: Measured = None
    """How long that took."""
    bytes_written: Count = 0
    """By this rank, of steps and bases."""
    backlog_bytes: Count = 0
    """That wait in this rank to be written."""
    dropped_steps: Count = 0
    """For which there was no room."""
    failure: Sentence | None = None
    """What the storage says, if it fails."""
    differs: Sentence | None = None
    """Why steps are written as the state that they made, not as what they applied."""


MAX_CORRUPTIONS: Final = 8
"""Ranks tell the last ones, again and again."""


class Corruption(Message):
    """A rank held other bits than its peers, and all hold the same again."""

    step: Count
    """Before which it was found."""
    rank: Small
    process: ProcessId = ""
    peer: Small
    """Rank whose state it has now."""
    ranks: Small
    """So many were compared."""
    known: bool
    """Most ranks had the same, so this one was wrong. Else it is one of those of which nobody knows which was right."""
    what: Name = ""
    """A tensor that differed: `parameter`, `buffer` or `optimizer`, and its name."""
    tensors: Small = 1
    """How many differed."""
    only_buffers: bool = False
    """Those a script may have changed on one rank."""


class Progress(Message):
    """How far the job is, as the member with rank 0 sees it. Only steps that every member holds are told."""

    step: int
    steps: int | None = None
    loss: Measured = None
    samples_per_second: Measured = None
    step_seconds: Measured = None
    communication: Communication | None = None
    snapshots: Snapshotted | None = None
    corruptions: list[Corruption] = Field(fail_fast=True, default_factory=list, max_length=MAX_CORRUPTIONS)
    """The last ones, oldest first, as the rank knows them that tells this."""
    metrics: Metrics = Field(default_factory=dict)
    goes_back: bool = False
    """Told by a script that begins again from a checkpoint of its own: a lower step than before is no loss of state.
    Coordinators and operators that do not know this keep the highest step that they heard."""


def _possible(told: Progress | None) -> Progress | None:
    """Ranks say it. None if that cannot be; without a pace, if no remaining time follows from it."""
    if told is None or not -1 <= told.step <= MAX_TOLD or not 0 <= (told.steps or 0) <= MAX_TOLD:
        return None
    if told.communication is not None and not 0 <= (told.communication.bytes_per_step or 0) <= MAX_TOLD:
        return None
    pace = told.step_seconds
    if pace is None or 0 <= pace * max(told.steps or 0, 10**6) <= MAX_TOLD:
        return told
    return told.model_copy(update={"step_seconds": None})


PossibleProgress = Annotated[Progress | None, AfterValidator(_possible)]


def _most_telling(forms: list[Form]) -> list[Form]:
    return forms if len(forms) <= MAX_FORMS else [forms[0], *forms[1 - MAX_FORMS :]]


Forms = Annotated[list[Form], Field(fail_fast=True), AfterValidator(_most_telling)]
"""Cut, not refused, where there are more than `MAX_FORMS`: the lowest, which was tabled, and the newest."""


class LauncherState(Message):
    """All that a launcher knows; sent on every change and as heartbeat.

    Dead processes stay listed for 60 s from when they were told first.
    """

    type: Literal["state"] = "state"
    seq: Count
    processes: list[ProcessState] = Field(fail_fast=True, max_length=MAX_PROCESS_STATES)
    leaving: bool = False
    """The pod was told to go (SIGTERM): take its processes out at the next step boundary, then say `released`."""
    tabled: EpochId | None = None
    """Highest epoch whose `table` this launcher received."""
    forms: Forms | None = None
    """In the first state of every connection (None later: unchanged): all forms received, whether they name this pod or
    not, from that of `tabled` on, lowest first. A coordinator of a new term learns from them whom it may not drop."""
    progress: PossibleProgress = None
    counters: Counters = Field(default_factory=dict)
    """Monotonic counts for /metrics: those of `counters.py`, whatever else is told."""
    energy: MeteredByLauncher = None
    """What this launcher has measured, whenever it has read more; None to who has not asked (`Welcome.energy`)."""


class Put(Message):
    """One key that a rank set in the rendezvous store of `epoch`. Value is base64."""

    type: Literal["put"] = "put"
    epoch: EpochId
    process: ProcessId
    key: Key
    value: Value


# --- coordinator -> launcher ------------------------------------------------------------------------------------


class Welcome(Message):
    """The launcher may stay. `protocol` is the version that both will speak."""

    type: Literal["welcome"] = "welcome"
    protocol: Small
    term: Term
    heartbeat_seconds: float = Field(default=0.5, ge=0.01, le=60, allow_inf_nan=False)
    energy: EnergyAsked | None = None
    """None as long as the operator has not said what is counted, and from older coordinators: tell nothing of it."""


class RejectReason(StrEnum):
    """Why a launcher is turned away."""

    TOKEN = "token"
    PROTOCOL = "protocol"
    JOB = "job"
    ROSTER = "roster"
    """Not (yet) on the operator's list: try again with back-off."""
    SLOT = "slot"
    """Another pod holds this index."""
    TERM = "term"
    """This coordinator's term is lower than one that the launcher saw: look for the new coordinator."""


class Reject(Message):
    """The connection ends after this message."""

    type: Literal["reject"] = "reject"
    reason: RejectReason
    message: Sentence
    protocol_min: Small = PROTOCOL_MIN
    protocol_max: Small = PROTOCOL_MAX


class Table(Message):
    """All keys that members of `epoch` put so far. The first one means: every member acknowledged the epoch."""

    type: Literal["table"] = "table"
    epoch: EpochId
    entries: dict[Key, Value] = Field(max_length=MAX_ENTRIES)


class Kill(Message):
    """Kill this rank process with SIGKILL and report it DEAD: it was silent while a group formed, or stands still."""

    type: Literal["kill"] = "kill"
    process: ProcessId
    reason: Sentence
    stacks: bool = False
    """First ask it for the stacks of its threads, which become part of its `log_tail`. Older launchers do not ask."""


class Inspect(Message):
    """Others wait for this rank process: see where its threads are, and tell it in `ProcessState.seen`. Launchers that
    do not know this say so in their log and go on."""

    type: Literal["inspect"] = "inspect"
    process: ProcessId
    number: Count
    """`Place.number`: not if it has moved since."""


class Released(Message):
    """The epoch without this leaving launcher is formed: exit now with `ExitCode.LEFT`."""

    type: Literal["released"] = "released"


class Complete(Message):
    """All members are done and every state was kept until now: end the ranks, exit 0."""

    type: Literal["complete"] = "complete"


class Stop(Message):
    """The operator ends the job: end the ranks, exit `ExitCode.STOPPED`."""

    type: Literal["stop"] = "stop"
    reason: Sentence


FromLauncher = Annotated[Hello | LauncherState | Put, Field(discriminator="type")]
AnyOrder = Welcome | Reject | Form | Table | Kill | Inspect | Released | Complete | Stop
ToLauncher = Annotated[AnyOrder, Field(discriminator="type")]
from_launcher: Final[TypeAdapter[Hello | LauncherState | Put]] = TypeAdapter(FromLauncher)
to_launcher: Final[TypeAdapter[AnyOrder]] = TypeAdapter(ToLauncher)
