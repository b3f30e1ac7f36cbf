"""PURE: how does a script become a job? A ConfigMap with the script, and a TrainingJob that runs it.

Modules that lie beside the script and are imported by it travel along, because people split scripts. Packages and data
do not: they belong into an image.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from drivetrain_api.constants import API_VERSION, KIND, WORKER_CONTAINER
from drivetrain_api.rules import MAX_NAME, violations
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.errors import UsageError

Json = dict[str, Any]
MAX_BYTES: Final = 900_000
"""A ConfigMap holds 1 MiB; the rest is for its metadata and JSON's escapes."""
ARGUMENTS_MOUNT: Final = "/opt/drivetrain/script"
"""Where a script with arguments is: spec.script takes none, so it is a command like any other."""

FLAGS: Final[Mapping[str, str]] = {
    "image": "--image",
    "workers": "--workers",
    "elastic": "--elastic",
    "elastic.minWorkers": "--elastic",
    "elastic.maxWorkers": "--elastic",
    "gpusPerWorker": "--gpus",
    "processesPerWorker": "--processes-per-worker",
    "runtime": "--runtime",
    "training.steps": "--steps",
    "training.seed": "--seed",
    "training.batch.global": "--batch",
    "training.batch.microbatches": "--microbatches",
    "training.clipNorm": "--clip-norm",
    "recovery.spares": "--spares",
    "recovery.maxRestarts": "--max-restarts",
    "command": "the script's arguments",
    "script.configMap": "--name",
    "script.key": "the script's file name",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the flags of `drivetrain run` say. None: the API's default."""

    name: str
    files: Mapping[str, str]
    """Script and modules by file name; the script comes first."""
    image: str = "drivetrain-worker"
    arguments: Sequence[str] = ()
    workers: int = 1
    elastic: tuple[int, int] | None = None
    gpus: int | None = None
    processes_per_worker: int | None = None
    runtime: str | None = None
    steps: int | None = None
    seed: int | None = None
    batch: int | None = None
    microbatches: int | None = None
    clip_norm: float | None = None
    deterministic: bool | None = None
    spares: int | None = None
    max_restarts: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def objects(wish: Wish, namespace: str) -> tuple[Json, Json]:
    """(ConfigMap, TrainingJob). Raises UsageError that names the flag."""
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{wish.name}-script", "namespace": namespace},
        "data": dict(wish.files),
    }
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": wish.name, "namespace": namespace},
        "spec": _spec(wish),
    }
    try:
        TrainingJobSpec.model_validate(job["spec"])
    except ValidationError as error:
        raise UsageError("; ".join(_explained(e["loc"], e["msg"]) for e in error.errors())) from error
    if broken := violations(job):
        raise UsageError("; ".join(_with_flags(message) for message in broken))
    return config_map, job


def default_name(script: Path, suffix: str) -> str:
    """A valid job name after the script's, e.g. train-4f8k2."""
    stem = re.sub(r"[^a-z0-9]+", "-", script.stem.lower()).strip("-")
    stem = stem if stem[:1].isalpha() else f"job-{stem}".rstrip("-")
    return f"{stem[: MAX_NAME - len(suffix) - 1].rstrip('-')}-{suffix}"


def read(script: Path) -> dict[str, str]:
    """The script and the modules beside it that it imports, by file name. Raises UsageError."""
    files: dict[str, str] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop(0)
        if path.name in files:
            continue
        try:
            files[path.name] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        if not re.fullmatch(r"[-._a-zA-Z0-9]+", path.name):
            raise UsageError(f"{path.name}: a ConfigMap's key has only letters, digits, '-', '_' and '.': rename it")
        for module in sorted(_imported(path, files[path.name])):
            beside = script.parent / f"{module}.py"
            if beside.is_file():
                waiting.append(beside)
    size = sum(len(text.encode()) for text in files.values())
    if size > MAX_BYTES:
        raise UsageError(f"{', '.join(files)}: {size} bytes, a ConfigMap takes {MAX_BYTES}; put them into --image")
    return files


def _imported(path: Path, text: str) -> set[str]:
    """Top-level names that a file imports."""
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}") from error
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _spec(wish: Wish) -> Json:
    script = next(iter(wish.files))
    training = {
        "steps": wish.steps,
        "seed": wish.seed,
        "batch": _given({"global": wish.batch, "microbatches": wish.microbatches}),
        "clipNorm": wish.clip_norm,
        "deterministic": wish.deterministic,
    }
    recovery = {"spares": wish.spares, "maxRestarts": wish.max_restarts}
    spec: Json = {
        "image": wish.image,
        "runtime": wish.runtime,
        "workers": wish.workers,
        "elastic": None if wish.elastic is None else {"minWorkers": wish.elastic[0], "maxWorkers": wish.elastic[1]},
        "gpusPerWorker": wish.gpus,
        "processesPerWorker": wish.processes_per_worker,
        "training": _given(training),
        "recovery": _given(recovery),
    }
    container: Json = {"name": WORKER_CONTAINER}
    pod: Json = {"containers": [container]}
    if wish.arguments:
        spec["command"] = ["python", f"{ARGUMENTS_MOUNT}/{script}", *wish.arguments]
        container["volumeMounts"] = [{"name": "script", "mountPath": ARGUMENTS_MOUNT, "readOnly": True}]
        pod["volumes"] = [{"name": "script", "configMap": {"name": f"{wish.name}-script"}}]
    else:
        spec["script"] = {"configMap": f"{wish.name}-script", "key": script}
    if wish.environment:
        container["env"] = [{"name": name, "value": value} for name, value in wish.environment.items()]
    if len(container) > 1:
        spec["podTemplate"] = {"spec": pod}
    return _given(spec)


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
