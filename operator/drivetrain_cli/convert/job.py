"""PURE: what do all kinds become? One TrainingJob, tried by the API's own rules before anybody sees it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from drivetrain_api.constants import API_VERSION, KIND
from drivetrain_api.rules import MAX_NAME, violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.convert.fields import Fields, Json, Notes
from drivetrain_cli.convert.pods import Pod, kept_words
from drivetrain_operator.render.pod import worker_template_problem

_QUEUE: Final = "kueue.x-k8s.io/queue-name"
_SERVERS: Final = (
    *("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "finalizers"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)


@dataclass(slots=True)
class Asked:
    """What flags of `drivetrain convert` say."""

    name: str | None = None
    image: str | None = None
    command: list[str] | None = None
    drop: frozenset[str] = frozenset()
    without_ray: bool = False


@dataclass(slots=True)
class Plan:
    """A job on its way."""

    pod: Pod
    workers: int = 1
    elastic: tuple[int, int] | None = None
    per_worker: int | None = None
    """As the manifest says it outside of the command."""
    cpu_processes: bool = False
    """Whether `auto` counts processors where there is no GPU, as Trainer does."""
    max_restarts: int | None = None
    suspend: bool = False
    deadline: int | None = None
    ttl: int | None = None
    where: dict[str, str] = field(default_factory=dict)
    """Paths in the manifest, for messages: `workers`, `per_worker`, `command`."""


def metadata_of(fields: Fields, notes: Notes, asked: Asked) -> Json:
    """Name, namespace, labels, annotations."""
    meta = fields.inner("metadata")
    given, prefix = meta.take("name"), meta.take("generateName")
    name = asked.name or given or str(prefix or "").rstrip("-")
    if not re.fullmatch(rf"[a-z]([-a-z0-9]{{0,{MAX_NAME - 2}}}[a-z0-9])?", str(name)):
        notes.refuse(
            meta.at("name"),
            f"{name!r} cannot be a TrainingJob's name: at most {MAX_NAME} lower-case letters, digits and '-', a letter "
            "first; give another with --name",
        )
    made: Json = {"name": str(name)}
    if namespace := meta.take("namespace"):
        made["namespace"] = namespace
    for kind in ("labels", "annotations"):
        if kept := kept_words(meta.take(kind, {}), meta.at(kind), notes):
            made[kind] = kept
    if _QUEUE in made.get("labels", {}):
        notes.tell(
            f"{meta.at('labels')}[{_QUEUE}]",
            "Kueue does not admit TrainingJobs: a job that is suspended for it stays so until somebody resumes it",
        )
    meta.ignore(*_SERVERS)
    meta.left({"ownerReferences": "the job is its own"})
    meta.rest()
    fields.ignore("status", "apiVersion", "kind")
    return made


def training_job(plan: Plan, metadata: Json, notes: Notes) -> Json:
    """The TrainingJob; what breaks its rules is refused with the server's words."""
    pod, launch = plan.pod, plan.pod.launch
    per_worker = _per_worker(plan, notes)
    _check_nodes(plan, per_worker, notes)
    restarts = launch.restarts if plan.max_restarts is None else plan.max_restarts
    spec: Json = {
        "image": pod.image,
        "command": pod.command,
        "runtime": "torchrun",
        "workers": plan.workers,
        "elastic": {"minWorkers": plan.elastic[0], "maxWorkers": plan.elastic[1]} if plan.elastic else None,
        "gpusPerWorker": pod.gpus or None,
        "gpuResource": pod.gpu_resource if pod.gpus and pod.gpu_resource != "nvidia.com/gpu" else None,
        "processesPerWorker": per_worker,
        "recovery": {"maxRestarts": restarts} if restarts is not None else None,
        "podTemplate": pod.template or None,
        "suspend": plan.suspend or None,
        "activeDeadlineSeconds": plan.deadline,
        "ttlSecondsAfterFinished": plan.ttl,
    }
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {key: value for key, value in spec.items() if value is not None},
    }
    if not notes.refused:
        _check(job, notes)
    return job


def _per_worker(plan: Plan, notes: Notes) -> int | None:
    """spec.processesPerWorker; None where its default says the same."""
    pod, launch = plan.pod, plan.pod.launch
    usual = max(1, pod.gpus)
    if not launch.launcher:
        return None if usual == 1 else 1  # each container was one process, whatever GPUs it has
    said = launch.per_worker or plan.per_worker or pod.per_worker
    if said is None and launch.processes is not None:
        machines = plan.workers if plan.elastic is None else (launch.nodes or (plan.workers,))[0]
        if launch.processes % machines:
            notes.refuse(
                plan.where.get("command", "command"),
                f"--num_processes {launch.processes} cannot be shared out evenly among {machines} workers",
            )
        said = max(1, launch.processes // machines)
    if said is None and not pod.gpus:
        if plan.cpu_processes:
            said = max(1, math.ceil(pod.cpus or 0))
        elif launch.launcher == "torchrun":
            notes.tell(
                plan.where.get("per_worker", "command"),
                "auto, without GPUs, counts the processors of the machine under torchrun; here it is 1: set "
                "spec.processesPerWorker if you want more",
            )
    return None if said is None or said == usual else said


def _check_nodes(plan: Plan, per_worker: int | None, notes: Notes) -> None:
    """What the command says of machines must agree with the job: Drivetrain would refuse it later."""
    nodes = plan.pod.launch.nodes
    low, high = plan.elastic or (plan.workers, plan.workers)
    if nodes is None or (nodes[0] <= high and low <= nodes[1]):
        return
    asked = str(nodes[0]) if nodes[0] == nodes[1] else f"{nodes[0]} to {nodes[1]}"
    has = str(low) if low == high else f"{low} to {high}"
    notes.refuse(
        plan.where.get("command", "command"),
        f"{plan.pod.launch.launcher} is to run on {asked} machines, but {plan.where.get('workers', 'the job')} says "
        f"{has}",
    )


def _check(job: Json, notes: Notes) -> None:
    try:
        spec = TrainingJobSpec.model_validate(job["spec"])
    except ValidationError as error:
        for each in error.errors():
            notes.refuse("spec." + ".".join(map(str, each["loc"])), f"of the TrainingJob: {each['msg']}")
        return
    for message in violations(job):
        notes.refuse("the TrainingJob", message)
    if (problem := worker_template_problem(spec)) is not None:
        notes.refuse("spec.podTemplate", f"of the TrainingJob: {problem}")


def same(one: Any, other: Any, path: str = "") -> str | None:
    """Path of the first difference between two of JSON's values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if (found := same(one.get(key), other.get(key), f"{path}.{key}")) is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            if (found := same(mine, yours, f"{path}[{number}]")) is not None:
                return found
        return None
    return None if one == other else path or "."
