"""The training script of the recovery benchmark: 5.3 M parameters, dropout, batch-norm, clipping and a schedule.

It keeps a ledger of its own, outside the product: one line for every forward pass (which samples, in which membership)
and one for every optimizer step. Faults are armed by files in $BENCH_FOLDER, so that the moment is exact.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain
from drivetrain import faults

FOLDER = Path(os.environ["BENCH_FOLDER"])
WIDTH = 512
SAMPLES = int(os.environ.get("BENCH_SAMPLES", "4800"))
SAVE_EVERY = int(os.environ.get("BENCH_SAVE_EVERY", "0"))


class Ledger:
    """Appends lines to a file of this process; each is one write, so a SIGKILL tears none."""

    def __init__(self) -> None:
        self._file = os.open(FOLDER / f"ledger-{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.time(), "pid": os.getpid(), **fields}) + "\n"
        os.write(self._file, line.encode())


class Noise:
    """Random samples with a learnable rule; every sample carries its own index."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(SAMPLES, WIDTH, generator=generator)
        rule = torch.randn(WIDTH, 10, generator=generator)
        self.targets = (self.inputs @ rule).argmax(1)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return self.inputs[index], self.targets[index], index


def build() -> nn.Module:
    """About 5.3 M parameters."""
    layers: list[nn.Module] = []
    for _ in range(5):
        layers += [nn.Linear(WIDTH, 2 * WIDTH), nn.BatchNorm1d(2 * WIDTH), nn.ReLU(), nn.Dropout(0.1)]
        layers += [nn.Linear(2 * WIDTH, WIDTH)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def armed(point: str, step: int, steps: int) -> dict[str, Any] | None:
    """The fault that the controller armed for this point, claimed by exactly one process."""
    mine = f"{os.getpid()}-{point}"
    for name in (mine, f"{mine}-{step}", f"any-{point}", *([f"any-last-{point}"] if step == steps - 1 else [])):
        path = FOLDER / f"arm-{name}.json"
        try:
            claimed = path.with_suffix(f".claimed-{os.getpid()}")
            path.rename(claimed)
            return json.loads(claimed.read_text())  # type: ignore[no-any-return]
        except FileNotFoundError:
            continue
    return None


def main() -> None:
    ledger = Ledger()
    run = drivetrain.start()
    current: dict[str, Any] = {"step": -1}

    def fault(point: str, step: int) -> None:
        if point == "ready":
            ledger.write("ready")
        order = armed(point, current["step"], run.settings.steps)
        if order is None:
            return
        at = time.time() + order.get("seconds", 0.0)
        ledger.write("fault", at=at, point=point, step=current["step"], action=order["action"])
        time.sleep(order.get("seconds", 0.0))
        if order["action"] != "delay":
            os.kill(os.getpid(), signal.SIGSTOP if order["action"] == "stop" else signal.SIGKILL)

    faults.install(fault)

    class Optimizer(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            if current["step"] >= 0:  # else `prepare` tries out on a small tensor what this optimizer does
                world = run.world_size
                # Where its gradient came about: an update may be made when that membership has ended.
                ledger.write("step", step=current["step"], membership=current["in"], rank=run.rank, world=world)
            return result

    def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        inputs, targets, indices = shard
        if run.membership != "0.0":  # else it is a rehearsal
            ledger.write("forward", step=current["step"], membership=run.membership, samples=indices.tolist())
        return F.cross_entropy(model(inputs), targets)

    run.prepare(
        model=build(),
        optimizer=lambda parameters: Optimizer(parameters, 1e-3, fused=True),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.settings.steps),
        data=Noise(),
        resume=FOLDER / "model.pt" if SAVE_EVERY else None,
    )
    losses: deque[float] = deque(maxlen=20)
    for batch in run.batches():

        def noted(model: nn.Module, shard: Any, batch: Any = batch) -> torch.Tensor:
            current.update({"step": batch.step, "in": run.membership})
            return forward(model, shard)

        result = run.step(batch, noted)
        losses.append(result.loss)
        if SAVE_EVERY and (batch.step + 1) % SAVE_EVERY == 0:
            run.save(FOLDER / "model.pt")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    ledger.write(
        "end",
        step=run.step_number,
        sha256=run.state_sha256(),
        loss=sum(losses) / max(1, len(losses)),
        losses=len(losses),
        rank=run.rank,
        peak_mb=peak_mb,
    )


if __name__ == "__main__":
    main()
