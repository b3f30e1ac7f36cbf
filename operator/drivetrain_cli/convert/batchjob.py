"""PURE: Kubernetes' own Job (batch/v1). Of several pods only an Indexed one is a gang, and only with a launcher."""

from __future__ import annotations

from typing import Final

from drivetrain_cli.convert.fields import Fields, Json, Notes
from drivetrain_cli.convert.job import Asked, Plan, metadata_of, training_job
from drivetrain_cli.convert.pods import pod_of

_INDEXES: Final = "it is about single indexes, which may fail or succeed alone; ranks train together or not at all"
_CONTAINERS: Final = ("pytorch", "trainer", "train", "training", "main", "worker")


def convert(manifest: Json, notes: Notes, asked: Asked) -> Json:
    """The TrainingJob."""
    fields = Fields(manifest, "", notes)
    metadata = metadata_of(fields, notes, asked)
    spec = fields.inner("spec")
    restart = ((manifest.get("spec") or {}).get("template") or {}).get("spec", {}).get("restartPolicy")
    template = spec.inner("template")
    plan = Plan(pod_of(template, _CONTAINERS, notes, command=asked.command))
    plan.where = {"workers": spec.at("parallelism"), "command": f"{template.path}.spec.containers"}
    _size(spec, plan, notes)
    plan.max_restarts = spec.whole("backoffLimit")
    plan.deadline = spec.whole("activeDeadlineSeconds", 1)
    plan.ttl = spec.whole("ttlSecondsAfterFinished")
    plan.suspend = bool(spec.take("suspend", False))
    if restart == "OnFailure":
        notes.tell(f"{template.path}.spec.restartPolicy", "left out: processes are started again in their pods anyway")
    if spec.take("managedBy") not in (None, "kubernetes.io/job-controller"):
        notes.tell(spec.at("managedBy"), "left out: Drivetrain's operator looks after the job")
    spec.refused(dict.fromkeys(("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"), _INDEXES))
    spec.left(
        {
            "podFailurePolicy": "recovery.maxRestarts counts failures of the training, and no drains or preemptions",
            "podReplacementPolicy": "a worker is replaced at once",
        }
    )
    spec.ignore("selector", "manualSelector")
    spec.rest()
    fields.rest()
    return training_job(plan, metadata, notes)


def _size(spec: Fields, plan: Plan, notes: Notes) -> None:
    """Workers: as many pods as run at a time, if these are all that there are."""
    parallelism, completions = spec.whole("parallelism"), spec.whole("completions")
    indexed = spec.take("completionMode") == "Indexed"
    count = parallelism if parallelism is not None else 1
    plan.workers = max(1, count)
    if count == 0:
        notes.refuse(spec.at("parallelism"), "is 0: the Job runs nothing; set spec.suspend instead")
    if count <= 1 and (completions or 1) == 1:
        return
    if completions is not None and completions != count:
        notes.refuse(
            spec.at("completions"),
            f"{completions} pods, {count} at a time, are a queue of independent pieces of work; ranks train together",
        )
    elif not indexed:
        notes.refuse(
            spec.at("completionMode"),
            f"{count} pods that are not Indexed know nothing of one another; as a TrainingJob they would be ranks of "
            "one training",
        )
    elif plan.pod.command and not plan.pod.launch.launcher:
        notes.tell(
            plan.where["command"],
            f"starts no torchrun: each of the {count} workers is one rank, with RANK and WORLD_SIZE from Drivetrain",
        )
