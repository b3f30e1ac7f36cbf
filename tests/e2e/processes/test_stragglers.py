"""Is it found who holds the others up, on real ranks? One of them is late, in one stage of its steps."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.holdup import StageTimes
from drivetrain_api.runtime import RuntimeSpec, RuntimeTraining
from drivetrain_coordinator.membership import lateness
from drivetrain_coordinator.membership.lateness import Late, Rank
from harness.job import LocalJob
from harness.ports import free_port

SCRIPT = Path(__file__).with_name("delayed.py")
STAGES = ("data", "forward", "backward", "update", "script")
GROUPS = ((2, 20), (4, 20), (8, 10))
"""Ranks, and delays that are hidden among them."""
Case = tuple[int | None, str, float]


def hidden(world: int, count: int) -> list[Case]:
    """So many delays (rank, stage, part of a step); before each few of them nobody is late."""
    choose = random.Random(world)
    cases: list[Case] = []
    for number in range(count):
        if number % 5 == 0:
            cases.append((None, "", 0.0))
        cases.append((choose.randrange(world), STAGES[number % len(STAGES)], choose.uniform(0.5, 2.0)))
    return cases


def train(folder: Path, groups: list[tuple[str, int, list[Case]]]) -> None:
    """Each group after the other; all processes end well."""
    told = [(name, world, free_port(), cases) for name, world, cases in groups]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(told)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0


def found(folder: Path, name: str, world: int, case: int) -> Late | None:
    told: list[list[dict[str, Any]]] = [
        json.loads((folder / f"{name}-{rank}.json").read_text())[case] for rank in range(world)
    ]
    intervals = [lateness.intervals_of([StageTimes.model_validate(each) for each in ranks]) for ranks in told]
    return lateness.find([Rank(rank, each) for rank, each in enumerate(intervals)])


def again(folder: Path, groups: list[tuple[str, int, list[Case]]]) -> dict[tuple[int, Case], Late | None]:
    """What is said when training goes on in the cases in which nothing was found: on a machine that is busy with other
    things, the first seconds may be too noisy to tell."""
    missed = [
        (f"{name}-again", world, [(None, "", 0.0), *left])
        for name, world, cases in groups
        if (left := [case for at, case in enumerate(cases) if case[1] and found(folder, name, world, at) is None])
    ]
    train(folder, missed)
    return {
        (world, case): found(folder, name, world, at) for name, world, cases in missed for at, case in enumerate(cases)
    }


@pytest.mark.timeout(240)
def test_fifty_hidden_delays(tmp_path: Path) -> None:
    groups = [(str(world), world, hidden(world, count)) for world, count in GROUPS]
    train(tmp_path, groups)
    later = again(tmp_path, groups)
    first = among_two = stage_right = delays = 0
    alarms, wrong = [], []
    for name, world, cases in groups:
        for number, (rank, stage, part) in enumerate(cases):
            late = found(tmp_path, name, world, number)
            if rank is None:
                alarms += [] if late is None else [(world, late)]
                continue
            late = late or later[world, (rank, stage, part)]
            stages = () if late is None else tuple(map(str, late.stages))
            delays += 1
            first += late is not None and late.rank == rank
            among_two += late is not None and rank in late.ranks[:2]
            stage_right += stages == (stage,)
            if late is None or (late.rank, stages) != (rank, (stage,)):
                wrong.append((world, rank, stage, round(part, 2), late))
    assert delays == 50
    assert not alarms
    assert first >= 48, wrong
    assert among_two == 50, wrong
    assert stage_right >= 45, wrong


async def test_a_job_that_is_held_up_says_by_whom(tmp_path: Path) -> None:
    """From ranks by way of launchers and coordinator to what the operator hears."""
    spec = RuntimeSpec(workers=3, training=RuntimeTraining(steps=100_000, global_batch=12))
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT.with_name("late_in_steps.py"))]) as job:
        report = await job.wait_for(lambda report: report.holdup is not None)
        found = report.holdup
        assert found is not None
        assert (found.rank, found.stage, found.late) == (1, "data", [1])
        assert (found.process, found.pod_uid) == (report.members[1].process, report.members[1].pod_uid)
        assert found.slower_by > 0.05
        assert found.share > 0.3
        assert report.holdup_known
