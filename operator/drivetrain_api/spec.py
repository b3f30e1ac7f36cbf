"""TrainingJob.spec: what a user asks for. The CRD is generated from these models (`drivetrain_api.crd`).

Every field has a description and a bound, because the API server prices CEL rules by bounds and `kubectl explain`
shows descriptions. A field is here only with the code that reads it. Rules that span fields are in `rules.py`; values
that follow from several fields are in `resolve.py`. Parsing is as strict as the API server: `workers: "3"` is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from drivetrain_api.choices import Reach, RuntimeName, RuntimeSource
from drivetrain_api.energy_spec import Energy
from drivetrain_api.model import INT32_MAX, SpecModel
from drivetrain_api.snapshots import RestoreFrom, Snapshots
from drivetrain_api.storage import Storage
from drivetrain_api.training import Training

MAX_WORKERS: Final = 4096
MAX_PROCESSES: Final = 64

Word = Annotated[str, Field(min_length=1, max_length=4096)]


class Script(SpecModel):
    """A Python script in a ConfigMap of the job's namespace, run in place of a command."""

    config_map: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Name of the ConfigMap, in the job's namespace.",
    )
    key: str = Field(
        min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key of the script in the ConfigMap."
    )


class Elastic(SpecModel):
    """Training goes on with any number of workers between these bounds. Without it, every worker is needed."""

    min_workers: int = Field(
        ge=1, le=MAX_WORKERS, description="Training goes on while at least this many workers are members."
    )
    max_workers: int = Field(ge=1, le=MAX_WORKERS, description="Upper bound of spec.workers, which scaling may set.")


class Recovery(SpecModel):
    """What the job survives."""

    max_restarts: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="Incidents (a crash, an exception, a worker out of memory) that the job survives; 0: the first "
        "ends it. An incident counts until restartWindowSeconds have passed and 100 steps are trained past it, so a "
        "long job is not ended by failures that have nothing to do with each other. "
        "Ranks that fail together from one cause are one incident. Drains, preemptions and lost nodes never count, "
        "nor does what Drivetrain itself ends. An error that would come again (a missing module before the first step, "
        "or the same error of its own three times in a row at one step) ends the job at once.",
    )
    restart_window_seconds: int = Field(
        default=3600,
        ge=600,
        le=31_536_000,
        description="How long an incident counts against maxRestarts at least; it counts on until the job has trained "
        "100 steps past it. A job that comes no further is ended by maxRestarts however slowly it fails. The longest "
        "value, a year, means in practice that every incident counts.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Warm rank processes that each worker keeps, to take a dead one's place. Each costs memory.",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=1,
        description="Copies that other ranks keep of each rank's part of the state, where training.parallel shares it "
        "out: then the death of a rank costs no step. Each costs, in each rank, as much memory as its part of the "
        "optimizer's state and of the gradients (with zero: 3, of the parameters too), and as many bytes a step as "
        "its part of the gradients has. 0: a death costs the steps since the last snapshot or run.save. Without "
        "meaning where no state is shared out.",
    )
    fence_seconds: int = Field(
        default=60,
        ge=5,
        le=86400,
        description="A worker with neither its coordinator nor a finished step for this long kills its processes.",
    )
    no_progress_seconds: int | None = Field(
        default=None,
        ge=5,
        le=31_536_000,
        description="When nothing has moved for this long although all workers are there, the ranks that the others "
        "wait for are killed, and that is an incident like a crash. It must be longer than anything that the script "
        "does: its first step with compilation, an evaluation, a save. Default: 20 times a usual step, at least 600; "
        "1800 before the first step of a membership; 3600 while evaluating, saving or finishing, or when no rank "
        "waits for another.",
    )
    check_every_steps: int = Field(
        default=100,
        ge=0,
        le=1_000_000,
        description="Every so many steps ranks compare a checksum of the state that they should have alike; 0: never. "
        "One that differs is named in the event StateCorrupted and takes a peer's state; a node with three in a row "
        "gets no more workers of this job. Costs one pass over the state in memory.",
    )


class Coordinator(SpecModel):
    """The pod that leads the job's membership; small, without a GPU."""

    pod_template: dict[str, Any] = Field(
        default_factory=dict,
        description="PodTemplateSpec merged over the generated coordinator pod, as podTemplate is over workers; its "
        "container is `coordinator`. Default: the tolerations and the priority class of podTemplate. A change holds "
        "for coordinators created afterwards.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class Network(SpecModel):
    """Who may reach the job's pods, and whom they may reach: as NetworkPolicies, which hold where the cluster's network
    plugin enforces them."""

    ingress: Reach = Field(
        default="any",
        description="job: workers are reached by this job's workers only, and the coordinator by them and by whoever "
        "reads its metrics. Whom else you want to let in, a NetworkPolicy of your own adds.",
    )
    egress: Reach = Field(
        default="any",
        description="job: pods reach this job's pods and the operator only, not even a name server. What else they "
        "need, such as where the data is, a NetworkPolicy of your own adds.",
    )


class TrainingJobSpec(SpecModel):
    """What to train, with how many workers, and what to do when things fail."""

    image: str = Field(
        min_length=1, max_length=512, pattern=r"^\S+$", description="Image of the workers: your code and drivetrain."
    )
    command: list[Word] | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Command of each rank process, e.g. [python, train.py]. Exactly one of command and script is set.",
    )
    script: Script | None = Field(
        default=None, description="A Python script in a ConfigMap. Exactly one of command and script is set."
    )
    runtime: RuntimeName = Field(
        default="auto",
        description="How the script is run. drivetrain: it calls drivetrain.start(), and no step is lost when ranks "
        "die. torchrun: any script, with the environment that torchrun gives; at a death, a drain or a change of size "
        "all ranks start again in their pods, from the script's own checkpoint. auto: drivetrain if the script, or a "
        "module beside it that it imports, imports drivetrain, or if none of them can be read; else torchrun.",
    )
    runtime_from: RuntimeSource = Field(
        default="auto",
        description="Where the workers' launcher and drivetrain package come from. image: from spec.image, which is "
        "drivetrain-worker or made from it. operator: an init container brings them from the operator's image, without "
        "network or build, so that spec.image needs no more than sh, Python 3.10 or newer, and torch. auto: image if "
        "the name of spec.image ends in drivetrain-worker (before its tag); else they are brought, but a "
        "drivetrain-launcher that the image has is used before them. An image that does not fit fails the job before "
        "anything runs (ImageDoesNotFit). On the embedded plane, whose images mean nothing, it has no effect.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=MAX_WORKERS,
        description="Worker pods wanted; `kubectl scale` writes it. To stop the job for a while, set suspend.",
    )
    elastic: Elastic | None = Field(
        default=None,
        description="Bounds between which training goes on. Default: it waits until all workers are there.",
    )
    gpus_per_worker: int = Field(default=0, ge=0, le=MAX_PROCESSES, description="GPUs that each worker pod requests.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=3,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$",
        description="Name of the extended resource that gpusPerWorker counts.",
    )
    processes_per_worker: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PROCESSES,
        description="Rank processes in each worker. Default: gpusPerWorker, at least 1.",
    )
    pod_template: dict[str, Any] = Field(
        default_factory=dict,
        description="PodTemplateSpec merged over the generated worker pod by Kubernetes' strategic merge keys; our "
        "container is `worker`. A change holds for pods created afterwards.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
    coordinator: Coordinator = Field(default=Coordinator(), description="The pod that leads the job's membership.")
    network: Network = Field(
        default=Network(),
        description="Who may reach the job's pods, and whom they may reach. It may change at any time; no pod is "
        "created before the NetworkPolicies are there.",
    )
    training: Training = Field(default=Training(), description="What the training script learns from the job.")
    recovery: Recovery = Field(default=Recovery(), description="What the job survives.")
    snapshots: Snapshots | None = Field(
        default=None,
        description="Keep every step in storage, so that the job goes on from its last one when all workers are lost, "
        "or after it was suspended. Default: it goes on from the last run.save.",
    )
    storage: Storage | None = Field(
        default=None,
        description="Where the job's checkpoints and results go, so that they outlive its pods: scripts find their "
        "folder in DRIVETRAIN_OUTPUT_DIR, run.save writes relative paths there, and `drivetrain get` reads it. What "
        "is there is not deleted with the job. Default: what a script writes goes with its pod.",
    )
    restore_from: RestoreFrom | None = Field(
        default=None,
        description="Begin with the state of another job's step, from its snapshots, and write one's own from there. "
        "Needs snapshots. Once this job has steps of its own in storage, it goes on from those.",
    )
    energy: Energy | None = Field(
        default=None,
        description="When the job must be done, and what may be saved on the way there: the operator finds the hours "
        "and the number of workers. Default: it runs at once, with spec.workers.",
    )
    suspend: bool = Field(
        default=False,
        description="Stop the job and delete its pods. Training state in memory is lost; with spec.snapshots the job "
        "goes on from its last step, else from the last run.save.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=INT32_MAX,
        description="The job fails when it has been active for longer. Time suspended does not count.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=INT32_MAX,
        description="The job is deleted this long after it has finished. Default: it is kept.",
    )
