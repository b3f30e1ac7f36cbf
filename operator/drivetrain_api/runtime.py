"""What a running job's processes need to know of its spec: resolved, small, and stable while the job runs.

The operator renders it into `DRIVETRAIN_SPEC`; launcher, ranks and coordinator parse it. Unknown fields are ignored,
because an older image may run under a newer operator.
"""

from pydantic import BaseModel, ConfigDict

from drivetrain_api.choices import (
    CompressionName,
    FloatName,
    OptimizerName,
    RateScaling,
    RuntimeName,
    ScheduleName,
    SnapshotPrecision,
    VerifyName,
    WhenSlow,
)


class _Runtime(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RuntimeOptimizer(_Runtime):
    """`spec.training.optimizer`; None leaves a value to the optimizer."""

    name: OptimizerName
    lr: float
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    momentum: float | None = None
    trust_coefficient: float | None = None


class RuntimeLearningRate(_Runtime):
    """`spec.training.learningRate`."""

    scaling: RateScaling = "none"
    base_batch: int | None = None
    warmup_steps: int = 0


class RuntimePrecision(_Runtime):
    """`spec.training.precision`."""

    compute: FloatName = "fp32"
    reduce: FloatName = "fp32"


class RuntimeCompression(_Runtime):
    """`spec.training.compression`."""

    method: CompressionName
    rank: int = 4
    density: float = 0.01
    momentum: float = 0.9
    warmup_steps: int = 0
    max_error: float = 0.02


class RuntimePipeline(_Runtime):
    """`spec.training.parallel.pipeline`."""

    stages: int
    schedule: ScheduleName = "1f1b"
    chunks: int = 1
    """Of consecutive blocks, on each stage."""


class RuntimeTensorBoard(_Runtime):
    """`spec.training.tracking.tensorboard`."""

    folder: str


class RuntimeMLflow(_Runtime):
    """`spec.training.tracking.mlflow`."""

    uri: str
    experiment: str = "Default"


class RuntimeWandb(_Runtime):
    """`spec.training.tracking.wandb`."""

    folder: str
    project: str
    entity: str | None = None


class RuntimeTracking(_Runtime):
    """`spec.training.tracking`: None where a tracker gets nothing."""

    tensorboard: RuntimeTensorBoard | None = None
    mlflow: RuntimeMLflow | None = None
    wandb: RuntimeWandb | None = None


class RuntimeBranch(_Runtime):
    """`spec.restoreFrom`: which state of which other job this one begins with."""

    storage: str
    """Where the snapshots of its namespace's jobs lie, each in a folder of its own."""
    job: str
    """Name, or name of the folder."""
    step: int | None = None
    """None: the last."""


class RuntimeSnapshots(_Runtime):
    """`spec.snapshots`: every step can be gone back to."""

    storage: str
    """A folder that all ranks see, or a URL."""
    options: dict[str, str] = {}
    """Of the URL's store, by name (`drivetrain_api.constants.STORES`)."""
    secret: str | None = None
    """A folder with a file for each of its keys. None: what the environment has."""
    precision: SnapshotPrecision = "exact"
    base_every_steps: int = 500
    keep_bases: int = 2
    commit_seconds: float = 2.0
    when_slow: WhenSlow = "skip"
    restore_from: RuntimeBranch | None = None
    """None: the job begins with nothing."""


class RuntimeStorage(_Runtime):
    """`spec.storage`: where checkpoints and results go."""

    folder: str
    """In the container, where scripts write."""
    url: str | None = None
    """Where what is in the folder is copied to, and comes back from in a new pod. None: the folder outlives pods."""
    options: dict[str, str] = {}
    """Of the URL's store."""
    secret: str | None = None
    """A folder with a file for each of its keys. None: what the environment has."""


class RuntimeTraining(_Runtime):
    """`spec.training`, with defaults resolved."""

    steps: int | None = None
    """Steps after which `run.batches()` ends; None leaves it to the script."""
    seed: int = 0
    global_batch: int | None = None
    """Samples a step over all ranks; None: the script's own, from `drivetrain.start(defaults=...)`."""
    microbatches: int = 1
    """Parts that each rank cuts its share of a batch into (gradient accumulation)."""
    data_workers: int = 0
    """Processes that read ahead for each rank."""
    clip_norm: float | None = None
    bucket_bytes: int = 8 << 20
    """Gradients are all-reduced in buckets of about this size."""
    zero: int = 0
    """Stage of ZeRO: what ranks share out. 0: nothing, 1: optimizer state, 2: gradients too, 3: parameters too."""
    tensor: int = 1
    """Ranks that share each layer (tensor parallelism)."""
    pipeline: RuntimePipeline | None = None
    """None: every rank computes all layers."""
    optimizer: RuntimeOptimizer | None = None
    """None: the script's own."""
    learning_rate: RuntimeLearningRate = RuntimeLearningRate()
    precision: RuntimePrecision = RuntimePrecision()
    compression: RuntimeCompression | None = None
    """None: gradients travel in full."""
    balance_every: int | None = None
    """Steps between two looks at the ranks' throughput; None: shares are even."""
    tracking: RuntimeTracking | None = None
    """None: no tracker of experiments gets anything."""
    verify: VerifyName | None = None
    """firstStep: compare the first step with one of the whole model on one rank."""
    deterministic: bool = False
    virtual_shards: int = 8
    """Deterministic mode: parts that every global batch is cut into, whatever the world size."""


class RuntimeSpec(_Runtime):
    """One job's runtime settings."""

    runtime: RuntimeName = "drivetrain"
    """How ranks are started. Operators that do not know it mean this."""
    workers: int = 1
    min_workers: int = 1
    processes_per_worker: int = 1
    spares: int = 1
    max_restarts: int = 10
    """When this pod was made; it may have changed since."""
    replicas: int = 0
    """Of each rank's part of the state, where training shares it out, how many copies other ranks keep."""
    fence_seconds: float = 60.0
    check_every_steps: int = 100
    """Between two comparisons of the ranks' state; 0: none."""
    training: RuntimeTraining = RuntimeTraining()
    snapshots: RuntimeSnapshots | None = None
    """None: nothing is written but what the script saves."""
    storage: RuntimeStorage | None = None
    """None: what the script saves goes with its pod, unless it knows better."""
