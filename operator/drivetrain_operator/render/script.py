"""PURE: the copy of a job's script that its pods mount."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_operator.plan.effects import CreateScript
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, job_labels, metadata


def script(job: JobView, effect: CreateScript, source: Mapping[str, Any]) -> Json:
    """Body of the POST. `source`: the ConfigMap. Immutable, so kubelets need not watch it."""
    contents = {field: source[field] for field in ("data", "binaryData") if source.get(field)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, effect.name, job_labels(job, ROLE_WORKER)),
        "immutable": True,
        **contents,
    }


def lacks(effect: CreateScript, source: Mapping[str, Any]) -> bool:
    """Whether it has no such key."""
    return not any(effect.key in (source.get(field) or {}) for field in ("data", "binaryData"))
