"""PURE: what is seen of one job, as frozen values. The reconciler builds a `View`; `plan`, `roster` and render read it.

`observe.py` makes `PodView`, `ServiceView` and `JobView` from the API server's dicts. Views may lag behind the server:
whatever is decided from them is safe, because status is written with the job's resourceVersion as precondition, creates
use names that status reserved, and deletes carry the uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from drivetrain_api.energy import EnergySource
from drivetrain_api.energy_plan import EnergyPlan
from drivetrain_api.report import Report
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus
from drivetrain_api.wishes import Wishes, wishes
from drivetrain_energy.accounts.counters import Metered
from drivetrain_energy.signals.signal import Measure, Signal
from drivetrain_operator.render.platform import Neighbours


@dataclass(frozen=True, slots=True)
class JobView:
    """A TrainingJob."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime
    spec: TrainingJobSpec | None
    """None when the stored spec cannot be used; `invalid` says why."""
    status: TrainingJobStatus
    deleting: bool = False
    """metadata.deletionTimestamp is set: the job is being stopped, nothing is created."""
    orphaning: bool = False
    """It is being deleted with `--cascade=orphan`: its pods shall go on."""
    invalid: tuple[str, ...] = ()
    stays_wished: Wishes = field(default_factory=Wishes)
    """What stands in a stored spec that cannot be used, and holds all the same."""
    unreadable: str = ""
    """Why the stored status cannot be believed; then `status` says nothing, and the job is left alone."""
    replaces: Mapping[str, Any] | None = None
    """The stored status, where `status` lacks something that stands there and was not believed."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its own, not those of its pods."""

    @property
    def wishes(self) -> Wishes:
        """What the user wants of a job that runs or has ended, whether its spec can be used or not."""
        return wishes(self.spec) if self.spec is not None else self.stays_wished


class PodPhase(StrEnum):
    """pod.status.phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Terminated:
    """state.terminated of our container."""

    exit_code: int
    signal: int | None = None
    reason: str = ""
    """Such as Error, OOMKilled, StartError, ContainerCannotRun."""
    message: str = ""
    started: datetime | None = None
    finished: datetime | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of the job: worker or coordinator, of any incarnation. Only pods whose controller is the job's uid."""

    name: str
    uid: str
    role: str
    """`constants.ROLE_WORKER` or `ROLE_COORDINATOR`."""
    phase: PodPhase
    created: datetime
    index: int = -1
    """Worker: its slot."""
    incarnation: int = -1
    attempt: int = 0
    term: int = -1
    """Coordinator: the term it was created for."""
    node: str = ""
    """"" until scheduled."""
    ready: bool = False
    deleting: bool = False
    """metadata.deletionTimestamp is set: on its way out, or hanging on a lost node. Replaced without waiting for it."""
    started: datetime | None = None
    """When our container began to run."""
    terminated: Terminated | None = None
    """Our container has ended."""
    init_failed: tuple[str, Terminated] | None = None
    """The init container that ended the pod: its name, and how it ended."""
    waiting_reason: str = ""
    """state.waiting.reason of our container, such as ImagePullBackOff, CreateContainerConfigError."""
    waiting_message: str = ""
    unschedulable: str = ""
    """Message of PodScheduled=False with reason Unschedulable (or SchedulingGated)."""
    disruption: str = ""
    """Reason of DisruptionTarget=True (eviction, preemption, taint, node shutdown)."""
    reason: str = ""
    """pod.status.reason, such as Evicted, NodeLost, Shutdown, UnexpectedAdmissionError."""
    message: str = ""
    asks: tuple[tuple[str, float], ...] = ()
    """What it takes of a node, by resource."""

    @property
    def over(self) -> bool:
        """Its container has ended for good: it runs nothing any more (restartPolicy is Never)."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED) or self.terminated is not None

    @property
    def live(self) -> bool:
        """Runs or will run, and nobody asked it to go."""
        return not self.over and not self.deleting


@dataclass(frozen=True, slots=True)
class ServiceView:
    """The job's coordinator Service. Only one whose controller is the job's uid."""

    name: str
    uid: str
    cluster_ip: str
    """"" until assigned."""
    term: int
    """Term that the selector names; -1 if none."""
    selector: frozenset[tuple[str, str]] = frozenset()
    ports: tuple[tuple[str, int, str, str], ...] = ()
    """Name, port, target port and protocol of each."""
    publishes_unready: bool = True


@dataclass(frozen=True, slots=True)
class BudgetView:
    """The PodDisruptionBudget of the job's workers. Only one whose controller is the job's uid."""

    name: str
    uid: str
    least: int
    """Workers that have to stay; -1 if it does not say so by a number."""
    as_rendered: bool
    """Whether it says what it should beside that."""
    surplus: tuple[str, ...] = ()
    """Keys of its selector that are none of ours."""


@dataclass(frozen=True, slots=True)
class NetworkPolicyView:
    """A NetworkPolicy of the job's pods. Only one whose controller is the job's uid."""

    name: str
    uid: str
    said: str
    """Its spec, spelled in one way: `observe.spelled`."""
    surplus: tuple[str, ...] = ()
    """Keys of its selector that are none of ours."""


@dataclass(frozen=True, slots=True)
class Family:
    """A job's children, as the caches have them."""

    pods: tuple[PodView, ...] = ()
    """Both roles."""
    service: ServiceView | None = None
    budget: BudgetView | None = None
    network_policies: tuple[NetworkPolicyView, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportView:
    """The newest report of any coordinator of this job (highest (term, seq)), whose token was checked."""

    report: Report
    age_seconds: float
    """Since it arrived here, in seconds in which this process listened."""
    heard: frozenset[str] = field(init=False)
    """Uids of pods whose launcher is connected, or was let go."""

    def __post_init__(self) -> None:
        told = self.report
        heard = frozenset((*told.joined, *told.ready, *told.released, *(m.pod_uid for m in told.members)))
        object.__setattr__(self, "heard", heard)


class RefusalKind(StrEnum):
    """Why the API server refused an effect, in the executor's words."""

    INVALID = "InvalidTemplate"
    """422 on a pod: its template cannot work. Not tried again before spec changes."""
    NAME_CONFLICT = "NameConflict"
    """409 and the existing object belongs to somebody else."""
    NO_SCRIPT = "ScriptNotFound"
    """spec.script names a ConfigMap, or a key of it, that is not there."""
    QUOTA = "QuotaExceeded"
    """403 that names a quota."""
    FORBIDDEN = "Forbidden"
    """Any other 403: admission (such as Pod Security), or missing RBAC."""
    OTHER = "CreateFailed"
    """Anything else that is not simply retried by the executor itself (5xx, 429, time-outs are)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last create of this name failed. Kept in memory by the executor until it succeeds or generation changes."""

    name: str
    kind: RefusalKind
    message: str
    """The server's message, for a person."""
    generation: int
    """metadata.generation of the job when it was refused."""
    age_seconds: float
    """Since the last try."""
    count: int = 1
    """Tries refused in a row."""
    certain: bool = True
    """It does not exist. Not so where the answer to another try was lost: that one may still have made it."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A launcher said, just now, that it lost the coordinator that had welcomed it."""

    pod_uid: str
    term: int


class Sight(StrEnum):
    """What is remembered of when it was seen first."""

    TERM = "term"
    """status holds this term."""
    STARTED = "started"
    """The container of the pod with this uid runs."""
    PLACED = "placed"
    """The pod with this uid has a node, and its container does not run."""
    OVER = "over"
    """The pod with this uid has ended."""
    MISSING = "missing"
    """status wants a worker pod of this name, and none is there."""


@dataclass(frozen=True, slots=True)
class Me:
    """Which operator this is, and by which roots of trust it can speak."""

    operator: str = ""
    """NAMESPACE/LEASE."""
    root: str = ""
    """Fingerprint of the current root."""
    roots: frozenset[str] = frozenset({""})
    """Of all that hold."""
    budgets: bool = True
    """Whether jobs get PodDisruptionBudgets."""
    oldest: str = ""
    """Fingerprint of the root that was there before all others that hold; empty: of the current one."""
    closed: str = ""
    """The namespace in which no job is started, because the root of trust is there; empty: none."""
    neighbours: Neighbours = field(default_factory=Neighbours)
    """With whom jobs have to do that are shut off."""
    runtime_image: str = ""
    """Image from which a runtime can be brought into those of jobs; empty: none."""


@dataclass(frozen=True, slots=True)
class PowerOrder:
    """What a job's power domain asks of it while it has to draw less."""

    workers: int
    """At most so many; 0: it is to be suspended."""
    cap_watts: float | None
    """Of each device; None: as it comes."""
    why: str
    """Whose limit it is, for a person."""
    until: float | None = None
    """When the limit ends, in seconds since 1970; None: nobody says; 0: it is over."""
    pace: float = 1.0
    """Share of their pace that its workers keep at that cap."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The job's part in the plan of all jobs of its power domain, which share its nodes."""

    among: str
    """Name of the domain."""
    granted: EnergyPlan | None = None
    """Made for it last by this process; None: what stands in its status holds, and who has none is counted soon."""


@dataclass(frozen=True, slots=True)
class HotNode:
    """A node above the temperature that its power domain allows."""

    node: str
    why: str
    """With its name and degrees, as they were when this began; for a person."""
    leaves_since: datetime | None = None
    """Workers created by then, by the API server's clock, are to leave it; None: its cards are only capped."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What is known of the electricity that a job draws."""

    zone: str = ""
    """Of the grid; empty: the platform has none."""
    signals: Mapping[Measure, Signal] = field(default_factory=dict)
    """What holds of the zone now, by measure; of a history, with what is expected from it."""
    pue: float = 1.0
    """What the site draws for each watt of its nodes."""
    embodied_kg: float | None = None
    """CO2 equivalent that making one node took."""
    lifespan_years: float | None = None
    sets_caps: bool = False
    """Somebody sets power caps on the nodes; else they are advice, and no plan counts on them."""
    hot: tuple[HotNode, ...] = ()
    """Nodes with agents that are too hot, by name; of all jobs."""
    order: PowerOrder | None = None
    limits_known: bool = True
    """Whether this process has looked for limits of its power domain: until then, no order is no leave to grow."""
    shared: Shared | None = None
    """None: it is planned alone."""
    pending: bool = False
    """This process has just begun to ask for its zone: a job that never ran waits for the first answer."""
    metered: Mapping[EnergySource, Metered | None] = field(default_factory=dict)
    """What the cluster's own exporters know of its draw, of those that the platform asks; None: nothing so far."""
    why: str = ""
    """Why nothing is known, for a person: no source, or settings that cannot be used."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one pass decides from."""

    job: JobView
    now: datetime
    """Aware, UTC."""
    pods: tuple[PodView, ...] = ()
    """All pods of the job, both roles."""
    service: ServiceView | None = None
    budget: BudgetView | None = None
    network_policies: tuple[NetworkPolicyView, ...] = ()
    files: frozenset[str] = field(default_factory=frozenset)
    """Names of Secrets, and of copies of the script, that this process created or found to exist (409): it cannot read
    Secrets, and watches neither."""
    report: ReportView | None = None
    refusals: tuple[Refusal, ...] = ()
    me: Me = Me()
    complaints: tuple[Complaint, ...] = ()
    supply: Supply = Supply()
    absent: frozenset[str] = frozenset()
    """Names and uids of pods that the cache lacks, and that the API server, asked for them, does not have either."""
    lost: Mapping[str, PodView] = field(default_factory=dict)
    """By name: the workers that status wants and the coordinator that leads, where this process has seen them and they
    are not in `pods` any more. As they were seen last."""
    seen: Mapping[tuple[Sight, str | int], float] = field(default_factory=dict)
    """For how long this process has seen each of these, in seconds in which it listened. Clocks of nodes and of other
    replicas tell nothing: they may differ from ours by any amount."""
    usual_start_seconds: float = 0.0
    """How long coordinators took of late, in all jobs, from the start of the container to the first report."""
    may_give_up: bool = True
    """Not too many coordinators were given up for silence of late, over all jobs."""
    serving_seconds: float = 1e9
    """For how long this process has been leader and listened without a pause: silence before that is its own."""

    def age(self, sight: Sight, of: str | int) -> float:
        """Seconds since it was seen first; 0 if only now."""
        return self.seen.get((sight, of), 0.0)
