"""A step in a format of others: safetensors (the model), or torch's distributed checkpoint (the optimizer, too).

Called in the script that trains the model, instead of training (hand/request.py). No run is begun: whoever trains
meanwhile is not disturbed. A pin keeps what is read.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from drivetrain.errors import DrivetrainError
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.settings import Settings
from drivetrain.snapshot.beginning import Pin, best, looked_at
from drivetrain.snapshot.errors import SnapshotError, StorageError
from drivetrain.snapshot.found import Found, Point
from drivetrain.snapshot.hand.request import SAFETENSORS, Request
from drivetrain.snapshot.restore import Restore
from drivetrain.snapshot.storage import Storage
from drivetrain.state import TrainingState
from drivetrain_api.runtime import RuntimeSnapshots


def alone(settings: Settings, request: Request) -> Settings:
    """The settings of a process that has all of the model, and reads no data."""
    training = settings.training.model_copy(
        update={"zero": 0, "tensor": 1, "pipeline": None, "data_workers": 0, "compression": None}
    )
    snapshots = settings.snapshots
    if request.storage is not None:
        snapshots = RuntimeSnapshots(storage=request.storage)
    return replace(settings, training=training, snapshots=snapshots)


def restored(storage: Storage, step: int | None, restore: Callable[[Found, Point], None]) -> Point:
    """Have `restore` called for this step, whose objects stay meanwhile; None: the newest. Raises `SnapshotError`."""
    pin = Pin(storage, "export")
    try:
        pin.on(0, 0)
    except StorageError:
        pass  # a storage that may only be read
    try:
        found = looked_at(storage)
        least, most = (0, math.inf) if step is None else (step, step)
        point = best(found, least, most, restore)
    finally:
        pin.off()
    if point is None:
        spans = ", ".join(f"{first} to {last}" for first, last in found.reachable()) or "none"
        what = "no step can" if step is None else f"step {step} cannot"
        raise SnapshotError(f"--step: {what} be gone back to in {storage}; those that can: {spans}")
    return point


def end_with_export(
    request: Request, storage: Storage, strategy: Strategy, state: TrainingState, position: Position
) -> NoReturn:
    """Do what is asked, and end the process: what a script does after its training would be wrong now."""
    try:
        point = restored(storage, request.step, Restore(strategy, state, position).to)
        told = {"step": point.step, **write(Path(request.to), request.format, strategy, point.step)}
    except (DrivetrainError, OSError) as error:
        request.tell({"error": str(error)})
        _end(1)
    request.tell(told)
    _end(0)


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def write(to: Path, format_: str, strategy: Strategy, step: int) -> dict[str, Any]:
    """Write it, as a whole or not at all; returns what there is to tell."""
    model, left_out = _model(strategy.model)
    temporary = to.parent / f".{to.name}.{os.getpid()}-{secrets.token_hex(4)}"
    try:
        if format_ == SAFETENSORS:
            written = list(model.values())
            _safetensors(temporary, model, step)
        else:
            optimizer = optimizer_by_name(strategy)
            written = [*model.values(), *_tensors(optimizer["state"])]
            _dcp(temporary, {"model": model, "optimizer": optimizer, "step": step})
        if to.exists():
            raise SnapshotError(f"--to: {to} is there already")
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
    return {
        "tensors": len(written),
        "bytes": sum(each.numel() * each.element_size() for each in written),
        "left_out": left_out,
    }


def _model(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Its state dict, each name with memory of its own, and the names of what is no tensor."""
    found = model.state_dict()
    tensors = {
        name: each.detach().to("cpu", copy=True).contiguous()
        for name, each in found.items()
        if isinstance(each, torch.Tensor)
    }
    return tensors, [name for name in found if name not in tensors]


def optimizer_by_name(strategy: Strategy) -> dict[str, Any]:
    """As torch.distributed.checkpoint.state_dict has it: by the parameters' names."""
    optimizer, trained = strategy.optimizer, strategy.trained
    names = {id(each): name for name, each in strategy.model.named_parameters()}

    def name_of(tensor: torch.Tensor) -> str | None:
        return names.get(trained.stand_ins.get(id(tensor), id(tensor)))

    state = {
        name: {key: _on_cpu(value) for key, value in optimizer.state[each].items()}
        for group in optimizer.param_groups
        for each in group["params"]
        if (name := name_of(each)) is not None and optimizer.state.get(each)
    }
    groups = [
        {**group, "params": [name for each in group["params"] if (name := name_of(each)) is not None]}
        for group in optimizer.param_groups
    ]
    return {"state": state, "param_groups": groups}


def _on_cpu(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def _tensors(state: dict[str, dict[str, Any]]) -> Iterator[torch.Tensor]:
    for each in state.values():
        yield from (value for value in each.values() if isinstance(value, torch.Tensor))


def _safetensors(path: Path, model: dict[str, torch.Tensor], step: int) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(model, path, metadata={"format": "pt", "step": str(step)})
    except (SafetensorError, KeyError, ValueError) as error:
        raise SnapshotError(f"--format: safetensors cannot write this model ({error}); dcp can") from error
    os.umask(mask := os.umask(0))
    path.chmod(0o666 & ~mask)  # the library's are its user's alone
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _dcp(folder: Path, state: dict[str, Any]) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process is what we mean
        save(state, storage_writer=FileSystemWriter(folder), no_dist=True)


__all__ = ["alone", "end_with_export", "optimizer_by_name", "restored", "write"]
