"""The script whose snapshots are kept in `example-1/`, which every later version of drivetrain has to read.

Rates and momentum are powers of two and bits of the gradients are in the snapshots, so that what a replay makes of them
is the same on every machine. Run by `write_example.py` under torchrun's variables, and by tests.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

import drivetrain
from drivetrain.run import Run
from drivetrain.snapshot.export import restored
from drivetrain.snapshot.restore import Restore
from drivetrain.snapshot.storage import Storage


class Net(nn.Module):
    """Sparse rows, a buffer that counts, one that moves, one that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 4, sparse=True)
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 2)
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.tensor(0))
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(6))
        self.peak: torch.Tensor
        self.register_buffer("peak", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(self.table(x).mean(1))
        if self.training:
            self.calls += 1
            self.mean = 0.5 * self.mean + 0.5 * hidden.detach().mean(0)
            self.peak = torch.maximum(self.peak, hidden.detach().max())
        out: torch.Tensor = self.last(torch.relu(hidden))
        return out


class Data:
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(index, index + 3) % 20, torch.tensor([index % 4, 1.0])


class Counter:
    """Registered state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def forward(model: nn.Module, shard: Any) -> torch.Tensor:
    x, y = shard
    loss: torch.Tensor = ((model(x) - y) ** 2).mean()
    return loss


def optimizer(model: Net) -> torch.optim.Optimizer:
    rest = [each for name, each in model.named_parameters() if name != "table.weight"]
    groups: list[dict[str, Any]] = [{"params": [model.table.weight]}, {"params": rest, "momentum": 0.5}]
    return torch.optim.SGD(groups, lr=0.125, foreach=False)


def sha256(model: Net, made: torch.optim.Optimizer, counter: Counter | None) -> str:
    """Of all that comes back, or without a counter of what is exported: model and optimizer, as torch has them in
    files. On its own, so that it is what it was whatever becomes of the runtime's."""
    sums = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sums.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            sums.update(value.detach().contiguous().numpy().tobytes())
        else:
            sums.update(f"{name} {value!r}\n".encode())

    for name, value in sorted(model.state_dict().items()):
        add(name, value)
    for name, each in sorted(model.named_parameters()):
        for key, value in sorted(made.state.get(each, {}).items()):
            add(f"{name}.{key}", value)
    for number, group in enumerate(made.param_groups):
        add(f"group {number}", (group["lr"], group["momentum"]))
    if counter is not None:
        add("peak", model.peak)
        add("counter", counter.value)
    return sums.hexdigest()


def begin() -> tuple[Run, Net, torch.optim.Optimizer, Counter]:
    """Up to the loop. `STEPS`, `SNAPSHOTS` and `PRECISION` are the environment's."""
    snapshots = {
        "storage": os.environ.get("SNAPSHOTS", "example-1"),
        "precision": os.environ.get("PRECISION", "exact"),
        "commit_seconds": float(os.environ.get("COMMIT_SECONDS", "0.0")),
        "base_every_steps": 5,
        "keep_bases": 100,
    }
    run = drivetrain.start(
        defaults={"steps": int(os.environ.get("STEPS", "16")), "global_batch": 12}, snapshots=snapshots
    )
    model, made = Net(), []
    run.prepare(model=model, optimizer=lambda _: made.append(optimizer(model)) or made[0], data=Data())  # type: ignore[func-returns-value]
    counter = Counter()
    run.register("counter", counter)
    return run, model, made[0], counter


def go_back(run: Run, storage: Storage, step: int) -> None:
    """Make its state that of this step. Raises `SnapshotError`."""
    made = run._made
    assert made is not None
    with made.only_update.updating():
        point = restored(storage, step, Restore(made.strategy, run._state, run._operations.position).to)
    assert point.step == step


def train() -> None:
    run, model, made, counter = begin()
    sums: dict[int, list[str]] = {}
    for batch in run.batches():
        sums[batch.step] = [sha256(model, made, counter), sha256(model, made, None)]
        run.step(batch, forward)
        counter.value += 2
    sums[run.step_number] = [sha256(model, made, counter), sha256(model, made, None)]
    run.finish()
    assert run._snapshots is not None
    assert run._snapshots.recorder.bases.thread.drain(30.0)
    if run.rank == 0 and (path := os.environ.get("SUMS")):
        Path(path).write_text(json.dumps(sums))


if __name__ == "__main__":
    train()
