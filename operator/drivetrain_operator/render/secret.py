"""PURE: the Secrets with which the parts of one job prove to each other who they are."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from drivetrain_api.constants import LABEL_TERM, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_operator.plan.effects import CreateSecret, SecretKind
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, job_labels, metadata


def secret(job: JobView, effect: CreateSecret, data: Mapping[str, bytes]) -> Json:
    """Body of the POST. `data` are the files that `SecretKind` promises; immutable, so kubelets need not watch it."""
    worker = effect.kind is SecretKind.WORKER
    labels = job_labels(job, ROLE_WORKER if worker else ROLE_COORDINATOR)
    if not worker:
        labels[LABEL_TERM] = str(effect.term)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, effect.name, labels, effect.owner),
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode("ascii") for key, value in data.items()},
    }
