"""How does a step become a file? The script is run under its own command, restores the step, writes it, and ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drivetrain.snapshot.errors import SnapshotError
from drivetrain.snapshot.hand.request import DCP, SAFETENSORS, Request


class CannotExport(SnapshotError):
    """The message says which flag to change, or what the script did."""


def exported(command: Sequence[str], to: Path, format_: str | None, step: int | None, storage: str | None) -> Any:
    """What the script says that it has written. Raises `CannotExport`."""
    chosen = format_ or (SAFETENSORS if to.suffix == f".{SAFETENSORS}" else DCP)
    if not command:
        raise CannotExport("export: give the script's own command after --, such as: -- python train.py")
    if to.exists():
        raise CannotExport(f"--to: {to} is there already")
    if not to.absolute().parent.is_dir():
        raise CannotExport(f"--to: there is no folder {to.absolute().parent}")
    if chosen == SAFETENSORS and importlib.util.find_spec("safetensors") is None:
        raise CannotExport("--format safetensors needs the package safetensors (pip install safetensors)")
    with tempfile.TemporaryDirectory(prefix="drivetrain-export-") as folder:
        told = Path(folder, "told.json")
        place = None if storage is None else str(Path(storage).absolute()) if "://" not in storage else storage
        request = Request(str(to.absolute()), chosen, str(told), step, place)
        try:
            code = subprocess.run(command, env=request.environment(os.environ), check=False).returncode
        except OSError as error:
            raise CannotExport(f"{command[0]}: {error.strerror}") from None
        found = json.loads(told.read_text()) if told.exists() else None
    if found is None and code == 0:
        raise CannotExport("the script ended before it came to run.batches(), and nothing was written")
    if found is None:
        raise CannotExport(f"the script ended with {code} before it came to run.batches(), and nothing was written")
    if "error" in found:
        raise CannotExport(str(found["error"]))
    return found
