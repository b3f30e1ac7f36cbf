"""Ranks die at all points of a step, files are written, a base is copied over several steps: every step that is said to
be there has the bits that it had."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drivetrain.run import Run
from drivetrain.snapshot import capture
from drivetrain.snapshot.export import alone
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.hand.request import Request
from drivetrain.snapshot.storage.local import Local
from drivetrain.state import digest
from drivetrain_api.constants import ENV_POD_UID
from drivetrain_api.runtime import RuntimeSnapshots
from unit.runtime.led import Death, Leader, lead
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, forward, make_optimizer, make_scheduler, settings
from unit.snapshot.example import go_back

CASE = Case(
    steps=40, model="deep", batch=24, microbatches=2, clip=0.5, bucket_bytes=1500, scheduler=True, optimizer="adam"
)
POINTS = ("bucket", "gathering", "reduced", "copied", "readied", "heard", "committed")


def prepared(case: Case, snapshots: RuntimeSnapshots | None, *, one: bool = False) -> Run:
    torch.manual_seed(11)
    of_job = replace(settings(case), replicas=1, snapshots=snapshots, check_every_steps=3)
    run = Run(alone(of_job, Request("to", "dcp", "told")) if one else of_job, None)
    run.prepare(
        model=Net(case.model),
        optimizer=lambda parameters: make_optimizer(case, parameters),
        scheduler=make_scheduler,
        data=Numbers(),
    )
    return run


def train(
    pipe: Pipe, deaths: Sequence[Death], rank: int, case: Case, folder: Path, snapshots: RuntimeSnapshots | None
) -> dict[int, str]:
    """Digests by step."""
    capture.UNIT_ELEMENTS, capture.STEP_BYTES, capture.STEP_SHARE = 64, 512, 0.0  # type: ignore[misc]
    os.environ[ENV_POD_UID] = f"pod {rank}"
    mortal = lead(pipe, deaths, rank)
    run = prepared(case, snapshots)
    found: dict[int, str] = {}
    for batch in run.batches():
        mortal.begin(batch.step)
        run.step(batch, forward(case))
        step = batch.step + 1
        if snapshots is None or step % 4 == 2:
            path = folder / f"{'was' if snapshots is None else 'now'}.pt"
            run.save(path)
            if rank == 0:
                found[step] = digest(torch.load(path, weights_only=True)["state"])
    mortal.begin(-1)
    run.finish()
    if run._snapshots is not None:
        assert run._snapshots.recorder.bases.thread.drain(30.0)
        run._snapshots.end(10.0)
    return found


def come_back(pipe: Pipe, case: Case, folder: Path) -> dict[int, str]:
    storage, found = Local(folder), {}
    steps = [each for first, last in Found.of(storage).reachable() for each in range(first, last + 1)]
    for step in steps:
        run = prepared(case, RuntimeSnapshots(storage=str(folder)), one=True)
        go_back(run, storage, step)
        found[step] = digest(run._state.to_save())
    return found


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_all_that_is_there_is_right(zero: int, tmp_path: Path) -> None:
    case = CASE.but(zero=zero)
    deaths = [Death(5 * step + 3, point, step % 3) for step, point in enumerate(POINTS)]
    if not zero:
        deaths = [each for each in deaths if each.point not in ("copied", "readied", "heard", "gathering")]
    kept = RuntimeSnapshots(storage=str(tmp_path / "s"), commit_seconds=0.0, base_every_steps=4, keep_bases=100)
    was = Leader(train, 3, (), (case, tmp_path, None)).results()[0]
    leader = Leader(train, 3, deaths, (case, tmp_path, kept))
    leader.results()
    print("died", leader.died, Found.of(Local(tmp_path / "s")).reachable(), len(Found.of(Local(tmp_path / "s")).bases))
    (now,) = together(come_back, 1, case, tmp_path / "s")
    assert now
    assert {step for step in now if now[step] != was[step]} == set()
