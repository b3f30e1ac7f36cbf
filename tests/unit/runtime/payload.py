"""How many bytes do training steps send? Run by test_payload.py in a network namespace where nothing else sends.

Prints a JSON list: what the transports counted and what the loopback interface saw in a step, over all ranks.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import socket
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeTraining
from unit.runtime.together import Pipe, together

WARM_UP, STEPS = 2, 3
WIDTH = 512
SAMPLES, BATCH = 64, 32


class Points:
    """Random points; or, with `touched`, the numbers of as many rows of a table, other ones for every sample."""

    def __init__(self, touched: int | None) -> None:
        self.x = (
            torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(1))
            if touched is None
            else torch.arange(SAMPLES * touched).view(SAMPLES, touched)
        )

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.x[index]


def sent_on_loopback() -> int:
    """Bytes that this network namespace has sent over lo, with headers."""
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def bring_up_loopback() -> None:
    """A new network namespace has a loopback interface that is down (netdevice(7))."""
    set_flags, up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up))


def rank(pipe: Pipe, fields: dict[str, Any]) -> dict[str, int]:
    """Train; count what the steps after the first ones moved."""
    touched = fields.pop("touched", None)
    training = RuntimeTraining(steps=WARM_UP + STEPS, global_batch=BATCH, **fields)
    run = Run(Settings(training, WARM_UP + STEPS, BATCH, pipe.world), None)
    model: nn.Module = (
        nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(8)])  # 2.1 M parameters, 8.4 MB
        if touched is None
        else nn.Embedding(50_000, 64, sparse=True)  # 12.8 MB
    )
    run.prepare(model=model, optimizer=lambda parameters: torch.optim.SGD(parameters, 1e-3), data=Points(touched))
    counts: list[tuple[int, int]] = []
    for batch in run.batches():
        run.step(batch, lambda model, x: model(x).square().mean())
        if batch.step + 1 in (WARM_UP, WARM_UP + STEPS):
            transport = run._world.transport
            assert transport is not None
            transport.barrier()
            counts.append((transport.payload_bytes, sent_on_loopback()))
            transport.barrier()
    run.finish()
    (payload_before, lo_before), (payload_after, lo_after) = counts
    return {"payload": payload_after - payload_before, "lo": lo_after - lo_before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", help="JSON: a list of [world, fields of RuntimeTraining]")
    bring_up_loopback()
    found = []
    for world, fields in json.loads(parser.parse_args().cases):
        ranks = together(rank, world, fields)
        payload, lo = sum(each["payload"] for each in ranks), max(each["lo"] for each in ranks)
        found.append({"payload": payload / STEPS, "lo": lo / STEPS})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
