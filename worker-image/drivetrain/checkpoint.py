"""One file that holds a run's state: written whole or not at all, readable by plain `torch.load`.

And what is written can be read: before the file takes the old one's place, it is opened as a resumed job would open it.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError  # what `torch.load` raises; nothing else of it is used
from typing import Any, Final

import torch

from drivetrain.device import from_file
from drivetrain.digest import digest_of_skeleton
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.plain import decode, encode

_FORMAT: Final = "drivetrain.checkpoint/2"
_READABLE: Final = ("drivetrain.checkpoint/1", _FORMAT)
"""In the first one nothing had to be decoded."""
_OURS: Final = ("model", "optimizer", "scheduler")


def save_checkpoint(path: Path, state: dict[str, Any], position: dict[str, Any]) -> None:
    """Write beside `path`, flush to the disk, then rename: a crash leaves the old file or the new one.

    Raises `UsageError` that names what could not be read back; the old file stays then.
    """
    path = path.absolute()
    plain = encode(state, _named)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = {"format": _FORMAT, "model": plain["model"], "state": plain, "position": position}
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        _read_back(temporary, state)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def refuse_what_cannot_be_saved(state: dict[str, Any]) -> None:
    """Raises `UsageError` for parts of a state that `save_checkpoint` would refuse."""
    encode(state, _named)


def _named(part: str) -> str:
    return f"{part}.state_dict()" if part in _OURS else f"register({part!r})"


def _read_back(path: Path, state: dict[str, Any]) -> None:
    """All but the tensors' bits, which are mapped and not read. Raises `UsageError`."""
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError):  # a file system without mmap
            content = torch.load(path, map_location="cpu", weights_only=True)
        found = decode(content["state"])
    except (RuntimeError, ValueError, TypeError, EOFError, UnpicklingError) as error:
        raise UsageError(f"run.save: what was written cannot be read back: {error}") from error
    for name, part in state.items():
        if digest_of_skeleton(part) != digest_of_skeleton(found[name]):
            raise UsageError(f"run.save: {name}: what was written reads back as something else")


def saved_step(path: Path) -> int:
    """Step of a file that `save_checkpoint` wrote, without reading its tensors; -1 if there is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(content["position"]["step"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, UnpicklingError):
        return -1


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """State and position of a file that `save_checkpoint` wrote. Raises `StateMismatch` for any other file."""
    try:
        content = torch.load(path, map_location=from_file, weights_only=True)
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise StateMismatch(f"resume={str(path)!r}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") not in _READABLE:
        raise StateMismatch(f"resume={str(path)!r}: not a file that run.save wrote")
    return decode(content["state"]), content["position"]
