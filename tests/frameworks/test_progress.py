"""How far a script is, as its job's report says it: told by Transformers itself, by the others with a line more."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import Progress
from drivetrain_api.report import Report
from frameworks.job_of_script import SCRIPTS, Running, Script, run, script_of

LONG = ("--output", "OUT", "--steps", "1500")


def with_lines(script: Script, folder: Path, changes: Mapping[str, str]) -> Script:
    """A copy of it in which each of these pieces is another one."""
    text = (SCRIPTS / script.file).read_text()
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / script.file).write_text(text)
    return replace(script, file=str(folder / script.file))


async def progress(running: Running, step: int) -> Progress:
    """The first that is told of this step or a later one."""

    def there(report: Report) -> bool:
        return report.progress is not None and report.progress.step >= step

    found = (await running.job.wait_for(there, 90.0)).progress
    assert found is not None
    return found


async def test_transformers_tells_it_by_itself_and_again_after_a_death(tmp_path: Path) -> None:
    async with run(Script("transformers_trainer.py", LONG, 10, 1500), tmp_path) as running:
        first = await progress(running, 1)
        assert (first.steps, first.goes_back) == (1500, True)
        assert first.loss is not None
        assert 0.0 < first.loss < 5.0  # 4.85 is a guess among 128 letters
        assert first.step_seconds is not None
        assert {"learning_rate", "grad_norm"} <= first.metrics.keys()
        before = running.losses()[-1][0]
        os.kill(script_of(list(running.job.pods.values())[1]), signal.SIGKILL)
        await running.at_step_again(before + 1)
        later = await progress(running, before)
        assert (later.steps, later.goes_back) == (1500, True)
        assert later.step_seconds is not None
        # By its own count: the pace of this start, and not of steps that were made before it.
        assert later.step_seconds > first.step_seconds / 10


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        pytest.param(
            Script("lightning_trainer.py", LONG, 10, 1500),
            {
                "import torch\n": "import torch\nfrom drivetrain.integrations.lightning import ProgressCallback\n",
                "callbacks=[saver, Printer()]": "callbacks=[saver, Printer(), ProgressCallback()]",
            },
            id="lightning",
        ),
        pytest.param(
            Script("accelerate_loop.py", LONG, 10, 1500),
            {
                "import torch\n": "import torch\nfrom drivetrain.integrations import report\n",
                "            if accelerator.is_main_process:\n                print(": (
                    "            report(progress.step, options.steps, train_loss=mean)\n"
                    "            if accelerator.is_main_process:\n                print("
                ),
            },
            id="accelerate",
        ),
    ],
)
async def test_two_lines_tell_it(script: Script, changes: Mapping[str, str], tmp_path: Path) -> None:
    """It stays a script that is run as under torchrun."""
    async with run(with_lines(script, tmp_path, changes), tmp_path / "job") as running:
        found = await progress(running, 1)
        assert found.steps == 1500
        assert found.loss is not None
        assert "drivetrain: this script never calls drivetrain.start()" in running.printed()


async def test_the_last_steps_are_told(tmp_path: Path) -> None:
    script = with_lines(
        Script("fabric_loop.py", ("--output", "OUT"), 10, 90),
        tmp_path,
        {
            "import torch\n": "import torch\nfrom drivetrain.integrations import report\n",
            "            if fabric.is_global_zero:\n                print(": (
                "            report(state['step'], options.steps, loss=mean)\n"
                "            if fabric.is_global_zero:\n                print("
            ),
        },
    )
    async with run(script, tmp_path / "job") as running:
        assert await running.job.completed(120.0) == [ExitCode.COMPLETE] * 2, running.job.logs()
        last = running.job.operator.reports[-1].progress
        assert last is not None
        assert (last.step, last.steps) == (89, 90)
