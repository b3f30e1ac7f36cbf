"""All that a coordinator knows about its job: plain records, changed only by the machine, never doing anything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from drivetrain_api.holdup import HoldUp
from drivetrain_api.messages import (
    Boundary,
    EpochId,
    Form,
    LauncherState,
    Member,
    ProcessState,
    Progress,
)
from drivetrain_api.recovery import Recovered, RecoveryCause
from drivetrain_api.report import Failure, Incompatible, Roster
from drivetrain_coordinator.membership.energy import Drawn
from drivetrain_coordinator.membership.moves import Pace, Still, Told, Track
from drivetrain_coordinator.membership.timings import Timings
from drivetrain_coordinator.store import Rendezvous


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose coordinator this is."""

    job_uid: str
    namespace: str
    job: str
    term: int
    processes_per_worker: int = 1


@dataclass(slots=True)
class Resend:
    """When an order was last given, and how long to wait before it is given again."""

    epoch: EpochId
    at: float
    wait: float


@dataclass(slots=True)
class Launcher:
    """One launcher of one pod, connected or not."""

    pod_uid: str
    pod_name: str
    index: int
    boot: str
    connected: bool
    heard_at: float
    closed_at: float | None = None
    heard_from: float = 0.0
    """Since then it was never silent for long."""
    seq: int = -1
    state: LauncherState | None = None
    processes: dict[str, ProcessState] = field(default_factory=dict)
    moved: dict[str, Track] = field(default_factory=dict)
    """Of each process: when it moved last."""
    spoke: bool = False
    """On its present connection: what it said before may be long out of date."""
    handed_over: bool = False
    """It told which forms it had received: without that, nothing is known of earlier terms."""
    form_sent: Resend | None = None
    table_sent: Resend | None = None
    final_sent_at: float | None = None

    @property
    def leaving(self) -> bool:
        """The pod was told to go."""
        return self.state is not None and self.state.leaving


@dataclass(slots=True)
class Epoch:
    """One membership epoch, from its form on."""

    id: EpochId
    members: tuple[Member, ...]
    boundary: Boundary
    fresh: bool
    reason: str
    sent_at: float
    deadline: float
    store: Rendezvous
    first: bool = False
    """No epoch was ever tabled before this one."""
    certain: bool = True
    """Its table is known to have been sent. False only for a predecessor's epoch of which nobody showed a table."""
    loses_state: bool = False
    """All holders of newer state are proven dead: when this forms, training has gone back."""
    recoveries: int = 0
    """As in `Form`."""
    acknowledged: set[str] = field(default_factory=set)
    formed: set[str] = field(default_factory=set)
    first_ack_at: float | None = None
    tabled_at: float | None = None
    formed_at: float | None = None
    ranks: dict[str, int] = field(init=False)
    _form: Form | None = field(init=False, repr=False)
    seats: dict[str, Member] = field(init=False)
    """Its members by process, in rank order: thousands are asked for one by one."""

    def __post_init__(self) -> None:
        self.seats = {member.process: member for member in self.members}
        self.ranks = {process: rank for rank, process in enumerate(self.seats)}
        self._form = None

    @property
    def processes(self) -> tuple[str, ...]:
        """Process ids in rank order."""
        return tuple(self.seats)

    def form(self) -> Form:
        """The order that opens it: one object, however often it is said."""
        if self._form is None:
            self._form = Form(
                epoch=self.id,
                members=list(self.members),
                boundary=self.boundary,
                fresh=self.fresh,
                deadline_seconds=self.deadline,
                reason=self.reason,
                recoveries=self.recoveries,
            )
        return self._form


class End(StrEnum):
    """Why a coordinator orders nothing more."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"


@dataclass(slots=True)
class Incident:
    """Failures with one cause: the one that is open, and what closes it."""

    number: int = 0
    opened_at: float = 0.0
    step: int = -1
    open: bool = False
    members: frozenset[str] = frozenset()
    """Processes that had a seat when it opened."""
    inherited: list[tuple[float | None, int]] = field(default_factory=list)
    """Incidents from before this term: when the first death of each was, and its number. None: nobody tells when."""
    remedies: int = 0
    """How often Drivetrain ended processes itself."""
    remedied_at: float = float("-inf")


@dataclass(slots=True)
class Condemned:
    """A process that is to be killed, and was a member when that was decided."""

    pod_uid: str
    rank: int | None
    reason: str
    ordered_at: float = -math.inf


@dataclass(slots=True)
class Recovery:
    """The loss that is being recovered from, and how long earlier ones took."""

    since: float | None = None
    timed: bool = True
    """`since` is when the loss happened. It is not if this coordinator came after it."""
    floor: int | None = None
    """Step that members held when the new group stood; recovered when all have finished the one after it."""
    count: int = 0
    before: int = 0
    """In earlier terms."""
    cause: RecoveryCause = RecoveryCause.UNKNOWN
    found: float = 0.0
    """When it was decided to go on without what was lost."""
    entered: float | None = None
    """When all members had entered the membership that followed, and ..."""
    stood: float | None = None
    """... when that stood."""
    last: Recovered | None = None
    last_seconds: float | None = None

    @property
    def in_all(self) -> int:
        """Of all terms, with the one that is under way."""
        return self.before + self.count + (self.since is not None)

    def begin(self, since: float, now: float, cause: RecoveryCause, *, timed: bool) -> None:
        """Something is lost. What is lost before all go on again is part of it."""
        if self.since is None:
            self.since, self.timed, self.cause, self.found = since, timed, cause, now
        self.floor = self.entered = self.stood = None

    def succeed(self, now: float) -> None:
        """All members have finished a step without what was lost."""
        assert self.since is not None
        self.last_seconds = now - self.since if self.timed else None
        self.last = self._in_phases(self.since, now) if self.timed else None
        self.count += 1
        self.since = self.floor = None

    def _in_phases(self, since: float, now: float) -> Recovered:
        stood = now if self.stood is None else self.stood
        entered = stood if self.entered is None else self.entered
        return Recovered(
            cause=self.cause,
            detected=max(0.0, self.found - since),
            formed=max(0.0, entered - self.found),
            copied=max(0.0, stood - entered),
            first_step=max(0.0, now - stood),
        )

    def give_up(self) -> None:
        """Nobody was left to go on: training starts over, which is no recovery."""
        self.since = self.floor = None


@dataclass(slots=True)
class Membership:
    """Everything. `active` is the last tabled epoch, `pending` a newer one that not all have acknowledged yet."""

    identity: Identity
    timings: Timings
    roster: Roster | None = None
    roster_at: float = 0.0
    heartbeat: float = 0.0
    """Seconds between two words of a launcher that knows no news, as the largest roster so far asks for."""
    draining: frozenset[str] = frozenset()
    """Pods that the roster wishes away."""
    launchers: dict[str, Launcher] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    proven_pods: set[str] = field(default_factory=set)
    condemned: dict[str, Condemned] = field(default_factory=dict)
    """Processes to be killed."""
    silent: dict[str, int] = field(default_factory=dict)
    """Formations in a row in which a process did not answer."""

    active: Epoch | None = None
    pending: Epoch | None = None
    n: int = 0
    inherited: dict[EpochId, Form] = field(default_factory=dict)
    """Forms of earlier terms that launchers handed over, from the highest that is known as tabled."""
    inherited_seats: dict[EpochId, tuple[Form, dict[str, Member]]] = field(default_factory=dict)
    """Their members by process, made when they are asked for."""
    inherited_tabled: EpochId | None = None
    settled: bool = False
    """What earlier terms left behind was looked at; from now on this coordinator decides."""
    settled_at: float = 0.0
    last_connect: float | None = None
    last_arrival: float | None = None
    """When a launcher connected or a process became ready."""

    fault_at: float | None = None
    join_since: float | None = None
    formation_failures: int = 0
    step: int = -1
    step_at: float = 0.0
    step_interval: float = 0.0
    pace: Pace = field(default_factory=Pace)
    counts_from: float = 0.0
    """Standing still counts from then on: this coordinator did not run just before, or gave the members another try."""
    still: Still | None = None
    told: Told | None = None
    holdup: HoldUp | None = None
    """Who makes the others wait in every step, and ..."""
    holdup_known: bool = False
    """... whether that is known of the members as they are."""
    standstills: int = 0
    """How often people were told of one."""
    asked: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    """Of a rank at a place, which its launcher was asked to look at: when to ask again, and how long to wait then."""
    renewed_at: int | None = None
    """Step at which the members were last brought together anew because all of them waited for one another."""
    done_world: int | None = None
    """World size when the first member was done: it never grows after that."""

    end: End | None = None
    end_reason: str = ""
    message: str = ""
    released: set[str] = field(default_factory=set)
    incompatible: dict[str, Incompatible] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    failure_count: int = 0
    failures_by_kind: dict[str, int] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    incident: Incident = field(default_factory=Incident)
    recovery: Recovery = field(default_factory=Recovery)
    progress: Progress | None = None
    counters: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    energy: Drawn = field(default_factory=Drawn)
    state_lost: int = 0
    epochs_formed: int = 0
    now: float = 0.0
    """Time of the last event."""
    looked_at: float = float("-inf")
    """When the rules were asked last."""
    wake: float = 0.0
    """Next moment at which a rule wants to be asked again."""

    @property
    def silence(self) -> float:
        """A connected launcher that said nothing for so long is as good as disconnected."""
        return max(self.timings.silence, 3 * self.heartbeat)

    def reached(self, at: float) -> bool:
        """Is it `at` yet? If not, the rule that asks will be asked again then."""
        if self.now >= at:
            return True
        self.wake = min(self.wake, at)
        return False
