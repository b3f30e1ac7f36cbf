"""Which values follow from a spec without standing in it? Frozen into `status.resolved` when the job starts."""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import (
    READY_IMAGE,
    SCRIPT_MOUNT,
    SNAPSHOTS_MOUNT,
    SNAPSHOTS_SECRET_MOUNT,
    STORAGE_MOUNT,
    STORAGE_SECRET_MOUNT,
)
from drivetrain_api.runtime import (
    RuntimeBranch,
    RuntimeCompression,
    RuntimeLearningRate,
    RuntimeOptimizer,
    RuntimePipeline,
    RuntimePrecision,
    RuntimeSnapshots,
    RuntimeSpec,
    RuntimeStorage,
    RuntimeTracking,
    RuntimeTraining,
)
from drivetrain_api.snapshots import RestoreFrom, Snapshots
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Resolved
from drivetrain_api.storage import Storage
from drivetrain_api.training import Pipeline, Training

MIN_VIRTUAL_SHARDS: Final = 8
DEFAULT_BUCKET_MEGABYTES: Final = 8
DEFAULT_CHUNKS: Final = 2


def resolve(spec: TrainingJobSpec) -> Resolved:
    """Computed defaults, for a job that starts now."""
    processes = spec.processes_per_worker or max(1, spec.gpus_per_worker)
    most = max(spec.workers, spec.elastic.max_workers if spec.elastic is not None else 0)
    shards = MIN_VIRTUAL_SHARDS
    while shards < most * processes:  # every rank needs at least one shard, or it would only watch
        shards *= 2
    return Resolved(processes_per_worker=processes, virtual_shards=shards)


def target_workers(spec: TrainingJobSpec) -> int:
    """spec.workers within elastic's bounds: an autoscaler may write anything."""
    if spec.elastic is None:
        return spec.workers
    return max(spec.elastic.min_workers, min(spec.workers, spec.elastic.max_workers))


def minimum_workers(spec: TrainingJobSpec) -> int:
    """Workers below which training waits; without elastic, all of them."""
    return min(spec.elastic.min_workers, target_workers(spec)) if spec.elastic is not None else spec.workers


def is_ready(image: str) -> bool:
    """Whether an image has the launcher, as far as its name says: registry, tag and digest do not count."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0] == READY_IMAGE


def brings_runtime(spec: TrainingJobSpec) -> bool:
    """Whether the workers' runtime has to be brought into their image, or may have to."""
    return spec.runtime_from == "operator" or (spec.runtime_from == "auto" and not is_ready(spec.image))


def user_command(spec: TrainingJobSpec) -> list[str]:
    """What each rank process runs."""
    if spec.script is not None:
        return ["python", f"{SCRIPT_MOUNT}/{spec.script.key}"]
    return list(spec.command or ())


def to_runtime(spec: TrainingJobSpec, resolved: Resolved | None = None, own: str = "") -> RuntimeSpec:
    """What launcher, ranks and coordinator need of the job. `resolved` is what was frozen when it started, `own` the
    job's own folder among others' snapshots."""
    frozen = resolved or resolve(spec)
    return RuntimeSpec(
        runtime=spec.runtime,
        workers=target_workers(spec),
        min_workers=minimum_workers(spec),
        processes_per_worker=frozen.processes_per_worker,
        spares=spec.recovery.spares,
        max_restarts=spec.recovery.max_restarts,
        replicas=spec.recovery.replicas if _is_shared_out(spec.training) else 0,
        fence_seconds=float(spec.recovery.fence_seconds),
        check_every_steps=spec.recovery.check_every_steps,
        training=to_runtime_training(spec.training, frozen.virtual_shards),
        snapshots=_snapshots(spec.snapshots, spec.restore_from, own),
        storage=to_runtime_storage(spec.storage, own),
    )


def _is_shared_out(training: Training) -> bool:
    """Whether ranks have parts of the state."""
    parallel = training.parallel
    return parallel.zero > 0 or parallel.tensor > 1 or parallel.pipeline is not None


def _snapshots(snapshots: Snapshots | None, branch: RestoreFrom | None, own: str) -> RuntimeSnapshots | None:
    if snapshots is None:
        return None
    place = snapshots.storage
    root = f"{SNAPSHOTS_MOUNT}/{place.path}" if place.persistent_volume_claim is not None else place.path
    root = root if place.url is None else place.url.rstrip("/")
    of_namespace = f"{root}/{own.rpartition('/')[0]}".rstrip("/")
    return RuntimeSnapshots(
        storage=f"{root}/{own}".rstrip("/"),
        options=place.options.model_dump(exclude_none=True) if place.options is not None else {},
        secret=SNAPSHOTS_SECRET_MOUNT if place.secret_name is not None else None,
        restore_from=RuntimeBranch(storage=of_namespace, job=branch.job, step=branch.step) if branch else None,
        **snapshots.model_dump(exclude={"storage"}, by_alias=False),
    )


def to_runtime_storage(place: Storage | None, own: str) -> RuntimeStorage | None:
    """Where results go. They lie beside snapshots, never among them: both may be given the same place."""
    if place is None:
        return None
    if place.url is None:
        root = f"{STORAGE_MOUNT}/{place.path}" if place.persistent_volume_claim is not None else place.path
        return RuntimeStorage(folder=f"{root.rstrip('/')}/results/{own}".rstrip("/"))
    return RuntimeStorage(
        folder=STORAGE_MOUNT,
        url=f"{place.url.rstrip('/')}/results/{own}".rstrip("/"),
        options=place.options.model_dump(exclude_none=True) if place.options is not None else {},
        secret=STORAGE_SECRET_MOUNT if place.secret_name is not None else None,
    )


def to_runtime_training(training: Training, virtual_shards: int) -> RuntimeTraining:
    """What ranks need of `spec.training`, whether a job says it or a script."""
    return RuntimeTraining(
        steps=training.steps,
        seed=training.seed,
        global_batch=training.batch.global_,
        microbatches=training.batch.microbatches,
        data_workers=training.data.workers,
        clip_norm=training.clip_norm,
        bucket_bytes=(training.parallel.bucket_megabytes or DEFAULT_BUCKET_MEGABYTES) << 20,
        zero=training.parallel.zero,
        tensor=training.parallel.tensor,
        pipeline=_pipeline(training.parallel.pipeline),
        optimizer=RuntimeOptimizer(**training.optimizer.model_dump()) if training.optimizer else None,
        learning_rate=RuntimeLearningRate(**training.learning_rate.model_dump()),
        precision=RuntimePrecision(**training.precision.model_dump()),
        compression=RuntimeCompression(**training.compression.model_dump(exclude_none=True))
        if training.compression is not None
        else None,
        balance_every=training.balance.every if training.balance is not None else None,
        tracking=RuntimeTracking(**training.tracking.model_dump()) if training.tracking is not None else None,
        verify=training.verify,
        deterministic=training.deterministic,
        virtual_shards=virtual_shards,
    )


def _pipeline(pipeline: Pipeline | None) -> RuntimePipeline | None:
    if pipeline is None:
        return None
    chunks = (pipeline.chunks or DEFAULT_CHUNKS) if pipeline.schedule == "interleaved" else 1
    return RuntimePipeline(stages=pipeline.stages, schedule=pipeline.schedule, chunks=chunks)
