"""A rank of a stock script is killed: how long until all ranks finish a step again? Under us and torchrun, in one run.

Two workers of one rank each, on this machine. Ours are real launchers and a real coordinator, without Kubernetes;
torchrun has one agent a worker. Only ranks are killed here: how fast a pod is replaced is the cluster's business.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from bench.torchrun import TUNED_CONFIG
from drivetrain.torchrun.course import YOUNG_SECONDS
from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob
from harness.ports import reserve_port

SCRIPT = Path(__file__).with_name("restart_train.py")
RANKS = 2
LIMIT_SECONDS = 120.0


def steps(folder: Path) -> list[tuple[int, float]]:
    """(pid, when) of each step of each rank."""
    lines = [line.split() for path in folder.glob("rank-*") for line in path.read_text().splitlines()]
    return [(int(line[0]), float(line[2])) for line in lines if len(line) == 3]


async def until_all_step(folder: Path, since: float, without: set[int]) -> dict[int, float]:
    """The first step of each rank after `since`, by processes that are not among `without`. Raises TimeoutError."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            first: dict[int, float] = {}
            for pid, at in sorted(steps(folder), key=lambda step: step[1]):
                if at > since and pid not in without:
                    first.setdefault(pid, at)
            if len(first) >= RANKS:
                return first
            await asyncio.sleep(0.02)


async def kills(folder: Path, count: int, pause: float, warm: Callable[[], Awaitable[None]]) -> list[float]:
    """Seconds from each kill to the first step of the last rank that is back."""
    alive = set(await until_all_step(folder, 0.0, set()))
    took: list[float] = []
    for number in range(count):
        await asyncio.sleep(pause)
        await warm()
        at = time.time()
        os.kill(sorted(alive)[number % RANKS], signal.SIGKILL)
        try:
            first = await until_all_step(folder, at, alive)
        except TimeoutError:
            return [*took, math.inf]  # and would not come back for minutes: ADR 0014 has the reason
        took.append(max(first.values()) - at)
        alive = set(first)
    return took


async def ours(count: int) -> list[float]:
    """Under launchers and a coordinator, a spare in each worker."""
    with tempfile.TemporaryDirectory(prefix="drivetrain-restart-") as name:
        folder = Path(name)
        spec = RuntimeSpec(runtime="torchrun", workers=RANKS, min_workers=RANKS, spares=1, max_restarts=1000)
        environment = {"BENCH_FOLDER": name, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as job:

            async def warm() -> None:
                await job.wait_for(lambda report: report.world == RANKS)

            # Sooner would be a failure of a young script, which is not started again at once.
            return await kills(folder, count, YOUNG_SECONDS + 2.0, warm)


async def torchrun(count: int, *, tuned: bool) -> list[float]:
    """Under agents; under new ones after a kill that they did not come back from."""
    took: list[float] = []
    while len(took) < count:
        took += await _agents(count - len(took), tuned=tuned)
    return took


async def _agents(count: int, *, tuned: bool) -> list[float]:
    port = reserve_port()
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", str(RANKS), "--nproc-per-node", "1"),
        *("--max-restarts", "1000", "--rdzv-backend", "c10d", "--rdzv-id", "bench", "--local-addr", "127.0.0.1"),
        *("--rdzv-endpoint", f"127.0.0.1:{port.value}"),
        *(("--rdzv-conf", TUNED_CONFIG, "--monitor-interval", "0.1") if tuned else ()),
        str(SCRIPT),
    ]
    with tempfile.TemporaryDirectory(prefix="drivetrain-restart-") as name:
        environment = {**os.environ, "BENCH_FOLDER": name, "OMP_NUM_THREADS": "1"}
        agents = [_agent(command, environment) for _ in range(RANKS)]
        try:
            return await kills(Path(name), count, 3.0, _nothing)
        finally:
            for agent in agents:
                agent.send_signal(signal.SIGTERM)  # its rank is in a session of its own, and is its to end
            for agent in agents:
                agent.wait(60)
            port.release()


def _agent(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _nothing() -> None:
    """There is nothing to wait for."""


def p95(values: list[float]) -> float:
    """The nearest one, of those that came back."""
    back = sorted(value for value in values if value < math.inf) or [math.inf]
    return back[max(0, math.ceil(0.95 * len(back)) - 1)]


def told(name: str, values: list[float]) -> None:
    """One line."""
    shown = ", ".join(f"{value:.2f}" for value in values)
    lost = f"{len(values)} kills, {values.count(math.inf)} not back after {LIMIT_SECONDS:.0f} s"
    middle = median([value for value in values if value < math.inf] or [math.inf])
    print(f"{name}: {lost}; of the others median {middle:.2f} s, p95 {p95(values):.2f} s; {shown}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of a rank, under each (default: 20)")
    count = parser.parse_args().kills
    mine = asyncio.run(ours(count))
    told("drivetrain", mine)
    default = asyncio.run(torchrun(count, tuned=False))
    told("torchrun, default", default)
    tuned = asyncio.run(torchrun(count, tuned=True))
    told("torchrun, tuned", tuned)
    ratio = p95(tuned) / p95(mine)
    print(f"restart_p95_s={p95(mine):.2f} torchrun_tuned_s={p95(tuned):.2f} ratio={ratio:.1f}")
    return 0 if ratio >= 3.0 else 1


if __name__ == "__main__":
    sys.exit(main())
