"""What an init container brings into a worker's image (ADR 0047), made from this checkout and this Python's packages:
as the operator's image has it, but for this Python only."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]


def runtime(folder: Path) -> Path:
    """Makes it below `folder`; returns what starts it."""
    made = folder / "runtime"
    shutil.copytree(ROOT / "worker-image" / "brought", made)
    for package in ("operator/drivetrain_api", "worker-image/drivetrain"):
        shutil.copytree(ROOT / package, made / "first" / Path(package).name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE):
        _copy(name, made / "last")
    return made / "launch"


def _copy(name: str, to: Path) -> None:
    """An installed package; of compiled ones, as `scripts/runtime-packages` does, what they have in Python."""
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return  # for another Python
    for file in files:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        if file.suffix == ".so" and name != "pydantic-core":
            continue
        target = to / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)
