"""PURE: how do packages that are not in the image get into a job's pods? An init container installs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from drivetrain_api.constants import REQUIREMENTS_CONTAINER
from drivetrain_cli.errors import UsageError

Json = dict[str, Any]
PACKAGES: Final = "/opt/drivetrain/packages"
CACHE: Final = "/opt/drivetrain/packages-cache"
_SOURCE: Final = "/opt/drivetrain/requirements"
_KEYS: Final = {"drivetrain-requirements.txt": "requirements.txt", "drivetrain-install.py": "install.py"}
_MAX_BYTES: Final = 100_000
_STAYS_HERE: Final = re.compile(
    r"^(-r|--requirement|-c|--constraint|-e|--editable)\b|^(\.{1,2}/|/|file:)|@\s*file:"
    r"|^(-f|--find-links)[ =](\.|file:)"
)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is to be installed, and from where."""

    text: str
    """Of a requirements file, as `checked` has let it pass."""
    index_url: str | None = None
    cache: str | None = None
    """A claim that all pods share: they install once."""

    @property
    def files(self) -> Mapping[str, str]:
        """What the ConfigMap has of it, by key."""
        install = resources.files("drivetrain_cli.pack").joinpath("install.py").read_text("utf-8")
        return dict(zip(_KEYS, (self.text, install), strict=True))

    def volumes(self, config_map: str) -> list[Json]:
        """Of the pod."""
        items = [{"key": key, "path": path} for key, path in _KEYS.items()]
        found: list[Json] = [
            {"name": "packages", "emptyDir": {}},
            {"name": "requirements", "configMap": {"name": config_map, "items": items}},
        ]
        if self.cache is not None:
            found.append({"name": "packages-cache", "persistentVolumeClaim": {"claimName": self.cache}})
        return found

    def mount(self) -> Json:
        """Of the worker: written by the init container only. What it points to in the cache is mounted, too."""
        return {"name": "packages", "mountPath": PACKAGES, "readOnly": True}

    def cache_mounts(self) -> list[Json]:
        """Of both."""
        return [{"name": "packages-cache", "mountPath": CACHE}] if self.cache is not None else []

    def container(self, image: str, mounts: list[Json], variables: Mapping[str, Any]) -> Json:
        """The init container, with the worker's environment, so that PIP_INDEX_URL and credentials reach it."""
        command = ["python3", f"{_SOURCE}/install.py", f"{_SOURCE}/requirements.txt", PACKAGES]
        command += ["--cache", CACHE] if self.cache is not None else []
        command += ["--index-url", self.index_url] if self.index_url is not None else []
        own = [
            {"name": "packages", "mountPath": PACKAGES},
            {"name": "requirements", "mountPath": _SOURCE, "readOnly": True},
        ]
        return {
            "name": REQUIREMENTS_CONTAINER,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            **variables,
            "volumeMounts": [*mounts, *own, *self.cache_mounts()],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }


def checked(text: str, name: str) -> str:
    """The text of a requirements file, if it can be installed elsewhere. Raises UsageError."""
    if len(text.encode()) > _MAX_BYTES:
        raise UsageError(f"--requirements: {name} has more than {_MAX_BYTES} bytes")
    for number, line in enumerate(text.splitlines(), 1):
        if _STAYS_HERE.search(line.strip()):
            raise UsageError(
                f"--requirements: {name}:{number}: {line.strip()!r} is a file of this machine, which pods do not have"
            )
    return text
