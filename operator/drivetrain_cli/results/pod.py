"""PURE: where do a job's results lie, and which pod sees them? One like its workers, that waits to be asked.

What reads a folder is sent along as text, so that it works in any image that has a Python. What reads a URL is the
runtime's own storage layer, in the worker's image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from drivetrain_api.resolve import to_runtime_storage
from drivetrain_api.runtime import RuntimeStorage
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.looker import Look, like_a_worker, looker
from drivetrain_cli.results import reader
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.render.names import own_folder

Json = dict[str, Any]
_SECONDS: Final = 6 * 3600
_RESOURCES: Final[Json] = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}
_SCRATCH: Final = ("/tmp/", "/dev/shm/")
_READER: Final = "DRIVETRAIN_READER"
_TEXT: Final = Path(reader.__file__)
_WAITS: Final = f"import time; time.sleep({_SECONDS})"


def place_of(job: Json) -> RuntimeStorage:
    """Raises UsageError if the job has none, CliError if that cannot be known."""
    view = job_view(job)
    if view.spec is None:
        raise CliError(f"the spec of job {view.name} cannot be used: {'; '.join(view.invalid)}")
    place = to_runtime_storage(view.spec.storage, own_folder(view))
    if place is None:
        raise UsageError(
            f"job {view.name} has no storage: what it wrote went with its pods, unless its script put it elsewhere. "
            "Set spec.storage (a PersistentVolumeClaim or a URL) in the next one: docs/results.md"
        )
    return place


def asked(place: RuntimeStorage) -> list[str]:
    """The command of its reader, in a pod that has its text; what is asked goes before the last word."""
    if place.url is not None:
        return ["python3", "-m", "drivetrain.results", place.url]
    return ["sh", "-c", f'exec python3 -c "${_READER}" "$@"', "sh", place.folder]


def told(place: RuntimeStorage, words: Sequence[str]) -> list[str]:
    """The command of a pod that answers one question and ends; the place goes after the first word."""
    if place.url is not None:
        return ["python3", "-m", "drivetrain.results", words[0], place.url, *words[1:]]
    # What is below a pod's scratch volumes is this machine's where pods are processes; two slashes are no mount's.
    folder = f"/{place.folder}" if place.folder.startswith(_SCRATCH) else place.folder
    return ["python3", "-c", _TEXT.read_text(), words[0], folder, *words[1:]]


def pod(job: Json, worker: Json | None, suffix: str, command: Sequence[str] = ()) -> Json:
    """Body of the POST. `worker`: one of the job's, if there is any. Without a command it stands and waits.
    Raises CliError if that cannot be."""
    waits = ["python3", "-c", _WAITS]
    environment = {} if command else {_READER: _TEXT.read_text()}
    url = not command and bool((job["spec"].get("storage") or {}).get("url"))  # what reads one is ours
    look = Look("results", suffix, command or waits, _RESOURCES, _SECONDS, environment=environment)
    return looker(job, like_a_worker(job, worker, ours=url), look)
