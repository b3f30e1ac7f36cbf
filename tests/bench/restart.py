"""A rank of a stock script is killed, or a whole worker: how long until all ranks finish a step again? Under us and
torchrun, in one run.

Two workers of one rank each, on this machine. Ours are real launchers and a real coordinator, without Kubernetes;
torchrun has one agent a worker. A worker that was killed is started anew at once in both, cold: how fast a pod is
replaced is the cluster's business. It is always the second worker, because torchrun does not survive the loss of the
agent that has its store. Tuned is torchrun with a store of each attempt's own, too: with the shared one ranks dial
addresses of the attempt before, and most kills are the end (pytorch#135712).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
LIMIT_SECONDS = 60.0


class Steps:
    """What the ranks tell of their steps; each line is read once, so that reading takes no longer as a run grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._rest: dict[Path, str] = {}

    def new(self) -> list[tuple[int, float]]:
        """(pid, when) of each step that was told since the last call."""
        found: list[tuple[int, float]] = []
        for path in self._folder.glob("rank-*"):
            with path.open() as file:
                file.seek(self._read.get(path, 0))
                text = self._rest.get(path, "") + file.read()
                self._read[path] = file.tell()
            whole, _, self._rest[path] = text.rpartition("\n")
            found += [(int(pid), float(at)) for pid, _, at in (line.split() for line in whole.splitlines())]
        return found

    async def until_all(self, since: float, without: set[int]) -> dict[int, float]:
        """The first step of each rank after `since`, by processes that are not among `without`. Raises TimeoutError."""
        first: dict[int, float] = {}
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(first) < RANKS:
                for pid, at in sorted(self.new(), key=lambda step: step[1]):
                    if at > since and pid not in without:
                        first.setdefault(pid, at)
                await asyncio.sleep(0.02)
        return first


async def kills(
    folder: Path,
    count: int,
    pause: float,
    warm: Callable[[], Awaitable[None]],
    kill: Callable[[int, list[int]], Awaitable[None]],
) -> list[float]:
    """Seconds from each kill to the first step of the last rank that is back. `kill` gets the number of the kill, and
    the ranks' pids."""
    told = Steps(folder)
    alive = set(await told.until_all(0.0, set()))
    took: list[float] = []
    for number in range(count):
        await asyncio.sleep(pause)
        await warm()
        at = time.time()
        await kill(number, sorted(alive))
        try:
            first = await told.until_all(at, alive)
        except TimeoutError:
            return [*took, math.inf]  # and would not come back for minutes: ADR 0014 has the reason
        took.append(max(first.values()) - at)
        alive = set(first)
    return took


async def one_rank(number: int, pids: list[int]) -> None:
    """One after the other."""
    os.kill(pids[number % RANKS], signal.SIGKILL)


async def ours(count: int, *, pods: bool = False) -> list[float]:
    """Under launchers and a coordinator, a spare in each worker."""
    with tempfile.TemporaryDirectory(prefix="drivetrain-restart-") as name:
        folder = Path(name)
        spec = RuntimeSpec(runtime="torchrun", workers=RANKS, min_workers=RANKS, spares=1, max_restarts=1000)
        environment = {"BENCH_FOLDER": name, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as job:

            async def warm() -> None:
                await job.wait_for(lambda report: report.world == RANKS)

            async def second_pod(number: int, pids: list[int]) -> None:
                del number, pids
                await job.kill_pod(next(pod.uid for pod in job.pods.values() if pod.index == RANKS - 1))
                await job.start_pod(RANKS - 1)

            # Sooner would be a failure of a young script, which is not started again at once.
            return await kills(folder, count, YOUNG_SECONDS + 2.0, warm, second_pod if pods else one_rank)


async def torchrun(count: int, *, tuned: bool, pods: bool = False) -> list[float]:
    """Under agents; under new ones after a kill that they did not come back from."""
    took: list[float] = []
    while len(took) < count:
        took += await _agents(count - len(took), tuned=tuned, pods=pods)
    return took


async def _agents(count: int, *, tuned: bool, pods: bool) -> list[float]:
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
        if tuned:
            environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        agents = [_agent(command, environment)]
        await _listens(int(port.value))  # the first agent has the store
        agents += [_agent(command, environment) for _ in range(1, RANKS)]

        async def last_agent(number: int, pids: list[int]) -> None:
            del number
            ranks = [pid for pid in pids if _parent(pid) == agents[-1].pid]
            agents[-1].kill()
            for pid in ranks:
                os.kill(pid, signal.SIGKILL)
            agents[-1].wait()
            agents[-1] = _agent(command, environment)

        try:
            return await kills(Path(name), count, 3.0, _nothing, last_agent if pods else one_rank)
        finally:
            for agent in agents:
                agent.send_signal(signal.SIGTERM)  # its rank is in a session of its own, and is its to end
            for agent in agents:
                _end(agent)
            port.release()


def _agent(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(agent: subprocess.Popen[bytes]) -> None:
    """With its rank. Agents that are at a rendezvous do not hear SIGTERM for minutes."""
    try:
        agent.wait(10)
    except subprocess.TimeoutExpired:
        ranks = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(int(path.name)) == agent.pid]
        for pid in (agent.pid, *ranks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        agent.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)


def _parent(pid: int) -> int:
    """0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


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
    parser.add_argument("--pods", type=int, default=20, help="kills of a worker, under each (default: 20)")
    parser.add_argument("--default", type=int, help="as many of both under torchrun as it comes (default: all)")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    for of, count in (("restart", given.kills), ("pod", given.pods)):
        if count:
            figures |= compared(of, count, count if given.default is None else min(count, given.default))
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))
    return 0 if figures.get("ratio", math.inf) >= 3.0 else 1


def compared(of: str, count: int, default: int) -> dict[str, float]:
    """A table, and figures: "restart" for kills of a rank, "pod" for kills of a worker."""
    pods = of == "pod"
    print(f"{count} kills of a {'worker' if pods else 'rank'}", flush=True)
    mine = asyncio.run(ours(count, pods=pods))
    told("  drivetrain", mine)
    told("  torchrun, default", asyncio.run(torchrun(default, tuned=False, pods=pods)))
    tuned = asyncio.run(torchrun(count, tuned=True, pods=pods))
    told("  torchrun, tuned", tuned)
    before = "pod_" if pods else ""
    return {
        f"{of}_p95_s": p95(mine),
        f"{before}torchrun_tuned_s": p95(tuned),
        f"{before}ratio": p95(tuned) / p95(mine),
    }


if __name__ == "__main__":
    sys.exit(main())
