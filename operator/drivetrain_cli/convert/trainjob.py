"""PURE: Kubeflow Trainer's TrainJob (trainer.kubeflow.org), with the runtime it refers to: from the same files, or the
torch runtime that Trainer itself installs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from drivetrain_cli.convert.fields import Fields, Json, Notes
from drivetrain_cli.convert.job import Asked, Plan, metadata_of, training_job
from drivetrain_cli.convert.pods import pod_of
from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.merge import merge

GROUP: Final = "trainer.kubeflow.org"
RUNTIMES: Final = ("ClusterTrainingRuntime", "TrainingRuntime")
_STEP: Final = f"{GROUP}/trainjob-ancestor-step"
_CONTAINER: Final = "node"
_TORCH: Final = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"
_WELL_KNOWN: Final[Json] = {
    "torch-distributed": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": _CONTAINER,
                        "template": {
                            "spec": {"template": {"spec": {"containers": [{"name": _CONTAINER, "image": _TORCH}]}}}
                        },
                    }
                ]
            }
        },
    }
}
_DOWNLOADS: Final = (
    "downloads data or a model before training, which Drivetrain does not: do it in an init container of podTemplate, "
    "or in the script"
)
_FOREIGN: Final = {
    "mpi": "an MPI job with a launcher and ssh",
    "jax": "JAX",
    "flux": "Flux",
    "xgboost": "XGBoost",
}


def convert(manifest: Json, notes: Notes, asked: Asked, runtimes: Sequence[Json] = ()) -> Json | None:
    """The TrainingJob; None if nothing can be said without its runtime."""
    fields = Fields(manifest, "", notes)
    metadata = metadata_of(fields, notes, asked)
    spec = fields.inner("spec")
    found = _runtime(spec.inner("runtimeRef"), runtimes, notes)
    if found is None:
        return None
    runtime = Fields(found, "runtime.spec", notes)
    policy = runtime.inner("mlPolicy")
    template, path = _template(runtime.inner("template"), notes)
    trainer = spec.inner("trainer")
    template = _patched(template, spec, notes)
    template = _with_trainer(template, trainer, notes)
    image = trainer.take("image")
    if image is None and asked.image is None and found is _WELL_KNOWN.get("torch-distributed"):
        notes.tell("spec.runtimeRef", f"its image is taken to be {_TORCH}; if your cluster's differs, give --image")
    chosen = asked.image or image
    if chosen is not None:
        _node(template)["image"] = chosen
    plan = Plan(pod_of(Fields(template, path, notes), (_CONTAINER,), notes, command=asked.command))
    plan.cpu_processes = True
    plan.where = {"workers": "spec.trainer.numNodes", "command": "spec.trainer.command"}
    _sized(policy, trainer, plan, notes)
    trainer.rest()
    plan.suspend, plan.deadline = bool(spec.take("suspend", False)), spec.whole("activeDeadlineSeconds", 1)
    if spec.take("managedBy") not in (None, f"{GROUP}/trainjob-controller"):
        notes.tell(spec.at("managedBy"), "left out: Drivetrain's operator looks after the job")
    spec.refused({"initializer": _DOWNLOADS})
    spec.rest()
    runtime.left({"podGroupPolicy": "no gang scheduler is used; workers that cannot start yet are waited for"})
    runtime.rest()
    fields.rest()
    return training_job(plan, metadata, notes)


def _runtime(reference: Fields, runtimes: Sequence[Json], notes: Notes) -> Json | None:
    name, kind = reference.take("name"), reference.take("kind", RUNTIMES[0])
    reference.ignore("apiGroup")
    reference.rest()
    for each in runtimes:
        if each.get("kind") == kind and each["metadata"].get("name") == name:
            found: Json = each.get("spec") or {}
            return found
    if kind == RUNTIMES[0] and name in _WELL_KNOWN:
        known: Json = _WELL_KNOWN[name]
        return known
    notes.refuse(
        reference.path,
        f"{kind} {name!r} is in none of these files, and not {' or '.join(_WELL_KNOWN)}: save it (kubectl get "
        f"{kind.lower()} {name} -o yaml) and give that file, too",
    )
    return None


def _template(jobset: Fields, notes: Notes) -> tuple[Json, str]:
    """The pod template of the nodes that train, and where it stands."""
    jobset.ignore("metadata")
    spec = jobset.inner("spec")
    jobset.rest()
    found: tuple[Json, str] = ({}, spec.at("replicatedJobs"))
    seen = False
    for each in spec.items("replicatedJobs"):
        name = each.take("name")
        job = each.inner("template")
        meta = job.take("metadata", {})
        step = (meta.get("labels") or {}).get(_STEP)
        if seen or not (step == "trainer" or (step is None and name == _CONTAINER)):
            notes.refuse(
                each.path, f"{name} is another job that runs beside or before training; a TrainingJob has workers only"
            )
            continue
        seen = True
        inner = job.inner("spec")
        found = (inner.take("template", {}), inner.at("template"))
        inner.ignore("backoffLimit", "completionMode", "parallelism", "completions")
        inner.rest()
        job.rest()
        each.ignore("replicas")
        each.left({"dependsOn": "there is nothing else to wait for"})
        each.rest()
    if not seen:
        notes.refuse(spec.path, f"has no replicatedJob {_CONTAINER!r}")
    spec.left({"volumeClaimPolicies": "no claim is made: make one, and name it in podTemplate"})
    spec.ignore("network", "successPolicy", "failurePolicy", "startupPolicy")
    spec.rest()
    return found


def _node(template: Json) -> Json:
    """The container that trains, in a template; made where there is none."""
    containers = template.setdefault("spec", {}).setdefault("containers", [])
    for each in containers:
        if each.get("name") == _CONTAINER:
            found: Json = each
            return found
    containers.append({"name": _CONTAINER})
    made: Json = containers[-1]
    return made


def _merged(template: Json, patch: Any, path: str, notes: Notes) -> Json:
    try:
        found: Json = merge(template, patch)
        return found
    except InvalidTemplate as error:
        notes.refuse(path, str(error))
        return template


def _patched(template: Json, spec: Fields, notes: Notes) -> Json:
    """spec.runtimePatches, and what they were called before: podTemplateOverrides, podSpecOverrides."""
    made: Json = merge({}, template)
    for patch in spec.items("runtimePatches"):
        patch.ignore("manager", "time")
        jobset = patch.inner("trainingRuntimeSpec").inner("template")
        jobset.left({"metadata": "labels and annotations of the JobSet, which there is none of"})
        for each in jobset.inner("spec").items("replicatedJobs"):
            if each.take("name") != _CONTAINER:
                notes.refuse(each.path, "patches another job than that of the nodes")
                continue
            job = each.inner("template")
            job.left({"metadata": "labels and annotations of a Job, which there is none of"})
            inner = job.inner("spec")
            made = _merged(made, inner.take("template", {}), inner.at("template"), notes)
            inner.rest()
    for key in ("podTemplateOverrides", "podSpecOverrides"):
        for override in spec.items(key):
            targets = [each.get("name") for each in override.take("targetJobs", [])]
            if _CONTAINER not in targets:
                notes.refuse(override.path, "is for other jobs than that of the nodes")
                continue
            node = {part: override.take(part) for part in ("metadata", "spec")} if key == "podTemplateOverrides" else {}
            patch_ = {part: value for part, value in node.items() if value} or {"spec": override.all()}
            made = _merged(made, patch_, override.path, notes)
            override.rest()
    return made


def _with_trainer(template: Json, trainer: Fields, notes: Notes) -> Json:
    """spec.trainer over the runtime's container."""
    node: Json = {"name": _CONTAINER}
    for ours, theirs in (("command", "command"), ("args", "args"), ("resources", "resourcesPerNode")):
        value = trainer.take(theirs)
        if value is not None:
            node[ours] = value
    _node(template).update({key: value for key, value in node.items() if key != "name"})
    if env := trainer.take("env"):
        template = _merged(
            template, {"spec": {"containers": [{"name": _CONTAINER, "env": env}]}}, trainer.at("env"), notes
        )
    return template


def _sized(policy: Fields, trainer: Fields, plan: Plan, notes: Notes) -> None:
    nodes = policy.whole("numNodes")
    plan.workers = trainer.whole("numNodes") or nodes or 1
    processes = trainer.take("numProcPerNode")
    torch = policy.inner("torch")
    processes = torch.take("numProcPerNode") if processes is None else processes
    if processes is not None and str(processes).isdecimal():
        plan.per_worker = int(processes)
    elif processes not in (None, "auto", "gpu", "cpu"):
        notes.refuse(trainer.at("numProcPerNode"), f"{processes!r} is no number")
    elastic = torch.inner("elasticPolicy")
    if elastic:
        low, high = elastic.whole("minNodes", 1), elastic.whole("maxNodes", 1)
        plan.elastic = (low or plan.workers, high or plan.workers)
        plan.max_restarts = elastic.whole("maxRestarts")
        elastic.left(
            {"metrics": "no autoscaler is made; one of your own can scale the TrainingJob (kubectl autoscale)"}
        )
        elastic.rest()
    torch.rest()
    policy.refused(
        {key: f"the runtime is for {what}, not for PyTorch under torchrun" for key, what in _FOREIGN.items()}
    )
    policy.rest()
