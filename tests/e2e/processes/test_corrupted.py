"""A bit flips in the memory of one rank of a real job: it is named to the outside, and nothing else happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from drivetrain_api import constants
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import Report
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import ReportView
from harness.job import QUICK, ROOT, LocalJob
from unit.plan.builders import running, worker

SCRIPT = Path(__file__).with_name("corrupted.py")
TRAINING = RuntimeTraining(steps=24, global_batch=24, deterministic=True, virtual_shards=4)
STEP = 10


def ends(folder: Path) -> dict[int, str]:
    """The state that each process ended with, by its id."""
    found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in folder.glob("end-*.json")]
    return {each["pid"]: each["sha256"] for each in found}


def undisturbed(folder: Path) -> str:
    """One process, and nothing flips."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}",
        constants.ENV_SPEC: RuntimeSpec(training=TRAINING).model_dump_json(),
        "FOLDER": str(folder),
    }
    subprocess.run([sys.executable, str(SCRIPT)], env=environment, check=True, capture_output=True)
    return next(iter(ends(folder).values()))


def events(report: Report, uid: str) -> list[tuple[str, str]]:
    """What the operator tells of a report, if the pod with this uid is worker 1 on a node of its own."""
    pods = (worker(0), worker(1, uid=uid, node="struck"), worker(2))
    view = running(report=ReportView(report.model_copy(update={"job_uid": "x"}), 0.1))
    told = plan(type(view)(**{**{name: getattr(view, name) for name in view.__slots__}, "pods": pods})).effects
    return [(each.reason, each.message) for each in told if isinstance(each, RecordEvent)]


async def test_a_bit_that_flips_costs_nothing_and_is_told(tmp_path: Path) -> None:
    (tmp_path / f"flip-{STEP}").touch()
    spec = RuntimeSpec(workers=3, min_workers=3, spares=0, check_every_steps=5, training=TRAINING)
    environment = {"FOLDER": str(tmp_path), "SLOW": "0.05"}
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT)], environment) as running_:
        before = await running_.wait_for(lambda report: report.progress is not None and report.progress.step >= 1)
        report = await running_.wait_for(
            lambda report: report.progress is not None and bool(report.progress.corruptions)
        )
        assert await running_.completed() == [ExitCode.COMPLETE] * 3
    assert report.progress is not None
    (found,) = report.progress.corruptions
    struck = before.members[1]
    assert (found.step, found.rank, found.process, found.known) == (STEP, 1, struck.process, True)
    assert found.what == "parameter 0.weight"
    assert ends(tmp_path) == dict.fromkeys((each.pid for each in before.members), undisturbed(tmp_path / "alone"))
    assert not report.failures
    assert (
        "StateCorrupted",
        f"rank 1 in pod {worker(1).name} on node struck held other bits than its peers in parameter 0.weight before "
        f"step {STEP}, has taken the state of rank 0, and training went on",
    ) in events(report, struck.pod_uid)
