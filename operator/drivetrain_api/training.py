"""TrainingJob.spec.training: what the training script learns from the job, and what the runtime does for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from drivetrain_api.choices import CompressionName, FloatName, OptimizerName, RateScaling, ScheduleName, VerifyName
from drivetrain_api.model import INT32_MAX, SpecModel
from drivetrain_api.tracking import Tracking


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


class Data(SpecModel):
    """How samples are read."""

    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Processes that read and collate samples ahead of time for each rank, as torch's DataLoader has "
        "them. They need CPU and memory of the worker's pod. Default: 0, the rank reads by itself.",
    )


class Pipeline(SpecModel):
    """How ranks share a model's blocks."""

    stages: int = Field(
        ge=2,
        le=64,
        description="Ranks that have the model's blocks between them, cut by what each costs to compute. Blocks are "
        "the elements of `model.blocks`, else of its outermost ModuleLists and Sequentials; each must be given what "
        "comes from the one before. What belongs to no block is on all stages.",
    )
    schedule: ScheduleName = Field(
        default="1f1b",
        description="In which order a stage works on the micro-batches. gpipe (Huang et al. 2019): all forward, then "
        "all backward; 1f1b (Narayanan et al. 2021): as idle, but keeps few activations; interleaved (same): several "
        "chunks a stage, less idle, more traffic; zerobubble (ZB-H1 of Qi et al. 2023): gradients of the parameters "
        "where a stage would idle.",
    )
    chunks: int | None = Field(
        default=None,
        ge=2,
        le=64,
        description="Chunks of consecutive blocks on each stage, for interleaved. Default: 2.",
    )


class Parallel(SpecModel):
    """How ranks share the work of a step."""

    tensor: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Ranks that share each layer's weights (tensor parallelism; Shoeybi et al. 2019), as the model's "
        "`tp_plan` says; put them on one machine (spec.processesPerWorker). The other ranks train data-parallel; what "
        "does not fill a group is idle. A rank's part survives it if there is another group. In divided layers dropout "
        "drops the same of each rank's part. Default: 1.",
    )
    pipeline: Pipeline | None = Field(
        default=None,
        description="Ranks share the model's blocks (pipeline parallelism), and pass the micro-batches of "
        "spec.training.batch.microbatches through. The other ranks train data-parallel; what does not fill a pipeline "
        "is idle. A rank's part survives it if there is another pipeline. Default: every rank computes all blocks.",
    )
    zero: int = Field(
        default=0,
        ge=0,
        le=3,
        description="Stage of ZeRO (Rajbhandari et al. 2020): what ranks share out instead of each keeping all of it. "
        "1: the optimizer's state, 2: gradients too, 3: parameters too, which costs half as much traffic again. Each "
        "part has a copy on another rank (spec.recovery.replicas). Default: 0, nothing.",
    )
    bucket_megabytes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Gradients are summed over the ranks in buckets of this size (2^20 bytes each) while the backward "
        "pass still runs: small ones begin earlier, large ones cost less overhead. A parameter is never cut, so a "
        "larger one is a bucket of its own. Default: 8.",
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
        "rounded to it. fp16 only if compute is fp16.",
    )


class Compression(SpecModel):
    """Send gradients with fewer bytes. What a step leaves out is added to the next one's gradient (error feedback)."""

    method: CompressionName = Field(
        description="bf16, int8, int4: every element in fewer bits (2.0, 3.9, 7.5 times fewer bytes). powersgd: each "
        "matrix as the product of two thin ones (Vogels et al. 2019). topk: only the largest elements (Lin et al. "
        "2018). auto: the fastest of none, bf16, int8, int4 by measurement, whenever the membership changes; "
        "status.progress.communication tells which and why."
    )
    rank: int | None = Field(default=None, ge=1, le=256, description="For powersgd: columns. Default: 4.")
    density: float | None = Field(
        default=None, gt=0, le=1, description="For topk: the part of the elements that is sent. Default: 0.01."
    )
    momentum: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="For topk, which takes momentum before it chooses elements: the optimizer must be SGD without "
        "momentum of its own. Default: 0.9.",
    )
    max_error: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="For auto: the largest relative error of a sum. bf16 has about 0.002, int8 0.01, int4 0.15. "
        "Default: 0.02.",
    )
    warmup_steps: int = Field(
        default=0, ge=0, le=10**9, description="First steps of a run whose gradients are sent in full."
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
    data: Data = Field(default=Data(), description="How samples are read.")
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
    compression: Compression | None = Field(
        default=None, description="Send gradients with fewer bytes. Default: in full."
    )
    balance: Balance | None = Field(
        default=None,
        description="Cut each batch in proportion to the ranks' measured throughput. Default: evenly.",
    )
    parallel: Parallel = Field(default=Parallel(), description="How ranks share the work of a step.")
    tracking: Tracking | None = Field(
        default=None,
        description="Trackers of experiments that get what each step came to, once. Default: none.",
    )
    verify: VerifyName | None = Field(
        default=None,
        description="firstStep: before the first step (also after a resume) rank 0 computes it alone, with the whole "
        "model, micro-batch by micro-batch as the ranks will; then the step's loss and each parameter's gradient norm "
        "are compared, and the job fails with the parameter's name and both numbers where they differ. It needs memory "
        "for the whole model with gradients on rank 0, and as long as one step on one rank. Default: nothing is "
        "compared.",
    )
    deterministic: bool = Field(
        default=False,
        description="Make the result bitwise independent of how many workers there were and when they died. Slower.",
    )
