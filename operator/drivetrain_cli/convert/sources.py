"""PURE: which documents of some YAML files are jobs, and which file here knows their kind?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_cli.convert import batchjob, pytorchjob, rayjob, trainjob
from drivetrain_cli.convert.fields import Json, Notes
from drivetrain_cli.convert.job import Asked

_WITHOUT_RUNTIME: Final[dict[tuple[str, str], Callable[[Json, Notes, Asked], Json]]] = {
    ("kubeflow.org", "PyTorchJob"): pytorchjob.convert,
    ("batch", "Job"): batchjob.convert,
    ("ray.io", "RayJob"): rayjob.convert,
}
_TRAIN_JOB: Final = (trainjob.GROUP, "TrainJob")
KINDS: Final = ("PyTorchJob", "TrainJob", "RayJob", "Job")
_JOBS_OF_OTHERS: Final = ("TFJob", "MPIJob", "XGBoostJob", "PaddleJob", "JAXJob", "MXJob", "JobSet", "RayCluster",
                          "LeaderWorkerSet", "CronJob", "SparkApplication")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Converted:
    """What has become of one document."""

    source: str
    """Such as `PyTorchJob mnist`."""
    job: Json | None
    """None: refused, or no job at all."""
    notes: Notes
    is_job: bool = True


def convert(documents: Sequence[Any], asked: Asked) -> list[Converted]:
    """One for each document that is not empty, and no runtime that a TrainJob refers to."""
    every = [each for document in documents for each in _items(document)]
    runtimes = [each for each in every if isinstance(each, dict) and each.get("kind") in trainjob.RUNTIMES]
    return [_one(each, asked, runtimes) for each in every if each not in runtimes]


def _items(document: Any) -> list[Any]:
    """`kubectl get -o yaml` prints several as a List."""
    if isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document:
        return list(document["items"] or [])
    return [] if document is None else [document]


def _one(document: Any, asked: Asked, runtimes: Sequence[Json]) -> Converted:
    notes = Notes(asked.drop)
    if not isinstance(document, dict) or "kind" not in document:
        notes.refuse("kind", "is not set: this is no Kubernetes object")
        return Converted("a document", None, notes)
    kind, group = str(document["kind"]), str(document.get("apiVersion", "")).partition("/")[0]
    meta = document.get("metadata")
    source = f"{kind} {meta.get('name', '') if isinstance(meta, dict) else ''}".rstrip()
    known = _WITHOUT_RUNTIME.get((group, kind))
    if known is not None or (group, kind) == _TRAIN_JOB:
        try:
            job = known(document, notes, asked) if known else trainjob.convert(document, notes, asked, runtimes)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            notes.refuse("spec", f"is not built as a {kind} is: {error}")
            job = None
    elif kind in _JOBS_OF_OTHERS or kind in KINDS:
        notes.refuse("kind", f"{document.get('apiVersion')} {kind} cannot be converted; {', '.join(KINDS)} can")
        return Converted(source, None, notes)
    else:
        return Converted(source, None, notes, is_job=False)
    return Converted(source, None if notes.refused else job, notes)
