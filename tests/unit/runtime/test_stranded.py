"""After what cannot be undone a process can go on with nothing: whatever its script catches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.errors import CommFault, UsageError
from drivetrain.run import Run
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, settings

FAILS_AT = 2
CASE = Case(steps=5)


class Fails(torch.optim.SGD):
    """Half-way through an update."""

    armed = False

    def step(self, closure: Any = None) -> Any:
        if Fails.armed:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise torch.OutOfMemoryError("in the update")
        return super().step(closure)


def schedule(fails: bool) -> Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]:
    def factor(step: int) -> float:
        if fails and step == FAILS_AT + 1:
            raise torch.OutOfMemoryError("in the update")
        return 1.0

    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def of_update(result: Any) -> None:
    if result.step == FAILS_AT:
        raise torch.OutOfMemoryError("in the update")


def loss(model: nn.Module, shard: Any) -> torch.Tensor:
    return F.cross_entropy(model(shard[0]), shard[1])


def asks(run: Run, what: str, batch: Any) -> None:
    if what == "run.step":
        run.step(batch, loss)
    elif what == "run.skip":
        run.skip(batch)
    elif what == "run.reduce":
        run.reduce(1.0)
    elif what == "run.evaluate":
        run.evaluate(Numbers(), loss)
    elif what == "run.save":
        with tempfile.TemporaryDirectory() as folder:
            run.save(Path(folder) / "model.pt")
    else:
        next(iter(run.batches()))


def goes_on(pipe: Pipe, where: str, zero: int, fails_on: int | None) -> list[str]:
    """Catches the error of an update, and asks for everything that there is. What it is told."""
    run = Run(settings(CASE.but(zero=zero)), None)
    here = fails_on in (None, pipe.rank)
    run.prepare(
        model=Net("plain"),
        optimizer=lambda p: Fails(p, 0.1),
        data=Numbers(),
        scheduler=schedule(here) if where == "scheduler" else None,
    )
    if where == "on_update" and here:
        run.on_update(of_update)
    told = []
    for batch in run.batches():
        Fails.armed = where == "optimizer" and here and batch.step == FAILS_AT
        try:
            run.step(batch, loss)
        except torch.OutOfMemoryError:
            for what in ("run.step", "run.skip", "run.reduce", "run.evaluate", "run.save", "run.batches"):
                try:
                    asks(run, what, batch)
                    told.append(f"{what} went through")
                except UsageError as error:
                    told.append(str(error))
            break
        if batch.step == FAILS_AT and not here:
            break  # the others are waiting for nobody: this rank has made the step
    run._world.close()
    return told


@pytest.mark.parametrize("where", ["optimizer", "scheduler", "on_update"])
@pytest.mark.parametrize(("world", "zero", "fails_on"), [(1, 0, None), (2, 0, None), (2, 0, 1), (2, 1, None)])
def test_an_update_that_failed_is_not_gone_on_from(where: str, world: int, zero: int, fails_on: int | None) -> None:
    found = together(goes_on, world, where, zero, fails_on)
    for rank, told in enumerate(found):
        if fails_on in (None, rank):
            assert [each.partition(":")[0] for each in told] == [
                "run.step", "run.skip", "run.reduce", "run.evaluate", "run.save", "run.batches",
            ]  # fmt: skip
            assert all("the update of step 2 has ended half-way, in OutOfMemoryError" in each for each in told), told
        else:
            assert told == []


class Left(BaseException):
    """A script's own, of which nobody else knows."""


def caught(pipe: Pipe, kind: type[BaseException]) -> str:
    run = Run(settings(CASE), None)
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    last = pipe.world - 1

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if run.step_number == FAILS_AT and pipe.rank == last:
            raise kind("stop")
        return loss(model, shard)

    told = []
    for batch in run.batches():
        try:
            run.step(batch, forward)
        except BaseException as error:  # noqa: BLE001
            told.append(f"{type(error).__name__}: {error}")
    run.finish()
    told.append(f"{run.step_number} steps, {run._operations.counts.skipped_steps} without an update")
    return "; ".join(told)


@pytest.mark.parametrize("kind", [Left, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_alone_anything_can_be_caught(kind: type[BaseException]) -> None:
    (told,) = together(caught, 1, kind)
    assert told == f"{kind.__name__}: stop; 5 steps, 1 without an update"


@pytest.mark.parametrize("kind", [Left, GeneratorExit])
def test_what_is_no_exception_closes_an_operation_too(kind: type[BaseException]) -> None:
    first, second = together(caught, 2, kind)
    assert second == f"{kind.__name__}: stop; 5 steps, 1 without an update"
    assert first.startswith(f"{kind.__name__}: rank 1, at run.step in test_stranded.py:")
    assert first.endswith("stop; 5 steps, 1 without an update")


def ends_itself(pipe: Pipe, kind: type[BaseException]) -> str:
    """The last rank, in forward, and catches it."""
    run = Run(settings(CASE), None)
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if run.step_number == FAILS_AT and pipe.rank == 1:
            raise kind("stop")
        return loss(model, shard)

    told = ""
    try:
        for batch in run.batches():
            try:
                run.step(batch, forward)
            except (KeyboardInterrupt, SystemExit) as error:
                told = type(error).__name__
    except UsageError as error:
        told = f"{told}; {error}"
    except CommFault as error:
        told = type(error).__name__
    run._world.close()
    return told


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_has_left_the_others_cannot_come_back(kind: type[BaseException]) -> None:
    first, second = together(ends_itself, 2, kind)
    assert first == "CommFault"
    assert second.startswith(f"{kind.__name__}; run.batches: {kind.__name__} has ended run.step in test_stranded.py:")
