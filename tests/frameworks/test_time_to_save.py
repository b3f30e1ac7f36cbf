"""A worker is drained: frameworks that save at SIGTERM begin again where they were.

Lightning does so with our callback. Without it, ranks that SIGTERM finds at different operations wait for each other
until their time is up; then the last checkpoint counts.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from drivetrain_api.exit_codes import ExitCode
from frameworks.job_of_script import Script, run

LIGHTNING = ("--output", "OUT", "--steps", "800", "--save-on-exception")
SCRIPTS = {
    "transformers": Script("transformers_trainer.py", ("--output", "OUT", "--steps", "200", "--just-in-time"), 10, 200),
    "lightning": Script("lightning_trainer.py", LIGHTNING, 10, 800),
    "lightning-with-callback": Script("lightning_trainer.py", (*LIGHTNING, "--save-at-sigterm"), 10, 800),
}
AGAIN = {"transformers": 1, "lightning": 10, "lightning-with-callback": 0}
"""Steps that are made once more: Transformers may save between a backward and its update, which it still makes."""


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_drain_is_no_failure_and_costs_no_checkpoint_interval(name: str, tmp_path: Path) -> None:
    script = SCRIPTS[name]
    async with run(script, tmp_path, minimum=1, spares=0) as running:
        await running.at_step(13)
        leaver = list(running.job.pods.values())[1]
        running.job.target = 1
        leaver.process.send_signal(signal.SIGTERM)
        assert await running.job.left(leaver, 60.0) == ExitCode.LEFT
        await running.job.publish()
        assert await running.job.completed(120.0) == [ExitCode.COMPLETE]
        before, after = running.cut()
        assert 0 <= before[-1][0] + 1 - after[0][0] <= AGAIN[name]
        assert [step for step, _ in before] == list(range(1, before[-1][0] + 1))
        assert [step for step, _ in after] == list(range(after[0][0], script.steps + 1))
        last = running.job.operator.reports[-1]
        assert (last.failures, last.recoveries) == ([], 0)
