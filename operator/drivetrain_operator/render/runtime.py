"""PURE: how does a worker's runtime get into an image that was not made for Drivetrain? (spec.runtimeFrom, ADR 0047)

An init container of the operator's image copies it into a volume of the pod, and the worker's container starts with
what is in there. Nothing is downloaded, built or installed.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import ENV_RUNTIME_FROM, RUNTIME_IN_IMAGE, RUNTIME_MOUNT
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_operator.render import common
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.reserved import RUNTIME_CONTAINER, RUNTIME_VOLUME

_MOUNT: Final[Json] = {"name": RUNTIME_VOLUME, "mountPath": RUNTIME_MOUNT}
STARTS: Final = ("sh", f"{RUNTIME_MOUNT}/launch")
"""What starts the launcher, or, with arguments that do not begin with `--`, Python with our packages."""


def init_container(image: str) -> Json:
    """What of it is ours."""
    return {
        "name": RUNTIME_CONTAINER,
        "image": image,
        "command": ["cp", "-R", f"{RUNTIME_IN_IMAGE}/.", RUNTIME_MOUNT],
        "volumeMounts": [_MOUNT],
    }


def init_defaults() -> Json:
    """What a template may change. Requests are limits, so that a pod whose worker is Guaranteed stays so."""
    resources = {"cpu": "250m", "memory": "128Mi"}
    return {
        "name": RUNTIME_CONTAINER,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {**common.container_security(), "readOnlyRootFilesystem": True},
    }


def volume() -> Json:
    """Of the pod: Python keeps there what it has compiled, so that the next rank need not."""
    return {"name": RUNTIME_VOLUME, "emptyDir": {}}


def mount() -> Json:
    """Of the worker's container."""
    return dict(_MOUNT)


def variables(spec: TrainingJobSpec) -> list[Json]:
    """Of the worker's container."""
    return [common.variable(ENV_RUNTIME_FROM, spec.runtime_from)]
