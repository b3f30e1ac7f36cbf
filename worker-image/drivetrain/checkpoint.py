"""One file that holds a run's state: written whole or not at all, readable by plain `torch.load`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, Final

import torch

from drivetrain.device import from_file
from drivetrain.errors import StateMismatch

_FORMAT: Final = "drivetrain.checkpoint/1"


def save_checkpoint(path: Path, state: dict[str, Any], position: dict[str, Any]) -> None:
    """Write beside `path`, flush to the disk, then rename: a crash leaves the old file or the new one."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = {"format": _FORMAT, "model": state["model"], "state": state, "position": position}
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def saved_step(path: Path) -> int:
    """Step of a file that `save_checkpoint` wrote, without reading its tensors; -1 if there is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(content["position"]["step"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        return -1


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and position of a file that `save_checkpoint` wrote. Raises `StateMismatch` for any other file."""
    try:
        content = torch.load(path, map_location=from_file, weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise StateMismatch(f"resume={str(path)!r}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise StateMismatch(f"resume={str(path)!r}: not a file that run.save wrote")
    return content["state"], content["position"]
