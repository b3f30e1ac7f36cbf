"""TrainingJob.spec: what a user asks for. The CRD is generated from these models (`drivetrain_api.crd`).

Every field has a description and a bound, because the API server prices CEL rules by bounds and `kubectl explain`
shows descriptions. A field is here only with the code that reads it. Rules that span fields are in `rules.py`; values
that follow from several fields are in `resolve.py`. Parsing is as strict as the API server: `workers: "3"` is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from drivetrain_api.choices import FloatName, OptimizerName, RateScaling

MAX_WORKERS: Final = 4096
MAX_PROCESSES: Final = 64
INT32_MAX: Final = 2**31 - 1

Word = Annotated[str, Field(min_length=1, max_length=4096)]


class SpecModel(BaseModel):
    """Base of all spec models: camelCase on the wire, frozen, unknown fields ignored (the API server prunes them)."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


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


class Batch(SpecModel):
    """How a step's samples are cut."""

    global_: int | None = Field(
        default=None,
        alias="global",
        ge=1,
        le=INT32_MAX,
        description="Samples a step over all workers; it does not change with their number. Default: the script's own.",
    )
    microbatches: int = Field(
        default=1,
        ge=1,
        le=65536,
        description="Parts that each rank cuts its share of a batch into (gradient accumulation).",
    )


class Parallel(SpecModel):
    """How ranks share the work of a step."""

    bucket_megabytes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Gradients are summed over the ranks in buckets of this size (2^20 bytes each) while the backward "
        "pass still runs: small ones begin earlier, large ones cost less overhead. A parameter is never cut, so a "
        "larger one is a bucket of its own. Default: 4.",
    )


class Optimizer(SpecModel):
    """An optimizer by name, in place of the script's own. What is not set here has the optimizer's own default."""

    name: OptimizerName = Field(
        description="lamb (You et al. 2020), lars (You et al. 2017), or torch's adamw or sgd. All of the model's "
        "parameters form one group."
    )
    lr: float = Field(gt=0, le=1e6, description="Learning rate, before spec.training.learningRate scales it.")
    weight_decay: float | None = Field(
        default=None, ge=0, le=1e6, description="Default: 0 for lamb, lars and sgd, 0.01 for adamw."
    )
    betas: list[Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Decay of the two moments, for lamb and adamw. Default: [0.9, 0.999].",
    )
    eps: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Added to the root of the second moment, for lamb and adamw. Default: 1e-6 for lamb, 1e-8 for "
        "adamw.",
    )
    momentum: float | None = Field(
        default=None, ge=0, lt=1, description="For lars and sgd. Default: 0.9 for lars, 0 for sgd."
    )
    trust_coefficient: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="For lars: a tensor's update is this part of its norm at learning rate 1. Default: 0.001.",
    )


class LearningRate(SpecModel):
    """Factors on the learning rate of every step, whoever made the optimizer and whatever the script's schedule says.

    The global batch does not change with the number of workers, and so neither does the rate.
    """

    scaling: RateScaling = Field(
        default="none",
        description="How the rate grows with the global batch: none, linear (batch / baseBatch; Goyal et al. 2017), "
        "or sqrt (its square root; You et al. 2020, for lamb).",
    )
    base_batch: int | None = Field(
        default=None, ge=1, le=INT32_MAX, description="Samples a step for which the unscaled rate was chosen."
    )
    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=10**9,
        description="Steps over which the rate grows in equal parts to its value (Goyal et al. 2017).",
    )


class Precision(SpecModel):
    """Floating-point types. Weights, optimizer state and the accumulation of gradients stay as the script made them."""

    compute: FloatName = Field(
        default="fp32",
        description="Type of forward and backward (torch.autocast). fp16 scales the loss, and skips a step whose "
        "gradient overflowed.",
    )
    reduce: FloatName = Field(
        default="fp32",
        description="Type in which ranks send gradients to one another. bf16 and fp16 halve what is sent; sums are "
        "rounded to it.",
    )


class Balance(SpecModel):
    """Slower ranks take smaller shares of a batch. Without it, all shares are of one size."""

    every: int = Field(
        default=50,
        ge=1,
        le=10**6,
        description="Steps between two looks at how long each rank takes; a new membership is looked at after 4.",
    )


class Training(SpecModel):
    """What the training script learns from `drivetrain.start()`."""

    steps: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Steps after which `run.batches()` ends. Default: the script decides.",
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Seed of data order, initial weights and random numbers."
    )
    batch: Batch = Field(default=Batch(), description="How a step's samples are cut.")
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Clip the global norm of the gradient to this value. Default: no clipping.",
    )
    optimizer: Optimizer | None = Field(
        default=None, description="Takes the place of the script's optimizer. Default: the script's own."
    )
    learning_rate: LearningRate = Field(
        default=LearningRate(), description="Scaling and warm-up of the learning rate of every step."
    )
    precision: Precision = Field(default=Precision(), description="Floating-point types of a step.")
    balance: Balance | None = Field(
        default=None,
        description="Cut each batch in proportion to the ranks' measured throughput. Default: evenly.",
    )
    parallel: Parallel = Field(default=Parallel(), description="How ranks share the work of a step.")
    deterministic: bool = Field(
        default=False,
        description="Make the result bitwise independent of how many workers there were and when they died. Slower.",
    )


class Recovery(SpecModel):
    """What the job survives."""

    max_restarts: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="Incidents (a crash, an exception, a worker out of memory) that the job survives. "
        "Ranks that fail together from one cause are one incident. Drains, preemptions and lost nodes never count.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Warm rank processes that each worker keeps, to take a dead one's place. Each costs memory.",
    )
    fence_seconds: int = Field(
        default=60,
        ge=5,
        le=86400,
        description="A worker with neither its coordinator nor a finished step for this long kills its processes.",
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
    training: Training = Field(default=Training(), description="What the training script learns from the job.")
    recovery: Recovery = Field(default=Recovery(), description="What the job survives.")
    suspend: bool = Field(
        default=False,
        description="Stop the job and delete its pods. Training state in memory is lost; the last run.save is kept.",
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
