"""Does what is written here outlive the pod? Told by its mounts, so that no volume has to be declared to us.

Gone with the pod are the container's own file system, emptyDir volumes and file systems in memory. What is on anything
else (a claim, a folder of the node, NFS) is taken to stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drivetrain.results.folder import output_folder
from drivetrain_api.constants import ENV_JOB_UID, ENV_POD_ROOT

_MOUNTS: Final = Path("/proc/self/mountinfo")
_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_EMPTY: Final = "kubernetes.io~empty-dir/"
"""In the path of such a volume on its node."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo."""

    at: str
    root: str
    """Which part of its file system is mounted there."""
    kind: str


def what_ends_it(path: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Why a file there is gone with its pod, in a few words; None if it stays, or if this is no pod."""
    if not environ.get(ENV_JOB_UID):
        return None
    path = path.resolve()
    if root := environ.get(ENV_POD_ROOT):
        # A plain process: volumes that go with the pod are beside its root.
        own = Path(root).resolve().parent
        copied = _is_copied(path, environ)
        return "is in a folder that goes with the pod" if path.is_relative_to(own) and not copied else None
    try:
        mounts = parse(_MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return None
    return None if _is_copied(path, environ) else judged(str(path), mounts)


def _is_copied(path: Path, environ: Mapping[str, str]) -> bool:
    """The folder of a URL is copied there."""
    folder = output_folder(environ)
    return folder is not None and path.is_relative_to(folder.resolve())


def parse(text: str) -> list[Mount]:
    """The mounts of /proc/self/mountinfo, in its order."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if len(fields) >= 5:
            found.append(Mount(at=_plain(fields[4]), root=_plain(fields[3]), kind=kind))
    return found


def judged(path: str, mounts: list[Mount]) -> str | None:
    """PURE: the same for an absolute path without links in it."""
    around = [each for each in mounts if each.at == "/" or path == each.at or path.startswith(each.at + "/")]
    if not around:
        return None
    inner = max(reversed(around), key=lambda each: len(each.at))  # of two at one place the later one is seen
    if inner.at == "/":
        return "is in the container's own file system"
    if inner.kind in _MEMORY:
        return f"is in memory ({inner.at})"
    if _EMPTY in inner.root:
        return f"is in an emptyDir volume ({inner.at})"
    return None


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
