"""PURE: what objects run this code? A ConfigMap with its files, and a TrainingJob."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from drivetrain_api.constants import API_VERSION, KIND
from drivetrain_api.rules import MAX_NAME, violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack.flags import training_flags
from drivetrain_cli.pack.pods import CODE, PodWish, pod_template
from drivetrain_cli.pack.requirements import Requirements
from drivetrain_cli.pack.sources import Code

Json = dict[str, Any]

FLAGS: Final[Mapping[str, str]] = {
    "image": "--image",
    "workers": "--workers",
    "elastic": "--elastic",
    "elastic.minWorkers": "--elastic",
    "elastic.maxWorkers": "--elastic",
    "gpusPerWorker": "--gpus",
    "processesPerWorker": "--processes-per-worker",
    "runtime": "--runtime",
    "runtimeFrom": "--runtime-from",
    "recovery.spares": "--spares",
    "recovery.maxRestarts": "--max-restarts",
    "snapshots.storage.url": "--snapshots",
    "snapshots.storage.persistentVolumeClaim": "--snapshots",
    "snapshots.storage.path": "--snapshots",
    "snapshots.storage": "--snapshots",
    "storage": "--storage",
    "storage.url": "--storage",
    "storage.persistentVolumeClaim": "--storage",
    "storage.path": "--storage",
    "command": "the script's arguments",
    "script.configMap": "--name",
    "script.key": "the script's file name",
    **{f"training.{each.path}": each.flag for each in training_flags()},
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the flags of `drivetrain run` say. None: the API's default."""

    name: str
    code: Code
    image: str = "drivetrain-worker"
    arguments: Sequence[str] = ()
    workers: int = 1
    elastic: tuple[int, int] | None = None
    gpus: int | None = None
    processes_per_worker: int | None = None
    runtime: str | None = None
    runtime_from: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    """As spec.training."""
    spares: int | None = None
    max_restarts: int | None = None
    snapshots: Mapping[str, Any] | None = None
    """As spec.snapshots."""
    storage: Mapping[str, Any] | None = None
    """As spec.storage."""
    pod: PodWish = field(default_factory=PodWish)
    requirements: Requirements | None = None


def objects(wish: Wish, namespace: str) -> tuple[Json, Json]:
    """(ConfigMap, TrainingJob). Raises UsageError that names the flag."""
    keys = _keys(wish.code)
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": wish.name, "namespace": namespace},
        "spec": _spec(wish, keys),
    }
    try:
        TrainingJobSpec.model_validate(job["spec"])
    except ValidationError as error:
        raise UsageError("; ".join(_explained(e["loc"], e["msg"]) for e in error.errors())) from error
    if broken := violations(job):
        raise UsageError("; ".join(_with_flags(message) for message in broken))
    return _config_map(wish, keys, namespace), job


def default_name(program: Path, suffix: str) -> str:
    """A valid job name after the script's, e.g. train-4f8k2."""
    stem = re.sub(r"[^a-z0-9]+", "-", program.stem.lower()).strip("-")
    stem = stem if stem[:1].isalpha() else f"job-{stem}".rstrip("-")
    return f"{stem[: MAX_NAME - len(suffix) - 1].rstrip('-')}-{suffix}"


def _keys(code: Code) -> dict[str, str]:
    """A ConfigMap's key for each path: it has no '/'."""
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for path in code.files:
        key = base = path.replace("/", "--")[-240:].lstrip(".") or "_"
        number = 2
        while key in taken:
            key, number = f"{base}-{number}", number + 1
        taken.add(key)
        keys[path] = key
    return keys


def _config_map(wish: Wish, keys: Mapping[str, str], namespace: str) -> Json:
    text: dict[str, str] = dict(wish.requirements.files) if wish.requirements is not None else {}
    binary: dict[str, str] = {}
    for path, content in wish.code.files.items():
        try:
            text[keys[path]] = content.decode("utf-8")
        except UnicodeDecodeError:
            binary[keys[path]] = base64.b64encode(content).decode("ascii")
    found: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{wish.name}-script", "namespace": namespace},
        "data": text,
    }
    return {**found, "binaryData": binary} if binary else found


def _spec(wish: Wish, keys: Mapping[str, str]) -> Json:
    spec: Json = {
        "image": wish.image,
        "runtime": wish.runtime,
        "runtimeFrom": wish.runtime_from,
        "workers": wish.workers,
        "elastic": None if wish.elastic is None else {"minWorkers": wish.elastic[0], "maxWorkers": wish.elastic[1]},
        "gpusPerWorker": wish.gpus,
        "processesPerWorker": wish.processes_per_worker,
        "training": wish.training,
        "recovery": _given({"spares": wish.spares, "maxRestarts": wish.max_restarts}),
        "snapshots": wish.snapshots,
        "storage": wish.storage,
    }
    code = wish.code
    # spec.script takes one folder without others in it, and no arguments.
    mounted: Mapping[str, str] = {}
    if code.module is not None:
        spec["command"] = ["python", "-m", code.module, *wish.arguments]
        mounted = keys
    elif wish.arguments or any("/" in path for path in code.files):
        spec["command"] = ["python", f"{CODE}/{code.script}", *wish.arguments]
        mounted = keys
    else:
        spec["script"] = {"configMap": f"{wish.name}-script", "key": keys[code.script or ""]}
    template = pod_template(
        wish.pod, f"{wish.name}-script", mounted, wish.requirements, wish.image, importable=code.module is not None
    )
    return _given({**spec, "podTemplate": template})


def _given(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _explained(location: Sequence[int | str], message: str) -> str:
    path = ".".join(str(part) for part in location if not isinstance(part, int))
    return f"{FLAGS.get(path, f'spec.{path}')}: {message}"


def _with_flags(message: str) -> str:
    """The rules speak of fields; the flag that sets the first one named comes before."""
    for path, flag in sorted(FLAGS.items(), key=lambda item: -len(item[0])):
        if path in message:
            return f"{flag}: {message}"
    return message
