"""Gradients by NCCL, as far as one GPU goes: one rank, the sums of a training, and an operation that is abandoned."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import torch
from torch._C._distributed_c10d import HashStore

from drivetrain.comm.nccl import connect_nccl, open_nccl
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.comm.wait import Interrupt
from drivetrain.device import claim
from drivetrain.errors import MembershipOver
from gpu.report import DEVICE, ON_GPU, Report
from unit.runtime.test_backend import connected
from unit.runtime.together import Pipe, together

ELEMENTS: Final = 1 << 24
BUSY_SECONDS: Final = 2.0
"""For which the device is kept at work, so that a collective behind that has to wait."""


def alone(pipe: Pipe) -> dict[str, Any]:
    """One rank: sums, and what becomes of a sum whose membership ends."""
    claim()
    interrupt = Interrupt()
    group = connect_gloo(HashStore(), 0, 1, interrupt, 20.0, "127.0.0.1")
    transport = Transport(group, 0, 1, interrupt)
    transport.nccl = open_nccl(HashStore(), 0, 1, interrupt, 60.0)
    tensor = torch.arange(ELEMENTS, dtype=torch.float32, device=DEVICE)
    expected = tensor.clone()
    started = time.perf_counter()
    pending = [transport.all_reduce(part) for part in tensor.chunk(8)]
    for each in pending:
        each.wait()
    seconds = time.perf_counter() - started
    right = bool(torch.equal(tensor, expected))

    # The host must not be told of a sum before the device has made it.
    cycles = _cycles(BUSY_SECONDS)
    torch.cuda._sleep(cycles)
    started = time.perf_counter()
    transport.all_reduce(tensor).wait()
    confirmed = time.perf_counter() - started

    torch.cuda._sleep(cycles)
    late = transport.all_reduce(tensor)
    threading.Timer(0.1, lambda: interrupt.end("the check says so")).start()
    started = time.perf_counter()
    over = False
    try:
        late.wait()
    except MembershipOver:
        over = True
    interrupted = time.perf_counter() - started
    quarantine = Quarantine()
    transport.abandon(quarantine)
    held = quarantine.sweep()
    end = time.monotonic() + 20.0
    while quarantine.sweep() and time.monotonic() < end:
        time.sleep(0.05)
    return {
        "right": right,
        "seconds": seconds,
        "confirmed": confirmed,
        "over": over,
        "interrupted": interrupted,
        "held": held,
        "left": quarantine.sweep(),
    }


def _cycles(seconds: float) -> int:
    """For how many cycles the device sleeps so long."""
    torch.cuda._sleep(1_000_000)
    torch.cuda.synchronize()
    started = time.perf_counter()
    torch.cuda._sleep(100_000_000)
    torch.cuda.synchronize()
    return int(seconds / (time.perf_counter() - started) * 100_000_000)


def on_one_card(pipe: Pipe) -> tuple[bool, list[float]]:
    """Ranks that share a GPU: none of them may use NCCL."""
    claim()
    transport = connected(pipe)
    transport.nccl = connect_nccl(HashStore(), transport, 20.0)
    tensor = torch.full((3,), float(pipe.rank + 1), device=DEVICE)
    transport.all_reduce(tensor).wait()
    return transport.nccl is None, tensor.tolist()


def main() -> int:
    report = Report()
    shared = together(on_one_card, 2)
    report.check("two ranks on one device agree on gloo", shared == [(True, [3.0] * 3)] * 2)
    if not ON_GPU:
        report.skip("one rank over NCCL", "DEVICE is not cuda")
        return report.end()
    (found,) = together(alone, 1)
    report.check("sums by NCCL are right", found["right"], f"{found['seconds'] * 1e3:.1f} ms")
    report.check("the host waits for the device", found["confirmed"] > BUSY_SECONDS / 2, f"{found['confirmed']:.2f} s")
    report.check("a wait ends with the membership", found["over"] and found["interrupted"] < 1.0)
    report.check("what was abandoned is kept until it is over", found["held"] == 1 and found["left"] == 0)
    report.figure("nccl_ms", found["seconds"] * 1e3)
    return report.end()


if __name__ == "__main__":
    raise SystemExit(main())
