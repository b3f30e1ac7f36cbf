"""Does an image that was not made for Drivetrain have what the job needs? Asked before anything runs.

The interpreter that will run the script is started once, as ranks will start it, and says what it would find; torch
itself is not imported. What cannot be found out refuses nothing: the script's own error will tell.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from drivetrain.launch.errors import UnfitError
from drivetrain.supported import OLDEST_PYDANTIC, OLDEST_PYTHON, OLDEST_TORCH, torch_range
from drivetrain_api.runtime import RuntimeSpec
from drivetrain_api.tracker_packages import TRACKER_MODULES, missing, told

_LOOK_SECONDS: Final = 60.0
"""A cold image on a slow disk takes its time."""
_RANKS: Final = ("numpy", "fsspec")
"""What `drivetrain.start()` needs beside torch, which brings the second."""
_SNAPSHOTS: Final = ("zstandard", "google_crc32c")
_STORES: Final = {"s3": ("minio", "urllib3"), "webhdfs": ("urllib3",), "swebhdfs": ("urllib3",)}
_ASKED: Final = ("torch", "pydantic", *_RANKS, *_SNAPSHOTS, "minio", "urllib3", *TRACKER_MODULES)

_LOOK: Final = """
import sys
if sys.path and sys.path[0] == "":
    del sys.path[0]  # the working folder, whose files may be called like Python's
import json, os, re
from importlib import metadata, util
def version(name):
    try:
        found = util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        return None
    if name == "torch" and found.origin:
        try:
            with open(os.path.join(os.path.dirname(found.origin), "version.py")) as file:
                return re.search("__version__ = '([^']*)'", file.read()).group(1)
        except (OSError, AttributeError):
            pass
    try:
        return metadata.version(name)
    except Exception:
        return ""
print(json.dumps({"python": sys.version_info[:3], "executable": sys.executable,
                  "path": sys.path, "versions": {name: version(name) for name in sys.argv[1:]}}))
"""
"""Runs in any Python that has f-less strings: an old one is to say how old it is."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an interpreter of the image has."""

    python: tuple[int, ...]
    executable: str
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """By module; None where it is not there, empty where it does not say which it is."""
    path: tuple[str, ...] = ()
    """Where it finds them."""

    def summary(self) -> str:
        """For the log."""
        number = ".".join(str(part) for part in self.python)
        return f"Python {number} ({self.executable}) with torch {self.versions.get('torch') or 'of an unknown version'}"


def look(interpreter: Sequence[str], environment: Mapping[str, str], seconds: float = _LOOK_SECONDS) -> Found | None:
    """None if it does not say. `environment`: of the ranks."""
    try:
        done = subprocess.run(
            [*interpreter, "-c", _LOOK, *_ASKED],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        return Found(tuple(told["python"]), told["executable"], told["versions"], tuple(told["path"]))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError, TypeError):
        return None


def check(found: Found, spec: RuntimeSpec, *, stock: bool) -> None:
    """Raises `UnfitError`. `stock`: the script never calls `drivetrain.start()`."""
    problem = _problem(found, spec, stock=stock) or (None if stock else _trackers(found, spec))
    if problem is not None:
        raise UnfitError(f"spec.image does not fit: {problem}")


def check_trackers(
    interpreter: Sequence[str], environment: Mapping[str, str], spec: RuntimeSpec, *, stock: bool
) -> None:
    """As `check`, of an image that has the runtime: trackers ask for what may not be there. Raises `UnfitError`."""
    if stock or not interpreter or not missing(spec.training.tracking, lambda module: False):
        return
    found = look(interpreter, environment)
    if found is not None and (problem := _trackers(found, spec)):
        raise UnfitError(f"spec.image does not fit: {problem}")


def _problem(found: Found, spec: RuntimeSpec, *, stock: bool) -> str | None:
    number = ".".join(str(part) for part in found.python)
    here = f"its Python {number} ({found.executable})"
    if found.python < OLDEST_PYTHON:
        return f"{here} is too old, 3.10 or newer is needed"
    torch = found.versions.get("torch")
    if torch is None:
        return f"{here} has no torch; if torch is in another Python of the image, begin spec.command with that one"
    pydantic = found.versions.get("pydantic")
    if pydantic and _number(pydantic) < OLDEST_PYDANTIC:
        return f"{here} has pydantic {pydantic}, and 2.11 or newer is needed, or none; upgrade it in the image"
    if spec.storage is not None and (told := _without(found, _of_store(spec.storage.url), "spec.storage", here)):
        return told
    if stock:
        return None
    if torch and _number(torch) < OLDEST_TORCH:
        return (
            f"{here} has torch {torch}, and drivetrain.start() needs torch {torch_range()}; a script that does not "
            "call it runs with spec.runtime: torchrun"
        )
    if missing := [name for name in _RANKS if found.versions.get(name) is None]:
        return f"{here} has no {' and no '.join(missing)}, which drivetrain.start() needs; install it in the image"
    if spec.snapshots is None:
        return None
    return _without(found, (*_SNAPSHOTS, *_of_store(spec.snapshots.storage)), "spec.snapshots", here)


def _trackers(found: Found, spec: RuntimeSpec) -> str | None:
    needs = missing(spec.training.tracking, lambda module: found.versions.get(module) is not None)
    where = f"its Python ({found.executable})"
    if not needs:
        return None
    return f"{told(needs, where, 'spec.training.tracking.')} in the image, or name it in drivetrain run --requirements"


def _of_store(url: str | None) -> tuple[str, ...]:
    return _STORES.get((url or "").partition("://")[0], ())


def _without(found: Found, wanted: Sequence[str], of: str, here: str) -> str | None:
    missing = [name.replace("_", "-") for name in wanted if found.versions.get(name) is None]
    if not missing:
        return None
    return (
        f"{here} has no {' and no '.join(missing)}, which {of} needs; install it in the image, use one made from "
        f"drivetrain-worker, or leave {of} out"
    )


def _number(version: str) -> tuple[int, int]:
    """Of a version whose form nobody promises: one that cannot be read is not too old."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (999, 0)
