"""How much faster is a job with one slow rank when shares follow throughput? Run by `make bench-balance` (root).

Two ranks, each on a core of its own; the second is held to a third of its core by a cgroup quota. Runs with even and
with balanced shares take turns. With no other cost than that of samples, balance would make it twice as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import drivetrain
from harness.ports import free_port

WORLD, BATCH, FEATURES = 2, 1536, 512
STEPS, LOOKED_AT = 60, 30
QUOTA, PERIOD = 3333, 10_000
"""Microseconds: a third of a core, in slices that are short beside a step."""


class Noise:
    """Fixed random samples."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(8192, FEATURES, generator=generator)
        self.targets = torch.randint(0, 10, (8192,), generator=generator)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self.inputs[indices], self.targets[indices], strict=True))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[index], self.targets[index]


def forward(model: nn.Module, shard: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, targets = shard
    return F.cross_entropy(model(inputs), targets)


def rank_main(every: int, result: Path) -> None:
    """One rank; rank 0 writes its step times. `every` 0: even shares."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {int(os.environ["RANK"]) % (os.cpu_count() or 1)})
    run = drivetrain.start(defaults={"steps": STEPS, "global_batch": BATCH, "seed": 3, "balance_every": every or None})
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(FEATURES, FEATURES), nn.ReLU())])
    run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9), data=Noise())
    times = []
    for batch in run.batches():
        started = time.perf_counter()
        run.step(batch, forward)
        times.append(time.perf_counter() - started)
    if os.environ["RANK"] == "0":
        result.write_text(json.dumps(times[-LOOKED_AT:]))


@contextlib.contextmanager
def third_of_a_core() -> Iterator[Path]:
    """A cgroup (v1 or v2) with that quota; its file of processes."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    folder = (root if unified else root / "cpu") / f"drivetrain-bench-{os.getpid()}"
    folder.mkdir()
    try:
        if unified:
            (folder / "cpu.max").write_text(f"{QUOTA} {PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(QUOTA))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def step_seconds(every: int, slow: Path) -> list[float]:
    """The last steps of one run."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "times.json"
        ranks = []
        for rank in range(WORLD):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(WORLD),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-m", "bench.balance", "--rank-of", str(every), str(result)]
            if rank == WORLD - 1:
                command = ["sh", "-c", f'echo $$ > {slow} && exec "$@"', "-", *command]
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        codes = [process.wait(timeout=300) for process in ranks]
        if any(codes):
            raise SystemExit(f"a rank failed: exit codes {codes}")
        found: list[float] = json.loads(result.read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rank-of", nargs=2, metavar=("EVERY", "RESULT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        rank_main(int(arguments.rank_of[0]), Path(arguments.rank_of[1]))
        return
    times: dict[str, list[float]] = {"even": [], "balanced": []}
    with third_of_a_core() as slow:
        for number in range(arguments.runs):
            for name, every in (("even", 0), ("balanced", 10)) if number % 2 else (("balanced", 10), ("even", 0)):
                found = step_seconds(every, slow)
                times[name] += found
                print(f"run {number + 1}, {name}: {1e3 * statistics.median(found):.1f} ms a step", flush=True)
    even, balanced = (statistics.median(times[name]) for name in ("even", "balanced"))
    print(f"{'shares':<10}{'p50 ms':>9}{'p95 ms':>9}{'steps':>7}")
    for name, found in times.items():
        ordered = sorted(found)
        p95 = ordered[int(0.95 * len(ordered))]
        print(f"{name:<10}{1e3 * statistics.median(found):>9.1f}{1e3 * p95:>9.1f}{len(found):>7}")
    print(f"balance_speedup={even / balanced:.2f} even_ms={1e3 * even:.1f} balanced_ms={1e3 * balanced:.1f}")


if __name__ == "__main__":
    main()
