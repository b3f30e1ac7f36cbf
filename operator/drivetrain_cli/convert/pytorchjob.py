"""PURE: Kubeflow's PyTorchJob (kubeflow.org/v1). Master and workers must be alike: a TrainingJob has one kind."""

from __future__ import annotations

from typing import Final

from drivetrain_cli.convert.fields import Fields, Json, Notes
from drivetrain_cli.convert.job import Asked, Plan, metadata_of, same, training_job
from drivetrain_cli.convert.pods import Pod, pod_of

_KINDS: Final = ("Master", "Worker")
_CONTAINER: Final = ("pytorch",)


def convert(manifest: Json, notes: Notes, asked: Asked) -> Json:
    """The TrainingJob."""
    fields = Fields(manifest, "", notes)
    metadata = metadata_of(fields, notes, asked)
    spec = fields.inner("spec")
    plan = Plan(Pod())
    _replicas(spec.inner("pytorchReplicaSpecs"), plan, notes, asked)
    processes = spec.take("nprocPerNode")
    plan.where |= {"per_worker": spec.at("nprocPerNode"), "workers": spec.at("pytorchReplicaSpecs")}
    if processes is not None and str(processes) not in ("auto", "gpu", "cpu"):
        plan.per_worker = int(processes) if str(processes).isdecimal() else None
        if plan.per_worker is None:
            notes.refuse(spec.at("nprocPerNode"), f"{processes!r} is no number")
    _elastic(spec.inner("elasticPolicy"), plan, notes)
    _policy(spec.inner("runPolicy"), plan, notes)
    spec.rest()
    fields.rest()
    return training_job(plan, metadata, notes)


def _replicas(given: Fields, plan: Plan, notes: Notes, asked: Asked) -> None:
    templates: dict[str, Json] = {}
    total = 0
    for kind in _KINDS:
        raw = given.take(kind)
        if raw is None:
            continue
        replica = Fields(raw, given.at(kind), notes)
        count = replica.whole("replicas")
        total += 1 if count is None else count
        policy = replica.take("restartPolicy")
        if policy == "Never":
            plan.max_restarts = 0
        elif policy == "ExitCode":
            notes.tell(
                replica.at("restartPolicy"),
                "ExitCode: there, exit codes up to 127 end the job at once; here each failure counts against "
                "recovery.maxRestarts",
            )
        template = replica.take("template", {})
        templates[kind] = template
        replica.rest()
    given.rest()
    if not templates:
        notes.refuse(given.path, "has neither Master nor Worker")
        return
    plan.workers = max(1, total)
    one, *others = [template.get("spec") for template in templates.values()]
    if others and (where := same(one, others[0])) is not None:
        notes.refuse(
            f"{given.path}.Worker.template.spec{where}",
            "differs from that of Master; all workers of a TrainingJob are alike, rank 0 among them",
        )
    kind = "Worker" if "Worker" in templates else "Master"
    path = f"{given.path}.{kind}.template"
    plan.pod = pod_of(Fields(templates[kind], path, notes), _CONTAINER, notes, command=asked.command)
    plan.where["command"] = f"{path}.spec.containers"


def _elastic(policy: Fields, plan: Plan, notes: Notes) -> None:
    if not policy:
        return
    low, high = policy.whole("minReplicas", 1), policy.whole("maxReplicas", 1)
    plan.elastic = (low or plan.workers, high or max(plan.workers, low or 0))
    plan.per_worker = policy.whole("nProcPerNode", 1) or plan.per_worker
    restarts = policy.whole("maxRestarts")
    plan.max_restarts = restarts if restarts is not None else plan.max_restarts
    policy.ignore("rdzvBackend", "rdzvPort", "rdzvHost", "rdzvId", "rdzvConf", "standalone")
    policy.left({"metrics": "no autoscaler is made; one of your own can scale the TrainingJob (kubectl autoscale)"})
    policy.rest()


def _policy(policy: Fields, plan: Plan, notes: Notes) -> None:
    plan.ttl = policy.whole("ttlSecondsAfterFinished")
    plan.deadline = policy.whole("activeDeadlineSeconds", 1)
    plan.suspend = bool(policy.take("suspend", False))
    limit = policy.whole("backoffLimit")
    if plan.max_restarts is None:
        plan.max_restarts = limit
    scheduling = policy.inner("schedulingPolicy")
    if priority := scheduling.take("priorityClass"):
        plan.pod.template.setdefault("spec", {}).setdefault("priorityClassName", priority)
    scheduling.left(
        {
            "minAvailable": "no gang scheduler is used; workers that cannot start yet are waited for",
            "queue": "no gang scheduler is used; workers that cannot start yet are waited for",
            "minResources": "no gang scheduler is used",
            "scheduleTimeoutSeconds": "workers that cannot start yet are waited for",
        }
    )
    scheduling.rest()
    if policy.take("managedBy") not in (None, "kubeflow.org/training-operator"):
        notes.tell(policy.at("managedBy"), "left out: Drivetrain's operator looks after the job")
    if (clean := policy.take("cleanPodPolicy")) is not None:
        notes.tell(
            policy.at("cleanPodPolicy"),
            f"{clean}: left out; the job's status keeps what failed, and pods go with the job at the latest",
        )
    policy.rest()
