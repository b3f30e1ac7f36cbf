"""How much slower is a step than plain DistributedDataParallel, and why?

Every rank holds the model twice, once under drivetrain and once under torch's DDP, and steps them in turn (ours, DDP,
DDP, ours, …), so that both see the same machine at the same time. Run by `make bench-overhead`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import drivetrain
from drivetrain import rng
from drivetrain.identity import Identity, Kind, compare
from drivetrain.parallel.buffers import Buffers
from drivetrain.parallel.layout import Layout
from drivetrain.telemetry.flight import UNRECORDED, Flight
from drivetrain_api.messages import EpochId
from harness.ports import free_port

BATCH = 24
FEATURES = 512


def build() -> nn.Module:
    """About 5.3 M parameters, with batch-norm and dropout."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(5):
        layers += [nn.Linear(FEATURES, 2 * FEATURES), nn.BatchNorm1d(2 * FEATURES), nn.ReLU(), nn.Dropout(0.1)]
        layers += [nn.Linear(2 * FEATURES, FEATURES)]
    return nn.Sequential(*layers, nn.Linear(FEATURES, 10))


class Noise:
    """Fixed random samples: reading them costs nearly nothing, for both sides alike."""

    def __init__(self, rows: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(rows, FEATURES, generator=generator)
        self.targets = torch.randint(0, 10, (rows,), generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.targets[index]


def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, targets = shard
    return F.cross_entropy(model(inputs), targets)


def rank_main(pairs: int, per_rank: int, result: Path) -> None:
    """One rank: interleave steps of both and write the times of rank 0."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    data = Noise(4096)
    run = drivetrain.start(
        defaults={"steps": pairs + 20, "global_batch": per_rank * world, "clip_norm": 1.0, "seed": 3}
    )
    run.prepare(model=build(), optimizer=lambda p: torch.optim.AdamW(p, 1e-3), data=data)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{os.environ['MASTER_ADDR']}:{int(os.environ['MASTER_PORT']) + 1}",
        rank=rank,
        world_size=world,
    )
    plain: nn.Module = build()
    theirs = nn.parallel.DistributedDataParallel(plain) if world > 1 else plain
    optimizer = torch.optim.AdamW(theirs.parameters(), 1e-3)

    def ddp_step(number: int) -> None:
        # The same samples by the same means of reading.
        indices = [(number * per_rank * world + rank * per_rank + each) % len(data) for each in range(per_rank)]
        shard = torch.utils.data.default_collate([data[index] for index in indices])
        optimizer.zero_grad(set_to_none=True)
        forward(theirs, shard).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()

    ours: list[float] = []
    ddp: list[float] = []
    noted: list[bool] = []
    switch = Telemetry(run)
    for number, batch in enumerate(run.batches()):
        switch(on=number // 2 % 2 == 0)
        noted.append(switch.on)
        for which in ("ours", "ddp") if number % 2 else ("ddp", "ours"):
            dist.barrier()
            started = time.perf_counter()
            if which == "ours":
                run.step(batch, forward)
            else:
                ddp_step(number)
            dist.barrier()
            (ours if which == "ours" else ddp).append(time.perf_counter() - started)
    pieces = parts(run)  # on all ranks: it has collectives in it
    if rank == 0:
        noting = {"noted": noted[20:], "calls": switch.per_step, "note_ms": switch.cost()}
        result.write_text(json.dumps({"ours": ours[20:], "ddp": ddp[20:], **noting, **pieces}))
    dist.destroy_process_group()


class Telemetry:
    """What the ranks of a job note of themselves, which those of torchrun do not: turned on and off between steps."""

    def __init__(self, run: drivetrain.Run) -> None:
        self._run = run
        self._flight = Flight()
        self._calls = self._flight.group("world", EpochId(1, 1))
        self._noted: list[int] = []
        """Collectives of each step that noted them."""
        self.on = False

    def __call__(self, *, on: bool) -> None:
        transport, spending = self._run._world.transport, self._run._spending
        last = self._flight.last()
        if self.on and last is not None:
            self._noted.append(last.ticket)
        self.on = on
        if transport is not None:
            transport.calls = self._calls if on else UNRECORDED
            transport.blocked = spending.blocked if on else lambda waiting: None
        spending._staged = on

    @property
    def per_step(self) -> int:
        """Collectives of a step."""
        steps = [after - before for before, after in itertools.pairwise(self._noted) if after > before]
        return int(statistics.median(steps)) if steps else 0

    def cost(self) -> float:
        """Of noting the collectives of one step, in ms."""
        tensor = torch.zeros(1)
        rounds = 2000
        started = time.perf_counter()
        for _ in range(rounds):
            ticket = self._calls.begin("all-reduce", tensor.nbytes, tensor.dtype)
            self._calls.wait(ticket)
            self._calls.end(ticket)
        return 1e3 * (time.perf_counter() - started) / rounds * self.per_step


def parts(run: drivetrain.Run) -> dict[str, float]:
    """What single pieces of the runtime cost, in ms: medians of 50 calls on this rank's own model, no communication."""
    model = run._prepared().model
    layout = Layout(model)
    gradients = [torch.randn_like(slot.parameter) for slot in layout.slots]
    staging = torch.empty(layout.total)
    views = [staging[slot.start : slot.stop].view(slot.parameter.shape) for slot in layout.slots]

    def copies() -> None:
        for view, gradient in zip(views, gradients, strict=True):
            view.copy_(gradient)

    own = Buffers(model)

    def transaction() -> None:
        own.begin()
        with rng.stream(0, 1, 2):
            pass
        own.end()

    # Masks, position tables: 48 MB that never change. A step begins and ends, and asks three times what has changed.
    masked = nn.Module()
    for number in range(3):
        masked.register_buffer(f"mask{number}", torch.ones(1 << 22))
    constant = Buffers(masked)

    def masks() -> None:
        constant.begin()
        assert not constant.dirty
        constant.end()

    for _ in range(5):  # until they count as constant
        masks()

    def timed(function: object) -> float:
        times = []
        for _ in range(50):
            started = time.perf_counter()
            function()  # type: ignore[operator]
            times.append(time.perf_counter() - started)
        return 1e3 * statistics.median(times)

    transport = run._world.transport
    backend = entering = 0.0
    if transport is not None:
        tiny = torch.zeros(1)
        wrapped = timed(lambda: transport.all_reduce(tiny).wait())
        from torch._C._distributed_c10d import AllreduceOptions

        raw = timed(lambda: transport.process_group.allreduce([tiny], AllreduceOptions()).wait())
        backend = max(0.0, wrapped - raw)
        message = Identity(Kind.STEP, line="train.py:31").packed()

        def enter() -> None:
            transport.enter(message, compare)
            transport.pass_gate()

        entering = timed(enter)
    return {
        "copies_ms": timed(copies),
        "transaction_ms": timed(transaction),
        "backend_call_ms": backend,
        "masks_ms": timed(masks),
        "entering_ms": entering,
    }


def measure(world: int, pairs: int, per_rank: int) -> dict[str, Any]:
    """Run `world` ranks and return what rank 0 measured."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        port = free_port()
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, "--rank-of", str(pairs), str(per_rank), str(result)],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=subprocess.DEVNULL,
            )
            for rank in range(world)
        ]
        codes = [process.wait(timeout=600) for process in ranks]
        if any(codes):
            raise SystemExit(f"a rank failed: exit codes {codes}")
        measured: dict[str, Any] = json.loads(result.read_text())
        return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", default="1,2,3")
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--per-rank", type=int, default=BATCH)
    parser.add_argument("--rank-of", nargs=3, metavar=("PAIRS", "PER_RANK", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        rank_main(int(arguments.rank_of[0]), int(arguments.rank_of[1]), Path(arguments.rank_of[2]))
        return
    print(f"{'ranks':>5} {'DDP ms':>9} {'ours ms':>9} {'ratio':>7} {'p95 ratio':>9}   pieces of ours, ms")
    worst, copies, backend, masks, telemetry, notes = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for world in [int(each) for each in arguments.worlds.split(",")]:
        got = measure(world, arguments.pairs, arguments.per_rank)
        ratios = sorted(a / b for a, b in zip(got["ours"], got["ddp"], strict=True))
        ratio = statistics.median(ratios)
        noting = noting_ratio(got["ours"], got["noted"])
        print(
            f"{world:>5} {1e3 * statistics.median(got['ddp']):>9.2f} {1e3 * statistics.median(got['ours']):>9.2f} "
            f"{ratio:>7.3f} {ratios[int(0.95 * len(ratios))]:>9.2f}   staging copies {got['copies_ms']:.2f}, "
            f"transaction {got['transaction_ms']:.2f}, Python in one collective {got['backend_call_ms']:.3f}, "
            f"48 MB of constant buffers {got['masks_ms']:.3f}, comparing operations {got['entering_ms']:.3f}, "
            f"noting {got['calls']} collectives {got['note_ms']:.3f} (steps with telemetry / without: {noting:.4f})   "
            f"(n={len(ratios)})",
            flush=True,
        )
        worst = max(worst, ratio)
        copies, backend = max(copies, got["copies_ms"]), max(backend, got["backend_call_ms"])
        telemetry, notes = max(telemetry, noting), max(notes, got["note_ms"])
        masks = max(masks, got["masks_ms"] / (1e3 * statistics.median(got["ours"])))
    print(
        f"overhead_vs_ddp={worst:.3f} backend_ms={backend:.3f} copies_ms={copies:.2f} constant_buffers={masks:.5f} "
        f"telemetry_ratio={telemetry:.4f} telemetry_of_100ms={notes / 100:.6f}"
    )


def noting_ratio(steps: list[float], noted: list[bool]) -> float:
    """How much longer a step is that notes what it does, beside its neighbours that do not: the median of pairs."""
    blocks = [list(each) for _, each in itertools.groupby(zip(noted, steps, strict=True), key=lambda step: step[0])]
    pairs = [
        min(time for _, time in one) / min(time for _, time in other)
        if one[0][0]
        else min(time for _, time in other) / min(time for _, time in one)
        for one, other in itertools.pairwise(blocks)
    ]
    return statistics.median(pairs)


if __name__ == "__main__":
    main()
