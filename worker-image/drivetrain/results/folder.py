"""Which folder is the job's own for checkpoints and results? The launcher makes it and tells scripts
(`DRIVETRAIN_OUTPUT_DIR`); `run.save` and `prepare(resume=…)` mean it with relative paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from drivetrain_api.constants import ENV_OUTPUT_DIR, ENV_POD_ROOT

_SCRATCH: Final = ("/tmp/", "/dev/shm/")


def where_mounted(path: str, environ: Mapping[str, str] = os.environ) -> Path:
    """An absolute path as the container means it. Where pods are plain processes, mounts are links below their root,
    and what is in no mount, or in one that every pod has for scratch, is the machine's."""
    root = environ.get(ENV_POD_ROOT, "").rstrip("/")
    if not root or path.startswith((f"{root}/", *_SCRATCH)):
        return Path(path)
    inside = Path(f"{root}/{os.path.normpath(path).lstrip('/')}")
    links = (each for each in (inside, *inside.parents) if each.is_relative_to(root) and str(each) != root)
    return inside if any(each.is_symlink() for each in links) else Path(path)


def output_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Of this job; None if it has none."""
    given = environ.get(ENV_OUTPUT_DIR)
    return where_mounted(given, environ) if given else None


def to_write(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Path:
    """Where `run.save(path)` writes."""
    folder = output_folder(environ)
    return Path(path) if folder is None else folder / path


def to_read(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Path:
    """Where `prepare(resume=path)` reads: what was saved, or else what came with the image."""
    placed = to_write(path, environ)
    return Path(path) if not placed.exists() and Path(path).exists() else placed
