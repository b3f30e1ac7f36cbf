"""A script whose ranks hang where $HANGS says, one after another: each until there is a file with its number."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

import drivetrain
from e2e.processes.sharded import Net, Numbers

FOLDER = Path(os.environ["FOLDER"])
HANGS: dict[int, tuple[str, int]] = {
    int(step): (where, rank) for step, (where, rank) in json.loads(os.environ["HANGS"])
}
"""By step: where, and which rank."""
SLOW = {int(step) for step in os.environ.get("SLOW_STEPS", "").split()}
LIMIT_SECONDS = 60.0


def released(step: int) -> bool:
    return (FOLDER / f"released-{step}").exists()


def asleep(step: int) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while not released(step) and time.monotonic() < limit:
        time.sleep(0.02)


def hang(where: str) -> None:
    """If this is where, and when, and who."""
    step = run.step_number
    due = HANGS.get(step)
    if due is None or due != (where, run.rank) or released(step):
        return
    WAYS.get(where, asleep)(step)


def locked(step: int) -> None:
    lock = threading.Lock()
    lock.acquire()

    def release() -> None:
        asleep(step)
        lock.release()

    threading.Thread(target=release, daemon=True).start()
    lock.acquire()


def in_native_code(step: int) -> None:
    """With the interpreter's lock held."""
    while not released(step):
        ctypes.PyDLL(None).usleep(4_000_000)


def stopped(step: int) -> None:
    (FOLDER / f"released-{step}").touch()  # its successor makes this step again
    os.kill(os.getpid(), signal.SIGSTOP)


def alone_in_a_collective(step: int) -> None:
    dist.all_reduce(torch.zeros(3))


WAYS: dict[str, Callable[[int], None]] = {
    "lock": locked,
    "native": in_native_code,
    "stopped": stopped,
    "collective": alone_in_a_collective,
}


class Data(Numbers):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        hang("dataset")
        return super().__getitem__(index)


class Optimizer(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:
        hang("optimizer")
        return super().step(closure)


class Block(torch.nn.Tanh):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for where in ("forward", "lock", "native", "stopped", "collective"):
            hang(where)
        out = super().forward(x)
        if out.requires_grad:
            out.register_hook(lambda gradient: hang("backward"))
        return out


def forward(model: torch.nn.Module, shard: Any) -> torch.Tensor:
    x, y = shard
    return F.cross_entropy(model(x), y)


def slow(model: torch.nn.Module, shard: Any) -> torch.Tensor:
    """A first step that compiles, an evaluation of which one rank has more."""
    if run.rank == 1:
        time.sleep(1.5)
    return forward(model, shard)


def model() -> Net:
    net = Net()
    for layer in net.layers:
        layer.register_module("1", Block())
    return net


def optimizer(parameters: Iterable[Any]) -> Optimizer:
    return Optimizer(parameters, 1e-2)


run = drivetrain.start()
run.prepare(model=model(), optimizer=optimizer, data=Data(256), process_group="GROUP" in os.environ)
for batch in run.batches():
    hang("between")
    run.step(batch, slow if batch.step == 0 else forward)
    if batch.step in SLOW:  # ranks that come late for good reasons
        run.evaluate(Numbers(12), slow, batch=6)
        if run.rank == 0:
            torch.save(run.step_number, FOLDER / "saved.pt")
