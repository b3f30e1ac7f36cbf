"""A rank of a real job hangs: who, where and in which collective the others are is known soon, and nothing else is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivetrain_api.places import Standstill
from drivetrain_api.report import Report
from drivetrain_api.runtime import RuntimePipeline, RuntimeSpec, RuntimeTraining
from harness.job import QUICK, ROOT, LocalJob

SCRIPT = Path(__file__).with_name("hanging.py")
LIMIT = 2.0
"""Seconds without a move, instead of 5."""
NAMED_SECONDS = 15.0
ENVIRONMENT = {
    "SLOW_STEPS": "0 5",
    "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{QUICK}:{ROOT / 'tests'}",
}
RING = RuntimeTraining(global_batch=12, bucket_bytes=8192)
ZERO = RING.model_copy(update={"zero": 2})
PIPELINE = RING.model_copy(update={"pipeline": RuntimePipeline(stages=2), "microbatches": 2})


@dataclass(frozen=True)
class Hang:
    """`where` as in the script. `at`: what the rank's own line says; `stack`: what of its stack must be there."""

    where: str
    rank: int
    at: str
    stack: str = "in asleep"


def hangs(workers: int) -> list[Hang]:
    """One of each kind, on different ranks."""
    table = [
        ("dataset", "hanging.py", "in asleep"),
        ("forward", "hanging.py", "in asleep"),
        ("backward", "hanging.py", "in asleep"),
        ("optimizer", "hanging.py", "in asleep"),
        ("between", "hanging.py", "in asleep"),
        ("lock", "hanging.py", "in locked"),
        ("native", "in_native_code", "in in_native_code"),
    ]
    return [Hang(where, (workers - 1 + number) % workers, at, stack) for number, (where, at, stack) in enumerate(table)]


JOBS: dict[str, tuple[RuntimeTraining, int, Sequence[str]]] = {
    "ring": (RING, 3, ("dataset", "forward", "backward", "optimizer", "between", "lock", "native")),
    "ZeRO": (ZERO, 2, ("forward", "backward", "optimizer", "native")),
    "pipeline": (PIPELINE, 4, ("dataset", "forward", "backward", "between")),
}


async def test_one_that_is_stopped_and_one_in_a_collective_of_its_own(tmp_path: Path) -> None:
    """Neither can be asked to go on: the first is replaced at once, and nobody is late for the second."""
    spec = RuntimeSpec(workers=2, min_workers=2, spares=0, training=RING.model_copy(update={"steps": 99}))
    plan = json.dumps([(12, ("stopped", 1)), (16, ("collective", 0))])
    environment = {"FOLDER": str(tmp_path), "HANGS": plan, "GROUP": "1", **ENVIRONMENT, "SLOW_STEPS": ""}
    async with LocalJob.run(
        tmp_path,
        spec,
        [sys.executable, str(SCRIPT)],
        environment,
        coordinator_arguments=("--standstill-seconds", str(LIMIT)),
    ) as job:
        report = await job.wait_for(lambda report: bool(report.failures))
        (failure,) = report.failures
        assert failure.rank == 1
        assert "stopped (SIGSTOP)" in failure.remedy
        found = await named(job, 16)
        assert found.late == []
        assert "both ranks wait for one another in run.step (hanging.py:" in found.message
        assert "in different collectives: rank " in found.message
        assert " in allreduce #" in found.message
        assert any("alone_in_a_collective" in look.stack for look in found.looks)


async def named(job: LocalJob, step: int) -> Standstill:
    """What is said of the hang in this step."""
    found = found_in(await job.wait_for(lambda report: found_in(report, step) is not None), step)
    assert found is not None
    return found


def found_in(report: Report, step: int) -> Standstill | None:
    """What is said of a hang in this step, when launchers have looked."""
    still = report.standstill
    steps = (step, step + 1)  # one that hangs in its update has the others wait in the next step
    here = still is not None and any(f"at step {each}: " in still.message for each in steps)
    return still if still is not None and here and still.looks else None


@pytest.mark.parametrize("name", JOBS)
async def test_who_hangs_is_named_with_its_line_and_the_collective_of_the_others(tmp_path: Path, name: str) -> None:
    training, workers, wheres = JOBS[name]
    cases = {12 + 2 * n: each for n, each in enumerate(h for h in hangs(workers) if h.where in wheres)}
    steps = max(cases) + 3
    spec = RuntimeSpec(
        workers=workers, min_workers=workers, spares=0, training=training.model_copy(update={"steps": steps})
    )
    plan = json.dumps([(step, (each.where, each.rank)) for step, each in cases.items()])
    environment = {"FOLDER": str(tmp_path), "HANGS": plan, **ENVIRONMENT}
    missed = []
    async with LocalJob.run(
        tmp_path,
        spec,
        [sys.executable, str(SCRIPT)],
        environment,
        coordinator_arguments=("--standstill-seconds", str(LIMIT)),
    ) as job:
        for step, each in cases.items():
            found = await named(job, step)
            if (wrong := what_is_wrong(each, found)) is not None or found.seconds > NAMED_SECONDS:
                missed.append((each, wrong, found))
            (tmp_path / f"released-{step}").touch()
        assert len(missed) <= 0.1 * len(cases), missed
        assert await job.completed() == [0] * workers
        assert job.operator.reports[-1].failures == []
        told = [report.standstill.message for report in job.operator.reports if report.standstill is not None]
        # What is slow, and what moves, does not hang.
        assert [
            each for each in told if not any(f"at step {n}: " in each for step in cases for n in (step, step + 1))
        ] == []


def what_is_wrong(given: Hang, found: Standstill) -> str | None:
    """Which part of the answer is missing."""
    look = next((look for look in found.looks if look.rank == given.rank), None)
    if given.rank not in found.late or look is None:
        return "the rank"
    if f"rank {given.rank} (pod-" not in found.message or given.at not in found.message:
        return "its line"
    if not ("#" in found.message and "run.step (hanging.py:" in found.message):
        return "the collective of the others"
    return None if given.stack in look.stack else "its stack"
