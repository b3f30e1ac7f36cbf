"""PURE: what of a pod template becomes image, command and GPUs of a TrainingJob, and what its podTemplate?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.constants import ENV_PREFIX, GROUP, WORKER_CONTAINER
from drivetrain_cli.convert.fields import Fields, Json, Notes, listed, words
from drivetrain_cli.convert.launchers import Launch, Unreadable, read

_NVIDIA: Final = "nvidia.com/gpu"
_ACCELERATOR: Final = re.compile(r"(.*/)(gpu|gaudi|mig-[\w.]+|xpu|npu|tpu|i915|xe|Ascend\d+\w*)$")
_OURS: Final = re.compile(
    r"(RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|NODE_RANK|NNODES|"
    r"NPROC_PER_NODE|PET_\w+|TORCHELASTIC_\w+)$"
)
_OF_A_JOB: Final = re.compile(r"^(training\.kubeflow\.org|batch\.kubernetes\.io|job-name$|controller-uid$|jobset\.)")
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_INDEX: Final = re.compile(r"job-completion-index|JOB_COMPLETION_INDEX")


@dataclass(slots=True)
class Pod:
    """What a template says, ours apart from the rest."""

    image: str = ""
    command: list[str] = field(default_factory=list)
    launch: Launch = field(default_factory=lambda: Launch(()))
    gpus: int = 0
    gpu_resource: str = _NVIDIA
    cpus: float | None = None
    """Of resources.requests, else limits."""
    per_worker: int | None = None
    """PET_NPROC_PER_NODE, where the template itself sets it."""
    template: Json = field(default_factory=dict)


def pod_of(template: Fields, names: Sequence[str], notes: Notes, *, command: list[str] | None = None) -> Pod:
    """`names` of the container that trains, likeliest first; else it is the only one. `command`: where the image's own
    is meant."""
    made = Pod()
    metadata = template.inner("metadata")
    for kind in ("labels", "annotations"):
        if kept := kept_words(metadata.take(kind, {}), metadata.at(kind), notes):
            made.template.setdefault("metadata", {})[kind] = kept
    metadata.ignore("creationTimestamp", "name", "namespace", "generateName")
    metadata.rest()
    spec = template.inner("spec")
    template.rest()
    containers = spec.items("containers")
    main, sidecars = _main(containers, names, spec.at("containers"), notes)
    worker = _container(main, made, notes, command) if main is not None else {"name": WORKER_CONTAINER}
    spec.ignore("restartPolicy")
    pod = spec.all()
    if pod.get("schedulerName", "default-scheduler") != "default-scheduler":
        notes.tell(spec.at("schedulerName"), "is carried over, but nothing tells that scheduler which pods are a gang")
    _same_user(pod)
    if not {"runAsUser"} & {*(pod.get("securityContext") or {}), *(worker.get("securityContext") or {})}:
        notes.tell(
            spec.at("securityContext"),
            "says no runAsUser: workers run as user 1000, whatever the image says, and may not write where only its "
            "user may",
        )
    if "serviceAccountName" in pod:  # whose token Kubernetes mounts, and Drivetrain only where it is asked to
        pod.setdefault("automountServiceAccountToken", True)
    others = [_other(each, notes) for each in sidecars]
    if len(worker) > 1 or others:
        pod["containers"] = [*([worker] if len(worker) > 1 else []), *others]
    if pod:
        made.template["spec"] = pod
    return made


def kept_words(given: Any, path: str, notes: Notes) -> Json:
    """Labels or annotations, without those of their former operator."""
    if not isinstance(given, dict):
        notes.refuse(path, "must be an object")
        return {}
    kept = {}
    for key, value in given.items():
        if str(key).startswith(f"{GROUP}/"):
            notes.refuse(f"{path}[{key}]", f"{GROUP}/ is Drivetrain's own")
        elif key == _APPLIED or _OF_A_JOB.match(str(key)):
            continue
        else:
            kept[str(key)] = value
    return kept


def _main(
    containers: list[Fields], names: Sequence[str], path: str, notes: Notes
) -> tuple[Fields | None, list[Fields]]:
    named = {each._left.get("name"): each for each in containers}
    main = next((named[name] for name in names if name in named), containers[0] if len(containers) == 1 else None)
    if main is None:
        found = listed(str(name) for name in named) or "none"
        notes.refuse(path, f"which of its containers trains? It has {found}; wanted is {' or '.join(names) or 'one'}")
    return main, [each for each in containers if each is not main]


def _other(container: Fields, notes: Notes) -> Json:
    found = container.all()
    if found.get("name") == WORKER_CONTAINER:
        notes.refuse(container.path, f"a container named {WORKER_CONTAINER} is Drivetrain's own: rename this one")
    notes.tell(
        container.path, f"container {found.get('name')} is carried over as it is: see that it ends with the training"
    )
    return found


def _container(main: Fields, made: Pod, notes: Notes, command: list[str] | None) -> Json:
    worker: Json = {"name": WORKER_CONTAINER}
    main.ignore("name", "restartPolicy", "terminationMessagePath", "terminationMessagePolicy")
    made.image = str(main.take("image", ""))
    if not made.image:
        notes.refuse(main.at("image"), "is not set")
    env, literal = _env(main, made, notes)
    _command(main, made, notes, command, literal)
    env += [{"name": name, "value": value} for name, value in made.launch.environment.items()]
    if env:
        worker["env"] = env
    if made.launch.folder is not None:
        worker["workingDir"] = made.launch.folder
    if resources := _resources(main, made, notes):
        worker["resources"] = resources
    if main.take("readinessProbe"):
        notes.tell(main.at("readinessProbe"), "left out: a worker is ready while it takes part in training")
    ports = [each for each in main.take("ports", []) if each.get("name") != "pytorchjob-port"]
    policy = main.take("imagePullPolicy")
    if policy is None and (":" not in made.image.rpartition("/")[2] or made.image.endswith(":latest")):
        policy = "Always"  # which Kubernetes means there, and Drivetrain does not
    worker |= {"ports": ports} if ports else {}
    worker |= {"imagePullPolicy": policy} if policy else {}
    folder = worker.get("workingDir")
    worker |= main.all()
    if folder is not None:
        worker["workingDir"] = folder
    _same_user(worker)
    return worker


def _same_user(node: Json) -> None:
    """Drivetrain's pods are not root, and say so: whoever asks for root must say that, too."""
    security = node.get("securityContext")
    if isinstance(security, dict) and security.get("runAsUser") == 0 and "runAsNonRoot" not in security:
        node["securityContext"] = {**security, "runAsNonRoot": False}
    if isinstance(security, dict) and security.get("privileged") and "allowPrivilegeEscalation" not in security:
        node["securityContext"] = {**node["securityContext"], "allowPrivilegeEscalation": True}


def _env(main: Fields, made: Pod, notes: Notes) -> tuple[list[Json], dict[str, str]]:
    kept: list[Json] = []
    literal: dict[str, str] = {}
    for number, each in enumerate(main.take("env", [])):
        path = f"{main.at('env')}[{number}]"
        name = str(each.get("name", ""))
        if each.get("value") is not None:
            literal[name] = str(each["value"])
        if name.startswith(ENV_PREFIX):
            notes.refuse(path, f"{name}: {ENV_PREFIX}* is Drivetrain's own")
        elif name == "PET_NPROC_PER_NODE" and literal.get(name, "").isdecimal():
            made.per_worker = int(literal[name])
        elif _OURS.match(name):
            notes.tell(path, f"{name} is left out: Drivetrain sets what torchrun sets, for each rank")
        elif _INDEX.search(str(each.get("valueFrom") or "")):
            notes.refuse(path, f"{name} is the pod's completion index, which workers have not: read GROUP_RANK instead")
        else:
            kept.append(each)
    return kept, literal


def _command(main: Fields, made: Pod, notes: Notes, instead: list[str] | None, literal: dict[str, str]) -> None:
    path = main.at("command")
    given, args = words(notes, path, main.take("command")), words(notes, main.at("args"), main.take("args"))
    first = given or instead
    if not first:
        notes.refuse(
            path,
            "is not set, so the image's own ENTRYPOINT runs, which is not known here: give it with --command "
            f"'python train.py'{' (args are added to it)' if args else ''}",
        )
        return
    try:
        made.launch = read([*first, *(args or [])], literal)
    except Unreadable as error:
        notes.refuse(path, str(error))
        return
    made.command = list(made.launch.command)
    if made.launch.unused:
        notes.tell(path, f"{listed(dict.fromkeys(made.launch.unused))}: left out, machines and ranks are the job's")
    if made.launch.opaque:
        notes.tell(path, "a shell line that is carried over as it is: it runs once for each rank")
    if _INDEX.search(" ".join(made.command)):
        notes.refuse(path, "uses the pod's completion index, which workers have not: use GROUP_RANK instead")
    too_long = [word for word in made.command if len(word) > 4096]
    if too_long or len(made.command) > 128:
        notes.refuse(
            path,
            "has a word of more than 4096 characters, or more than 128 words: put the code into a file, in the image "
            "or with drivetrain run",
        )


def _resources(main: Fields, made: Pod, notes: Notes) -> Json:
    given = main.inner("resources")
    kept: Json = {}
    counts: dict[str, str] = {}
    for kind in ("limits", "requests"):
        amounts = given.take(kind, {})
        rest = {}
        for name, amount in amounts.items():
            if _ACCELERATOR.match(str(name)):
                counts.setdefault(str(name), str(amount))
            else:
                rest[name] = amount
                if name == "cpu" and (kind == "requests" or made.cpus is None):
                    made.cpus = _cpus(str(amount))
        if rest:
            kept[kind] = rest
    kept |= given.all()
    if len(counts) > 1:
        notes.refuse(given.path, f"asks for several kinds of accelerators ({listed(counts)}); spec.gpuResource is one")
    for name, amount in counts.items():
        if amount.isdecimal():
            made.gpus, made.gpu_resource = int(amount), name
        else:
            notes.refuse(given.path, f"{name}: {amount!r} is no whole number")
    return kept


def _cpus(amount: str) -> float | None:
    try:
        return float(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)
    except ValueError:
        return None
