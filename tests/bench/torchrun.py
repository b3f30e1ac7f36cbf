"""The named baseline: the recovery benchmark's script under torchrun, one agent a worker, saving every 10 steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.ledger import Ledger
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from harness.ports import free_port

LIMIT_SECONDS = 90.0
TUNED_CONFIG = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=2"


def _agents(script: Path, folder: Path, batch: int, tuned: bool) -> list[subprocess.Popen[bytes]]:
    port = free_port()
    spec = RuntimeSpec(training=RuntimeTraining(steps=100_000, global_batch=batch, clip_norm=1.0))
    environment = {
        **os.environ,
        "BENCH_FOLDER": str(folder),
        "BENCH_SAVE_EVERY": "10",
        "DRIVETRAIN_SPEC": spec.model_dump_json(),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2:3", "--nproc-per-node", "1"),
        *("--max-restarts", "100", "--rdzv-backend", "c10d", "--rdzv-id", "bench"),
        *("--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"),
        *(("--rdzv-conf", TUNED_CONFIG, "--monitor-interval", "0.1") if tuned else ()),
        str(script),
    ]
    return [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        for _ in range(3)
    ]


def _one(script: Path, batch: int, tuned: bool) -> float | None:
    """Seconds from killing one rank to the first step that three ranks of a later attempt finished."""
    with tempfile.TemporaryDirectory(prefix="drivetrain-torchrun-") as name:
        folder = Path(name)
        agents = _agents(script, folder, batch, tuned)
        try:
            ledger = Ledger(folder)
            if not _until(ledger, lambda: len(ledger.members()) == 3 and ledger.newest_step() >= 15):
                return None
            before = set(ledger.members().values())
            step_seconds = ledger.median_step_seconds((1, 1))
            at = time.time()
            os.kill(next(iter(before)), signal.SIGKILL)

            def finished() -> list[float]:
                fresh = [each for each in ledger.steps if each.pid not in before]
                by_step: dict[int, dict[int, float]] = {}
                for each in fresh:
                    by_step.setdefault(each.step, {})[each.pid] = each.at
                return [max(times.values()) for times in by_step.values() if len(times) == 3]

            if not _until(ledger, lambda: bool(finished())):
                return None
            return min(finished()) - at - step_seconds
        finally:
            for agent in agents:
                # Workers are children of the agent in sessions of their own: end every process of this folder.
                agent.kill()
                agent.wait()
            _kill_by_environment(f"BENCH_FOLDER={folder}")


def _until(ledger: Ledger, test: object) -> bool:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        ledger.read()
        if test():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def _kill_by_environment(wanted: str) -> None:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted.encode() in (path / "environ").read_bytes().split(b"\0"):
                os.kill(int(path.name), signal.SIGKILL)
        except OSError:
            continue


def torchrun_recovery(script: Path, runs: int, batch: int) -> float:
    """Print default and tuned torchrun, and return the tuned median in ms (nan without runs)."""
    result = float("nan")
    for tuned in (False, True):
        times = [_one(script, batch, tuned) for _ in range(runs)]
        back = [seconds for seconds in times if seconds is not None]
        print(
            f"torchrun {'tuned' if tuned else 'default'}: {runs} kills of one rank of three agents, "
            f"back within {LIMIT_SECONDS:.0f} s: {len(back)}; ms: {[round(1e3 * each) for each in back]}",
            flush=True,
        )
        if tuned and back:
            result = 1e3 * median(back)
    return result
