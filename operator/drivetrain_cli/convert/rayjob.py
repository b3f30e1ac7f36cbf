"""PURE: KubeRay's RayJob. Its entrypoint talks to Ray, which starts the ranks: so it is refused, unless the user says
that the script does without Ray now (--without-ray). Then workers, their pods and the entrypoint are carried over."""

from __future__ import annotations

import shlex
from typing import Any, Final

import yaml

from drivetrain_cli.convert.aliases import check_size
from drivetrain_cli.convert.fields import Fields, Json, Notes, listed
from drivetrain_cli.convert.job import Asked, Plan, metadata_of, training_job
from drivetrain_cli.convert.pods import pod_of

_NEEDS_RAY: Final = (
    "runs once, on the head, and Ray starts the ranks from inside of it (TorchTrainer): as a TrainingJob each rank "
    "would run it. Make the body of train_loop_per_worker a script, without ray.init, TorchTrainer and "
    "ray.train.report; then convert with --without-ray"
)
_SUBMIT: Final = ("ray", "job", "submit")


def convert(manifest: Json, notes: Notes, asked: Asked) -> Json:
    """The TrainingJob."""
    fields = Fields(manifest, "", notes)
    metadata = metadata_of(fields, notes, asked)
    spec = fields.inner("spec")
    entrypoint = str(spec.take("entrypoint", ""))
    if not asked.without_ray:
        notes.refuse(spec.at("entrypoint"), f"{entrypoint!r} {_NEEDS_RAY}")
    command = asked.command or _command(entrypoint, spec.at("entrypoint"), notes)
    cluster = spec.inner("rayClusterSpec")
    groups = cluster.items("workerGroupSpecs")
    if len(groups) != 1:
        notes.refuse(
            cluster.at("workerGroupSpecs"), f"{len(groups)} groups; the workers of a TrainingJob are all alike"
        )
    group = groups[0] if groups else Fields(None, cluster.at("workerGroupSpecs"), notes)
    template: Json = group.take("template", {})
    for container in (template.get("spec") or {}).get("containers", [])[:1]:
        container.pop("command", None)  # KubeRay runs `ray start` there
        container.pop("args", None)
        container["command"] = command
        container["env"] = [*container.get("env", []), *_environment(spec, notes)]
    names = [str(each.get("name")) for each in (template.get("spec") or {}).get("containers", [])[:1]]
    plan = Plan(pod_of(Fields(template, group.at("template"), notes), names, notes))
    plan.where = {"workers": group.at("replicas"), "command": spec.at("entrypoint")}
    _sized(group, cluster, plan, notes)
    _head(cluster, notes)
    plan.suspend = bool(spec.take("suspend", False))
    plan.deadline, plan.max_restarts = spec.whole("activeDeadlineSeconds", 1), spec.whole("backoffLimit")
    ends, ttl = spec.take("shutdownAfterJobFinishes"), spec.whole("ttlSecondsAfterFinished")
    plan.ttl = ttl if ends else None
    spec.refused(
        {"clusterSelector": "the job runs in a Ray cluster that is there already; a TrainingJob has its own workers"}
    )
    spec.left(
        {"submitterPodTemplate": "there is nothing to submit to", "submitterConfig": "there is nothing to submit to"}
    )
    spec.ignore("submissionMode", "jobId", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources")
    spec.rest()
    fields.rest()
    return training_job(plan, metadata, notes)


def _command(entrypoint: str, path: str, notes: Notes) -> list[str]:
    try:
        found = shlex.split(entrypoint)
    except ValueError as error:
        notes.refuse(path, str(error))
        return ["false"]
    if tuple(found[:3]) == _SUBMIT:
        found = found[found.index("--") + 1 :] if "--" in found else []
    if not found:
        notes.refuse(path, "runs no program")
        return ["false"]
    if any(sign in entrypoint for sign in ("&&", ";", "|", ">", "<", "$(", "`", "$")):
        return ["sh", "-c", entrypoint]
    return found


def _environment(spec: Fields, notes: Notes) -> list[Json]:
    """Variables of runtimeEnvYAML; what else Ray would have prepared with it is told."""
    path = spec.at("runtimeEnvYAML")
    try:
        text = spec.take("runtimeEnvYAML", "") or ""
        check_size(text)
        given: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        notes.refuse(path, f"is no YAML: {error}")
        return []
    env = Fields(given, path, notes)
    found = [{"name": str(name), "value": str(value)} for name, value in (env.take("env_vars", {}) or {}).items()]
    env.refused(
        {"working_dir": "Ray brings the code from there: put it into the image, or use drivetrain run --folder"}
    )
    env.left(
        dict.fromkeys(
            ("pip", "uv", "conda", "py_modules"),
            "Ray installs that before the job: put it into the image, or use drivetrain run --requirements",
        )
    )
    env.rest()
    return found


def _sized(group: Fields, cluster: Fields, plan: Plan, notes: Notes) -> None:
    replicas, hosts = group.whole("replicas"), group.whole("numOfHosts", 1) or 1
    low, high = group.whole("minReplicas"), group.whole("maxReplicas", 1)
    plan.workers = max(1, (1 if replicas is None else replicas) * hosts)
    if cluster.take("enableInTreeAutoscaling") and high is not None:
        plan.elastic = (max(1, (low or 0) * hosts), high * hosts)
    group.ignore("groupName")
    group.left({"scaleStrategy": "workers that cost least leave", "idleTimeoutSeconds": "workers are never idle"})
    parameters = group.inner("rayStartParams")
    if (gpus := parameters.take("num-gpus")) is not None and str(gpus).isdecimal() and not plan.pod.gpus:
        plan.pod.gpus = int(gpus)
    if left := parameters.all():
        notes.tell(parameters.path, f"{listed(left)}: left out, there is no Ray to start")
    group.rest()


def _head(cluster: Fields, notes: Notes) -> None:
    if cluster.take("headGroupSpec") is not None:
        notes.tell(cluster.at("headGroupSpec"), "left out: there is no head; rank 0 is one of the workers")
    cluster.ignore("rayVersion")
    cluster.left({"autoscalerOptions": "no autoscaler is made; one of your own can scale the TrainingJob"})
    cluster.rest()
