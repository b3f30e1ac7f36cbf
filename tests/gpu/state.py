"""Does a newcomer get a peer's state: all bits, on its device, checked, and how fast?"""

from __future__ import annotations

import time
from typing import Any, Final

import torch
from torch import nn

from drivetrain.device import claim
from drivetrain.position import Position
from drivetrain.state import Piece, TrainingState, checksum, digest
from drivetrain.world.heal import Doing, synchronise
from gpu.report import DEVICE, ON_GPU, Report
from unit.runtime.test_backend import connected
from unit.runtime.together import Pipe, together

WIDTH: Final = 4096 if ON_GPU else 1024
"""Of four square layers; with Adam's two moments: 800 MB, or 50."""


def take(pipe: Pipe) -> dict[str, Any]:
    """Rank 0 has made a step, rank 1 is new."""
    claim()
    torch.manual_seed(pipe.rank)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)), nn.BatchNorm1d(WIDTH)).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=ON_GPU)
    registry, position = TrainingState(), Position()
    registry.register(Piece("model", model))
    registry.register(Piece("optimizer", optimizer))
    given = torch.randn(8, WIDTH, device=DEVICE)
    if pipe.rank == 0:
        model(given).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        position.step, position.has_state = 1, True
    transport = connected(pipe)
    transport.barrier()
    started = time.perf_counter()
    healed = synchronise(transport, position, registry, Doing.STEP, lambda: None)
    seconds = time.perf_counter() - started
    found = digest(registry.collect())
    tensors = [*model.state_dict().values(), *(each for state in optimizer.state.values() for each in state.values())]
    model(given).square().mean().backward()
    optimizer.step()
    flat = torch.randint(0, 256, (5000,), dtype=torch.uint8)
    return {
        "received": healed.received,
        "sha256": found,
        "step": position.step,
        "seconds": seconds,
        "bytes": sum(each.nbytes for each in tensors),
        "on device": all(each.device.type == DEVICE.type for each in tensors),
        "checksum": checksum(flat) == checksum(flat.to(DEVICE)),
    }


def main() -> int:
    report = Report()
    old, new = together(take, 2)
    report.check("a newcomer takes a peer's state", new["received"] and not old["received"] and new["step"] == 1)
    report.check("all bits of it", old["sha256"] == new["sha256"])
    report.check(f"it lies on {DEVICE.type}", new["on device"] and old["on device"])
    report.check("a checksum is the same on any device", new["checksum"])
    rate = new["bytes"] / new["seconds"] / 1e6
    report.check("it was fast enough", rate > 20, f"{new['bytes'] / 1e6:.0f} MB in {new['seconds']:.2f} s")
    report.figure("state_mb_per_s", rate)
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
