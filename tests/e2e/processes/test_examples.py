"""Examples' jobs, as their manifests say, to the loss that the manifests state."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.resolve import to_runtime
from drivetrain_api.rules import violations
from drivetrain_api.spec import TrainingJobSpec
from harness.job import ROOT, LocalJob

STATED = re.compile(r"^# Ends with a held-out loss below ([0-9.]+)\.$", re.M)
TOLD = re.compile(r"held-out loss ([0-9.]+) before, ([0-9.]+) after (\d+) steps")
MANIFESTS = sorted(path for path in (ROOT / "examples").glob("*/job.yaml") if path.parent.name != "charlm")
"""`make e2e` runs charlm on a real cluster."""


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
async def test_an_example_reaches_its_loss(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text()
    (limit,) = map(float, STATED.findall(text))
    job = yaml.safe_load(text)
    assert violations(job) == []
    spec = TrainingJobSpec.model_validate(job["spec"])
    assert spec.command is not None
    command = [sys.executable, *[str(ROOT / word) if word.endswith(".py") else word for word in spec.command[1:]]]
    # Nobody dies here, so spares would only load torch in twice as many processes.
    runtime = to_runtime(spec).model_copy(update={"spares": 0})
    async with LocalJob.run(tmp_path, runtime, command, {"OUTPUT": str(tmp_path)}, forked=True) as running:
        assert set(await running.completed()) == {ExitCode.COMPLETE}
        told = TOLD.findall(running.logs(100_000))
    assert told
    for before, after, steps in told:
        assert int(steps) == spec.training.steps
        assert float(after) < limit < float(before)
