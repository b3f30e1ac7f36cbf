"""An error on one rank is the same error on all, at the same place, and training goes on from there as if the batch had
not been."""

from __future__ import annotations

import json
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Subset

from drivetrain.closing import _class, common_error
from drivetrain.comm.told import told_by_all
from drivetrain.comm.transport import Transport
from drivetrain.data.order import samples_of_step
from drivetrain.errors import CommFault, Deviation, PeerError
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeCompression
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, make_optimizer, settings

BAD_SAMPLES, IN_BACKWARD, IN_FORWARD, EVERYWHERE, TRIED_AGAIN = 2, 3, 5, 7, 8
"""Steps at which something is raised."""


class Bad(Numbers):
    """Raises for a sample of one step, wherever that is read."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._bad = int(samples_of_step(BAD_SAMPLES, case.batch, len(self), case.seed)[-1])
        self.armed = False

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.armed and index == self._bad:
            raise KeyError(f"sample {index}")
        return super().__getitem__(index)


class Raising(torch.autograd.Function):
    """Fails in backward."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("in backward")


class Odd(Exception):
    """Cannot be made of a text."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def script(pipe: Pipe, case: Case) -> dict[str, Any]:
    """Catches everything and goes on."""
    torch.manual_seed(11)
    data = Bad(case)
    run = Run(settings(case), None)
    model = run.prepare(model=Net(case.model), optimizer=lambda p: make_optimizer(case, p), data=data)
    told: dict[str, tuple[str, str, bool]] = {}
    last = pipe.world - 1
    losses = []
    tried: set[int] = set()

    def note(name: str, error: Exception) -> None:
        told[name] = (type(error).__name__, str(error), isinstance(error, PeerError))

    for batch in run.batches():
        number = batch.step

        def forward(model: nn.Module, shard: Any, number: int = number) -> torch.Tensor:
            x, y, _ = shard
            if number == IN_FORWARD and pipe.rank == 0:
                raise torch.OutOfMemoryError("no memory")
            if number == EVERYWHERE:
                raise Odd(pipe.rank, 5)
            if number == TRIED_AGAIN and pipe.rank == last and number not in tried:
                tried.add(number)
                raise ValueError("once")
            out = model(x)
            if number == IN_BACKWARD and pipe.rank == last and case.model == "plain":
                out = model.last(Raising.apply(torch.tanh(model.first(x))))  # type: ignore[operator]
            elif number == IN_BACKWARD and pipe.rank == last:
                out = Raising.apply(out)
            return F.cross_entropy(out, y)

        data.armed = number == BAD_SAMPLES
        try:
            losses.append(run.step(batch, forward).loss)
        except KeyError as error:
            note("sample", error)
            run.skip(batch)
        except (ZeroDivisionError, torch.OutOfMemoryError, Odd) as error:
            note({IN_BACKWARD: "backward", IN_FORWARD: "forward", EVERYWHERE: "everywhere"}[number], error)
        except ValueError as error:
            note("again", error)
            losses.append(run.step(batch, forward).loss)
    data.armed = False
    try:
        run.evaluate(Numbers(), _fails_on(0, pipe.rank), batch=20)
    except ArithmeticError as error:
        note("evaluate", error)
    with tempfile.NamedTemporaryFile() as file:
        try:
            run.save(Path(file.name) / "model.pt")
        except OSError as error:
            note("save", error)
    sha = run.state_sha256()
    run.finish()
    after = {} if case.zero else {name: value.clone() for name, value in model.state_dict().items()}
    return {"told": told, "losses": losses, "sha": sha, "after": after, "counts": run._operations.counts}


def _fails_on(bad: int, rank: int) -> Any:
    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        if rank == bad:
            raise ArithmeticError("in evaluation")
        return F.cross_entropy(model(shard[0]), shard[1])

    return forward


def plain(case: Case) -> tuple[list[float], dict[str, torch.Tensor]]:
    """In plain torch, without the batches that failed."""
    torch.manual_seed(11)
    model, data = Net(case.model), Numbers()
    optimizer = make_optimizer(case, model.parameters())
    losses = []
    for step in range(case.steps):
        if step in (BAD_SAMPLES, IN_BACKWARD, IN_FORWARD, EVERYWHERE):
            continue
        picked = samples_of_step(step, case.batch, len(data), case.seed)
        loss = F.cross_entropy(model(data.x[picked]), data.y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, dict(model.state_dict())


TEN = Case(steps=10, batch=25)
CASES = {
    "plain": (2, TEN.but(bucket_bytes=200)),
    "micro-batches": (3, TEN.but(microbatches=3)),
    "deterministic": (2, TEN.but(deterministic=True)),
    "int8": (2, TEN.but(compression=RuntimeCompression(method="int8", warmup_steps=99))),
    "ZeRO 1": (2, TEN.but(zero=1)),
    "ZeRO 2": (3, TEN.but(zero=2, bucket_bytes=200)),
    "sparse": (2, TEN.but(model="sparse", optimizer="plain sgd")),
}
CLASSES = {
    "sample": ("KeyError", "KeyError: 'sample"),
    "backward": ("ZeroDivisionError", "in backward"),
    "forward": ("OutOfMemoryError", "no memory"),
    "everywhere": ("Odd", "0 and 5"),
    "again": ("ValueError", "once"),
    "evaluate": ("ArithmeticError", "in evaluation"),
    "save": ("FileExistsError", "File exists"),
}


@pytest.mark.parametrize("name", CASES)
def test_all_ranks_get_the_same_error_and_go_on(name: str) -> None:
    world, case = CASES[name]
    found = together(script, world, case)
    losses, after = plain(case.but(model="table") if case.model == "sparse" else case)
    assert len({each["sha"] for each in found}) == (world if case.zero else 1)
    for rank, each in enumerate(found):
        assert each["losses"] == pytest.approx(losses, rel=1e-5)
        for key, value in each["after"].items():
            assert torch.allclose(value, after[key], atol=1e-5), key
        assert set(each["told"]) == set(CLASSES)
        for key, (kind, text) in CLASSES.items():
            told_kind, told_text, from_peer = each["told"][key]
            assert told_kind == kind
            origin = world - 1 if key in ("sample", "backward", "again") else 0
            assert from_peer == (rank != origin)
            if from_peer:
                assert told_text.startswith(f"rank {origin}, at run.")
                assert "test_closing.py:" in told_text
                assert text in told_text
        assert each["counts"].skipped_steps == 4


class Iterated:
    """A dataset as a stream."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        return (self._data[index] for index in range(len(self._data)))


def deviating(pipe: Pipe, kind: str) -> str:
    """Rank 1 leaves the common way at step 2."""
    run = Run(settings(Case(steps=4)), None)
    fewer: Any = Subset(cast(Any, Numbers()), range(100))
    data = fewer if kind == "data" and pipe.rank == 1 else Numbers()
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=data)

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        return F.cross_entropy(model(shard[0]), shard[1])

    try:
        for batch in run.batches():
            if batch.step == 2 and pipe.rank == 1:
                if kind == "break":
                    break
                if kind == "reduce":
                    run.reduce(1.0)
                if kind == "save":
                    run.save("/nowhere/model.pt")
                if kind == "evaluate":
                    run.evaluate(Numbers(), forward)
                if kind == "skip":
                    run.skip(batch)
                if kind == "freeze":
                    next(run._prepared().model.parameters()).requires_grad_(False)
            if kind == "evaluated data":
                run.evaluate(fewer if pipe.rank == 1 else Numbers(), forward)
            if kind == "evaluated stream":
                run.evaluate(Iterated(fewer) if pipe.rank == 1 else fewer, forward)
            if kind == "evaluated batch":
                run.evaluate(Numbers(), forward, batch=10 if pipe.rank == 1 else 64)
            run.step(batch, forward)
        if kind == "twice" and pipe.rank == 1:
            run.reduce(1.0)
        run.reduce(2.0)
        run.finish()
    except Deviation as error:
        return str(error)
    return "went on"


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("break", "run.reduce"),
        ("reduce", "run.reduce"),
        ("save", "run.save"),
        ("evaluate", "run.evaluate"),
        ("skip", "run.skip"),
        ("freeze", "they train different parameters"),
        ("twice", "run.reduce"),
        ("data", "they have data of different length: 193 and 100; give each all of it"),
        ("evaluated data", "they have data of different length: 193 and 100"),
        ("evaluated stream", "they have data of different length: 100 and unknown"),
        ("evaluated batch", "they evaluate in pieces of different size: batch=64 and batch=10"),
    ],
)
def test_a_rank_that_does_something_else_is_named(kind: str, where: str) -> None:
    first, second = together(deviating, 2, kind)
    assert first == second
    assert "rank 0 is at run." in first
    assert "rank 1 is at run." in first
    assert where in first
    assert first.count("test_closing.py:") == 2


def test_a_name_that_came_makes_no_module_import_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lazy = types.ModuleType("lazy")
    lazy.__dict__["__getattr__"] = asked.append
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    assert _class("lazy", "Error") is None
    assert _class("lazy", "Error.inner") is None
    assert asked == []
    assert _class("builtins", "KeyError") is KeyError
    assert _class("nowhere", "KeyError") is None


class Saying:
    """A transport over which rank 0 has said something else than what rank 1 gives."""

    rank = 1

    def __init__(self, said: bytes) -> None:
        self._said = said

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        if tensor.numel() == 1:
            return [torch.tensor([max(len(self._said), 1)]), tensor]
        said = self._said.ljust(tensor.numel(), b"\0")[: tensor.numel()]
        return [torch.frombuffer(bytearray(said), dtype=torch.uint8), tensor]


@pytest.mark.parametrize(
    "said",
    [
        b"\x80\x04.",
        b"{}",
        b"[1]",
        b"[" * 3000,
        json.dumps({"name": "a", "module": "b", "message": "c", "trace": "d", "leaves": 3}).encode(),
        json.dumps(
            {"name": "ExceptionGroup", "module": "builtins", "message": "", "trace": "", "leaves": [1]}
        ).encode(),
    ],
)
def test_what_is_no_error_is_a_fault(said: bytes) -> None:
    transport = cast(Transport, Saying(said))
    if b'"leaves": 3' in said:  # of a class that is not known here, so they are not looked at
        assert isinstance(common_error(transport, None, "step 1"), PeerError)
    else:
        with pytest.raises(CommFault):
            common_error(transport, None, "step 1")
    with pytest.raises(CommFault):
        common_error(cast(Transport, Saying(b"")), None, "step 1")


@pytest.mark.parametrize("said", [b"\x80\x04.", b"{", b"[" * 30_000])
def test_what_is_no_word_is_a_fault(said: bytes) -> None:
    with pytest.raises(CommFault):
        told_by_all(cast(Transport, Saying(said)), "x" * 40_000, "words")
