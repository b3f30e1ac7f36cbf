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
from harness.often import often
from harness.ports import free_port

SCRIPT = Path(__file__).with_name("delayed.py")
STAGES = ("data", "forward", "backward", "update", "script")
GROUPS = ((2, often(20, 10)), (4, often(20, 10)), (8, often(10, 5)))
"""Ranks, and delays that are hidden among them."""
Case = tuple[int | None, str, float]
Group = tuple[str, int, list[Case]]


def hidden(world: int, count: int) -> list[Case]:
    """So many delays (rank, stage, part of a step); before each few of them nobody is late."""
    choose = random.Random(world)
    cases: list[Case] = []
    for number in range(count):
        if number % 5 == 0:
            cases.append((None, "", float(number)))
        cases.append((choose.randrange(world), STAGES[number % len(STAGES)], choose.uniform(0.5, 2.0)))
    return cases


def train(folder: Path, groups: list[Group], settings: dict[str, dict[str, Any]] | None = None) -> None:
    """Each group after the other; all processes end well."""
    told = [(name, world, free_port(), (settings or {}).get(name, {}), cases) for name, world, cases in groups]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), json.dumps(told)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0


def found(folder: Path, name: str, world: int, case: int) -> Late | None:
    told = [
        [StageTimes.model_validate(each) for each in json.loads((folder / f"{name}-{rank}.json").read_text())[case]]
        for rank in range(world)
    ]
    return lateness.find([Rank(rank, lateness.intervals_of(each), each[-1].part) for rank, each in enumerate(told)])


def outcomes(
    folder: Path, groups: list[Group], settings: dict[str, dict[str, Any]] | None = None
) -> list[tuple[str, Case, Late | None]]:
    """What is said of each case. Where that is nothing, although one is late, training goes on a little, as a job's
    does: on a machine that is busy with other things, the first seconds may be too noisy to tell."""
    train(folder, groups, settings)
    outcome = {
        (name, case): found(folder, name, world, at) for name, world, cases in groups for at, case in enumerate(cases)
    }
    missed = [
        (name, world, [case for case in cases if case[1] and not outcome[name, case]]) for name, world, cases in groups
    ]
    again = folder / "again"
    again.mkdir()
    goes_on: list[Group] = [(name, world, [(None, "", 0.0), *cases]) for name, world, cases in missed if cases]
    train(again, goes_on, settings)
    for name, world, cases in goes_on:
        outcome |= {(name, case): found(again, name, world, at) for at, case in enumerate(cases) if case[1]}
    return [(name, case, outcome[name, case]) for name, _, cases in groups for case in cases]


@pytest.mark.timeout(240)
def test_hidden_delays(tmp_path: Path) -> None:
    groups: list[Group] = [(str(world), world, hidden(world, count)) for world, count in GROUPS]
    first = among_two = stage_right = delays = 0
    alarms, wrong = [], []
    for world, (rank, stage, part), late in outcomes(tmp_path, groups):
        if rank is None:
            alarms += [] if late is None else [(world, late)]
            continue
        stages = () if late is None else tuple(map(str, late.stages))
        delays += 1
        first += late is not None and late.rank == rank
        among_two += late is not None and rank in late.ranks[:2]
        stage_right += stages == (stage,)
        if late is None or (late.rank, stages) != (rank, (stage,)):
            wrong.append((world, rank, stage, round(part, 2), late))
    assert delays == often(50, 25)
    assert not alarms
    assert first >= 0.96 * delays, wrong
    assert among_two == delays, wrong
    assert stage_right >= 0.9 * delays, wrong


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "zero": (2, {"zero": 3}),
    "tensor": (2, {"tensor": 2}),
    "pipeline": (4, {"pipeline": {"stages": 2}, "microbatches": 2}),
    "deterministic": (2, {"deterministic": True}),
}


def test_other_ways_to_train(tmp_path: Path) -> None:
    """Ranks that have parts of the model meet within forward, too."""
    late: list[Case] = [(1, "data", 1.0), (0, "forward", 1.0), (1, "update", 1.0)]
    groups: list[Group] = [(name, world, [(None, "", 0.0), *late]) for name, (world, _) in WAYS.items()]
    settings = {name: each for name, (_, each) in WAYS.items()}
    for name, (rank, stage, _), outcome in outcomes(tmp_path, groups, settings):
        said = None if outcome is None else (outcome.rank, str(outcome.stages[0]))
        assert said == (None if rank is None else (rank, stage)), (name, outcome)


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
