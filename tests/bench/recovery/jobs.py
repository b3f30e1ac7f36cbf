"""Run jobs that are broken on the way, and one that is not, and take down how they ended."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.ledger import Ledger
from bench.planes import Plane
from bench.recovery.faults import Faults
from bench.recovery.outcome import Outcome, Totals
from drivetrain_api.runtime import RuntimeSnapshots, RuntimeSpec

SCRIPT = Path(__file__).parents[1] / "recovery_train.py"
BATCH, SAMPLES = 48, 4800
LAST_STEPS = 100
"""No more faults so near the end, but for one at the very last step."""
END_SECONDS = 900


async def one_job(
    plane: Plane,
    spec: RuntimeSpec,
    kinds: list[str],
    chance: random.Random,
    totals: Totals,
    *,
    keeps: bool = False,
    kill_last: bool = True,
) -> None:
    """Start a job, take faults from `kinds`, kill once more at the very last step, and check everything at the end.
    `keeps` each step in a folder."""
    steps = spec.training.steps
    assert steps is not None
    with tempfile.TemporaryDirectory(prefix="drivetrain-bench-") as name:
        folder = Path(name)
        if keeps:
            kept = folder / "snapshots"
            kept.mkdir()
            spec = spec.model_copy(update={"snapshots": RuntimeSnapshots(storage=str(kept), commit_seconds=0.0)})
        command = [sys.executable, "-m", "bench.recovery_train"]
        async with plane.job(folder, spec, command, {"BENCH_FOLDER": name}):
            faults = Faults(folder, plane, chance, totals)
            first = len(totals.outcomes)
            while kinds and faults.ledger.newest_step() < steps - LAST_STEPS:
                kind = kinds.pop(0)
                if not await faults.strike(kind):
                    kinds.append(kind)
                    if faults.stuck:
                        break
            # By turns: nobody has the step's sum yet, so it is done again; all have it, and only finish without the
            # victim.
            if kill_last:
                await faults.until(END_SECONDS, lambda: _whole_or_late(faults, steps))
                faults.arm(f"any-last-{('bucket', 'reduced')[totals.jobs % 2]}", action="kill")
            ended = await plane.succeeded(END_SECONDS)
            faults.ledger.read()
            faults.disarm()
            if ended and (last := _killed_last(faults.ledger, steps - 1)) is not None:
                totals.outcomes.append(last)
                print(f"  {'last':<12}{1e3 * (last.raw or 0):>8.0f} ms raw", flush=True)
            for outcome in totals.outcomes[first:]:
                outcome.step_seconds = faults.ledger.median_step_seconds(outcome.membership)
            if not ended:
                totals.problems.append(f"the job did not end: {plane.describe()}")
                return
            _take_down(faults.ledger, steps, totals)


async def _whole_or_late(faults: Faults, steps: int) -> bool:
    """Whether who is killed would be replaced at once, or the last step is too near to wait for that."""
    return faults.ledger.newest_step() >= steps - 5 or await faults.settled()


def _killed_last(ledger: Ledger, step: int) -> Outcome | None:
    """The armed kill at the last step; None if it did not come to it."""
    kills = [each for each in ledger.faults if each["step"] == step and each["action"] == "kill"]
    if not kills:
        return None
    at = kills[-1]["at"]
    final = [each for each in ledger.steps if each.step == step and each.at > at]
    if not final:
        return None
    return Outcome("last", at, max(each.at for each in final), max(each.membership for each in final))


def _take_down(ledger: Ledger, steps: int, totals: Totals) -> None:
    ends = ledger.ends
    totals.jobs += 1
    totals.counts.update(ledger.counts())
    totals.lost += ledger.lost_samples(steps, BATCH, SAMPLES)
    totals.peak_mb.append(max(each["peak_mb"] for each in ends))
    totals.equal_members += len({each["sha256"] for each in ends}) == 1
    totals.hashes.append(ends[0]["sha256"])
    totals.losses.append(max(ends, key=lambda end: end["losses"])["loss"])  # not a newcomer's


def uninterrupted(spec: RuntimeSpec) -> tuple[str, float]:
    """The same training in one process: its final hash and loss."""
    with tempfile.TemporaryDirectory(prefix="drivetrain-bench-") as folder:
        environment = {
            **os.environ,
            "BENCH_FOLDER": folder,
            "DRIVETRAIN_SPEC": spec.model_dump_json(),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        subprocess.run([sys.executable, str(SCRIPT)], env=environment, check=True, stdout=subprocess.DEVNULL)
        ledger = Ledger(Path(folder))
        ledger.read()
        return ledger.ends[0]["sha256"], ledger.ends[0]["loss"]
