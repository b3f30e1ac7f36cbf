"""How much memory does a rank need at most, and how many bytes does a step send? Each side alone in its processes.

Memory: the highest resident size of the process (VmHWM) above what it had before there was a model. Bytes: what the
loopback interface of a network namespace of its own saw, headers too; without root, that of the machine, whoever sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from bench.training.counterparts import Step
from bench.training.links import enter
from bench.training.modes import Mode
from bench.training.ours import Ours
from bench.training.pairs import join_torch, measured
from bench.training.workload import Feed, Windows, loss_of, new_model, new_optimizer, standard_library
from harness.ports import free_port
from unit.runtime.payload import sent_on_loopback
from unit.runtime.together import Pipe

WARM_UP, STEPS = 3, 4


@dataclass(frozen=True)
class Footprint:
    """Of one side of one mode, a rank: of the rank that needs most, and the mean of what they send."""

    peak_mb: float
    sent_mb: float
    """A step."""


def _status(field: str) -> float:
    """A size from /proc/self/status, in MB (10⁶ bytes)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def _touch_everything(data: Windows) -> None:
    """Train a tiny model once: libraries are read into memory where they are first used, which is no mode's doing."""
    model = new_model(width=16)
    optimizer = new_optimizer(model.parameters())
    inputs, targets = data[0]
    loss_of(model, (inputs[None], targets[None])).backward()
    optimizer.step()
    dist.all_reduce(torch.ones(10))


def rank(pipe: Pipe, mode: Mode, setting: object, namespace: str | None, port: int, per_rank: int) -> Footprint:
    """One rank's part. `setting` of torch's side; None: ours is measured."""
    if namespace is not None:
        enter(namespace)
    join_torch(pipe, port)
    data, batch = Windows(standard_library()), per_rank * pipe.world
    _touch_everything(data)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (proc_pid_clear_refs(5))
    before = _status("VmRSS")
    step: Step
    if setting is None:
        step = Ours(mode, data, WARM_UP + STEPS, batch, pipe.world).step
    else:
        assert mode.torch is not None
        step = mode.torch.build(new_model(), Feed(data, batch, pipe.rank, pipe.world), setting)
    sent = 0
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            dist.barrier()
            sent = sent_on_loopback()
            dist.barrier()
        step(number)
    dist.barrier()
    sent = sent_on_loopback() - sent
    return Footprint(_status("VmHWM") - before, sent / STEPS / pipe.world / 1e6)


def measure(mode: Mode, world: int, setting: object, namespace: str | None, per_rank: int) -> Footprint:
    """One side's, over all ranks."""
    ranks = measured(rank, world, mode, setting, namespace, free_port(), per_rank)
    return Footprint(max(each.peak_mb for each in ranks), ranks[0].sent_mb)
