"""Runs users' scripts: alone, on ranks that a test leads and kills, and back from the steps that are in snapshots."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drivetrain.data.batch import Batch
from drivetrain.position import StepResult
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.storage.local import Local
from drivetrain_api.runtime import RuntimeSnapshots, RuntimeTraining
from unit.runtime.led import Death, lead
from unit.runtime.together import Pipe, Worlds
from unit.runtime.user_scripts import BATCH, SCRIPTS, STEPS, Script


@dataclass
class Seen:
    """What one process has."""

    results: dict[int, StepResult] = field(default_factory=dict)
    """By step."""
    digests: dict[int, str] = field(default_factory=dict)
    """Of all state, before each step, and at the end."""
    rates: dict[int, list[float]] = field(default_factory=dict)
    """After each step."""
    state: dict[str, torch.Tensor] = field(default_factory=dict)


def run_of(script: Script, snapshots: RuntimeSnapshots | None = None) -> Run:
    """Started, with what the job says."""
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(bool(script.training.get("deterministic")))
    training = RuntimeTraining(steps=STEPS, global_batch=BATCH, seed=2, **script.training)
    return Run(Settings(training, STEPS, BATCH, 1, snapshots, check_every_steps=4), None)


def watched(run: Run, script: Script, begin: Callable[[int], None] = lambda step: None) -> Seen:
    """Run a script to its end. `begin(step)` is called where it comes to one."""
    seen, batches, step = Seen(), run.batches, run.step

    def watching() -> Iterator[Batch]:
        for batch in batches():
            begin(batch.step)
            seen.digests[batch.step] = run.state_sha256()
            yield batch
        begin(-1)

    def stepping(batch: Batch, *args: Any, **named: Any) -> StepResult:
        result = seen.results[batch.step] = step(batch, *args, **named)
        groups = run._prepared().update.state.optimizer.param_groups
        seen.rates[batch.step] = [group["lr"] for group in groups]
        return result

    run.batches, run.step = watching, stepping  # type: ignore[method-assign]
    script.train(run)
    seen.digests[STEPS] = run.state_sha256()
    seen.state = {name: each.detach().clone() for name, each in run._prepared().model.state_dict().items()}
    run.finish()
    return seen


def as_ranks(pipe: Pipe, ports: dict[str, int]) -> dict[str, Seen]:
    """Scripts one after the other, each in a world of its own."""
    found = {}
    for name, port in ports.items():
        Worlds.enter(port)
        run = run_of(SCRIPTS[name])
        found[name] = watched(run, SCRIPTS[name])
        run._world.close()
    return found


def led(pipe: Pipe, deaths: Sequence[Death], rank: int, name: str) -> Seen:
    """One rank, which may die."""
    mortal = lead(pipe, deaths, rank)
    return watched(run_of(SCRIPTS[name]), SCRIPTS[name], mortal.begin)


def gone_back(pipe: Pipe, name: str, folder: Path, steps: Sequence[int]) -> dict[int, list[int]]:
    """By the step that was gone back to: those from there on that have other bits than the first time."""
    script, found = SCRIPTS[name], {}
    whole = watched(run_of(script, _kept_in(folder / "whole")), script).digests
    for step in steps:
        copy = folder / str(step)
        shutil.copytree(folder / "whole", copy)
        storage = Local(copy)
        looked = Found.of(storage)
        storage.delete([str(each) for each in looked.segments if each.last >= step])
        for base in looked.bases:
            if base.step > step:
                shutil.rmtree(copy / str(base))
        again = watched(run_of(script, _kept_in(copy)), script).digests
        assert min(again) == step, (min(again), step)
        found[step] = [at for at, digest in again.items() if digest != whole[at]]
    return found


def _kept_in(folder: Path) -> RuntimeSnapshots:
    return RuntimeSnapshots(storage=str(folder), commit_seconds=0.0, base_every_steps=6, keep_bases=100)
