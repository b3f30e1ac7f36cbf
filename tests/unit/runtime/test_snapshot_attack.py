"""What a base has is as it was, whatever the script does while it is copied."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.run import Run
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.storage.local import Local
from drivetrain.state import digest
from drivetrain_api.runtime import RuntimeSnapshots
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, Numbers, settings

STEPS = 16
SAVED = 3
"""After this step a file is written, while a base is being copied."""
BACK = 12


class Large(nn.Module):
    """So many numbers that a base of it is copied in several steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 600), nn.Tanh(), nn.Linear(600, 1200), nn.Tanh(), nn.Linear(1200, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


def loss(model: nn.Module, shard: Any) -> torch.Tensor:
    x, y, _ = shard
    return nn.functional.cross_entropy(model(x), y)


def run_of(zero: int, folder: Path) -> Run:
    torch.manual_seed(5)
    snapshots = RuntimeSnapshots(storage=str(folder), commit_seconds=0.0)
    run = Run(replace(settings(Case(steps=STEPS, zero=zero)), snapshots=snapshots), None)
    run.prepare(model=Large(), optimizer=lambda p: torch.optim.AdamW(p, 1e-3), data=Numbers())
    return run


def saved(run: Run, path: Path) -> str:
    run.save(path)
    return digest(torch.load(path, weights_only=True)["state"])


def saves(pipe: Pipe, zero: int, ports: dict[str, int], folder: Path) -> tuple[str, int, str]:
    """Digest of step BACK as it was; where the next start goes on from, and what it has there."""
    Worlds.enter(ports["was"])
    run, was = run_of(zero, folder / "s"), ""
    for batch in run.batches():
        run.step(batch, loss)
        if batch.step == SAVED:
            saved(run, folder / "early.pt")
        if batch.step == BACK - 1:
            was = saved(run, folder / "was.pt")
    run.finish()
    assert run._snapshots is not None
    assert run._snapshots.recorder.bases.thread.drain(30.0)
    if pipe.rank == 0:
        storage = Local(folder / "s")
        found = Found.of(storage)
        assert all(base["last"] > SAVED for base in found.bases.values()), "the base was copied before the file"
        storage.delete([str(name) for name in found.segments if name.last >= BACK])
    Worlds.enter(ports["again"])
    run = run_of(zero, folder / "s")
    batch = next(run.batches())
    return was, batch.step, saved(run, folder / "again.pt")


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_a_file_that_is_written_while_a_base_is_copied(zero: int, tmp_path: Path) -> None:
    worlds = Worlds(["was", "again"])
    for was, step, again in together(saves, 2, zero, worlds.ports, tmp_path):
        assert (step, again) == (BACK, was)


def drops(pipe: Pipe, folder: Path) -> tuple[int | None, int | None, int | None]:
    """What is said to be durable, and what can be gone back to, if a step was lost while the only base was copied."""
    run = run_of(0, folder)
    assert run._snapshots is not None
    log = run._snapshots.recorder.log
    put = log.put
    for batch in run.batches():
        log.put = (lambda *given: False) if batch.step == SAVED + 1 else put  # type: ignore[method-assign]
        run.step(batch, loss)
    run.finish()
    assert run._snapshots.recorder.bases.thread.drain(30.0)
    run._snapshots._look_again = 0.0
    run._snapshots._look_at_all()
    found = Found.of(Local(folder))
    (last,) = (base["last"] for base in found.bases.values())
    return run._snapshots.told().durable, max((each.step for each in found.points()), default=None), last


def test_a_step_is_not_said_to_be_durable_that_no_base_leads_to(tmp_path: Path) -> None:
    ((durable, reachable, last),) = together(drops, 1, tmp_path)
    assert last is not None
    assert last > SAVED + 1
    assert durable == reachable


class Stalls(Local):
    """As a network file system whose server is gone: nothing returns."""

    stalls = False

    def list(self, prefix: str) -> dict[str, int]:
        while self.stalls:
            time.sleep(0.1)
        return super().list(prefix)


def stalled(pipe: Pipe, folder: Path) -> tuple[float, int]:
    run = run_of(0, folder)
    assert run._snapshots is not None
    run._snapshots._storage = storage = Stalls(folder)
    storage.stalls = True
    began = time.monotonic()
    for _ in range(3):  # memberships follow each other: one thread hangs, not one for each
        step = run._snapshots.saved_step()
    assert sum(each.name == "drivetrain-saved-step" for each in threading.enumerate()) == 1
    return time.monotonic() - began, step


def test_a_membership_does_not_wait_for_a_storage_that_stands_still(tmp_path: Path) -> None:
    """Where all parts have copies nobody needs the answer."""
    ((took, step),) = together(stalled, 1, tmp_path)
    assert step == 0
    assert took < 10


def hurries(pipe: Pipe, folder: Path, at: int) -> int:
    """From which step on the first base is whole, if the pod is told before step `at` that it has to leave."""
    run = run_of(0, folder)
    assert run._snapshots is not None
    for batch in run.batches():
        if batch.step == at:
            run._snapshots.hurry()
        run.step(batch, loss)
    run.finish()
    assert run._snapshots.recorder.bases.thread.drain(30.0)
    (base,) = Found.of(Local(folder)).bases.values()
    return int(base["last"])


def test_a_pod_that_has_to_leave_copies_what_the_first_base_lacks_at_once(tmp_path: Path) -> None:
    (hurried,) = together(hurries, 1, tmp_path / "hurries", 3)
    (never,) = together(hurries, 1, tmp_path / "never", STEPS)
    assert hurried == 3 < never
