"""PURE: which volumes does a worker have for snapshots and for results?

A Secret is mounted, not put into the environment: so it can change while workers run, which never restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_api.constants import (
    SNAPSHOTS_MOUNT,
    SNAPSHOTS_SECRET_MOUNT,
    STORAGE_MOUNT,
    STORAGE_SECRET_MOUNT,
)
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.storage import Storage
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.reserved import (
    SNAPSHOTS_SECRET_VOLUME,
    SNAPSHOTS_VOLUME,
    STORAGE_SECRET_VOLUME,
    STORAGE_VOLUME,
)


@dataclass(frozen=True, slots=True)
class _Place:
    """What belongs to one field of the spec that is a `Storage`."""

    volume: str
    mount: str
    secret_volume: str
    secret_mount: str
    copied: bool = False
    """With a URL there is a folder, too: an empty one, whose files are copied there."""

    def volumes(self, storage: Storage) -> list[Json]:
        found: list[Json] = []
        if storage.persistent_volume_claim is not None:
            claim = {"claimName": storage.persistent_volume_claim}
            found.append({"name": self.volume, "persistentVolumeClaim": claim})
        elif storage.url is not None and self.copied:
            found.append({"name": self.volume, "emptyDir": {}})
        if storage.secret_name is not None:
            secret = {"secretName": storage.secret_name, "defaultMode": 0o440}
            found.append({"name": self.secret_volume, "secret": secret})
        return found

    def mounts(self, storage: Storage) -> list[Json]:
        named = {volume["name"] for volume in self.volumes(storage)}
        found: list[Json] = []
        if self.volume in named:
            found.append({"name": self.volume, "mountPath": self.mount})
        if self.secret_volume in named:
            found.append({"name": self.secret_volume, "mountPath": self.secret_mount, "readOnly": True})
        return found


_SNAPSHOTS: Final = _Place(SNAPSHOTS_VOLUME, SNAPSHOTS_MOUNT, SNAPSHOTS_SECRET_VOLUME, SNAPSHOTS_SECRET_MOUNT)
_RESULTS: Final = _Place(STORAGE_VOLUME, STORAGE_MOUNT, STORAGE_SECRET_VOLUME, STORAGE_SECRET_MOUNT, copied=True)


def storage_volumes(spec: TrainingJobSpec) -> list[Json]:
    """Of the pod."""
    return [volume for place, storage in _places(spec) for volume in place.volumes(storage)]


def storage_mounts(spec: TrainingJobSpec) -> list[Json]:
    """Of its container."""
    return [mount for place, storage in _places(spec) for mount in place.mounts(storage)]


def _places(spec: TrainingJobSpec) -> list[tuple[_Place, Storage]]:
    found = []
    if spec.snapshots is not None:
        found.append((_SNAPSHOTS, spec.snapshots.storage))
    if spec.storage is not None:
        found.append((_RESULTS, spec.storage))
    return found
