"""Scripts for real libraries, unchanged: one rank is killed in the middle, and they go on from their own checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from drivetrain_api.exit_codes import ExitCode
from frameworks.job_of_script import Script, run, script_of

TORCHRUN = ("torchrun", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d")
ACCELERATE = ("accelerate", "launch", "--num_machines", "2", "--num_processes", "4")

SCRIPTS = {
    "transformers": Script("transformers_trainer.py", ("--output", "OUT"), 10, 60),
    "accelerate": Script("accelerate_loop.py", ("--output", "OUT"), 10, 90, bound=0.05),
    "lightning": Script("lightning_trainer.py", ("--output", "OUT"), 10, 90, bound=0.05),
    # Within one pass: Fabric numbers passes from 0 at each start, so the order of a later one is not the same again.
    "fabric": Script("fabric_loop.py", ("--output", "OUT", "--steps", "55"), 10, 55),
    "fsdp2": Script("fsdp2_loop.py", ("--output", "OUT"), 10, 60),
    "ddp": Script("ddp_tutorial.py", ("40", "5", "--output", "OUT"), 5, 40),
    "classification": Script("classification.py", ("--output-dir", "OUT", "--resume", "OUT/checkpoint.pth"), 1, 12),
    "torchrun": Script("ddp_tutorial.py", ("40", "5", "--output", "OUT"), 5, 40, launcher=TORCHRUN),
    "two-processes-a-worker": Script(
        "accelerate_loop.py", ("--output", "OUT"), 10, 90, bound=0.05, launcher=ACCELERATE, processes=2
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_killed_rank_costs_the_steps_since_the_checkpoint(name: str, tmp_path: Path) -> None:
    script = SCRIPTS[name]
    async with run(script, tmp_path / "undisturbed", spares=0) as undisturbed:
        assert await undisturbed.job.completed(120.0) == [ExitCode.COMPLETE] * 2, undisturbed.job.logs()
        expected = dict(undisturbed.losses())
    assert list(expected) == list(range(1, script.steps + 1))

    async with run(script, tmp_path / "disturbed") as disturbed:
        await disturbed.at_step(2 * script.every + max(1, script.every // 3))
        os.kill(script_of(list(disturbed.job.pods.values())[1]), signal.SIGKILL)
        launchers = {pod.process.pid for pod in disturbed.job.pods.values()}
        assert await disturbed.job.completed(120.0) == [ExitCode.COMPLETE] * 2, disturbed.job.logs()
        assert launchers == {pod.process.pid for pod in disturbed.job.pods.values()}
        last = disturbed.job.operator.reports[-1]
        assert [(failure.signal, failure.incident) for failure in last.failures] == [(signal.SIGKILL, 1)]
        printed = disturbed.printed()
        before, after = disturbed.cut()

    # From the last checkpoint that was whole, and no step before it again.
    begins = after[0][0] - 1
    assert begins % script.every == 0
    assert begins >= 2 * script.every
    assert 0 <= before[-1][0] - begins <= script.every
    assert [step for step, _ in before] == list(range(1, before[-1][0] + 1))
    assert [step for step, _ in after] == list(range(begins + 1, script.steps + 1))
    final, wanted = after[-1][1], expected[script.steps]
    assert abs(final - wanted) <= script.bound * abs(wanted), f"{final} instead of {wanted}"
    assert printed.count("drivetrain: this script never calls drivetrain.start()") == 1
    ranks = 2 * script.processes
    assert printed.count(f"drivetrain: starts again with {ranks} ranks, after 1 failure: ") == 1
