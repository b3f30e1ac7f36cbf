"""Evaluation is no training: it reads as training does, and leaves nothing behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Loss
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain.state import digest
from drivetrain_api.runtime import RuntimeTraining
from unit.runtime.together import Pipe, together

SIZE = 10


class Points:
    """Samples that default_collate refuses."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Any:
        return {"x": torch.full((2,), float(index)), "what": object()}


class Stream:
    """The same as a stream."""

    def __iter__(self) -> Iterator[Any]:
        return iter([Points()[index] for index in range(SIZE)])


class ByColumns(Points):
    """Returns columns, not samples: three of them, whatever it is asked for."""

    def __getitems__(self, indices: list[int]) -> Any:
        return {"x": torch.tensor(indices).float().unsqueeze(1).expand(-1, 2), "a": 1, "b": 2}


class ByNothing(Points):
    """As a class says that it has no such method after all."""

    __getitems__ = None


def collated(samples: Any) -> torch.Tensor:
    """Of a list of samples or of columns."""
    return samples["x"] if isinstance(samples, dict) else torch.stack([sample["x"] for sample in samples])


class Net(nn.Module):
    """With a batch-norm that is frozen in a model that trains, and buffers that forward changes in its own ways."""

    added: torch.Tensor
    replaced: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 1)
        self.norm, self.frozen = nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval()
        self.drop = nn.Dropout(0.5)
        self.register_buffer("added", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.added += 1
        self.replaced = self.replaced + 1
        out: torch.Tensor = self.line(self.drop(self.frozen(self.norm(x))))
        return out


def made(net: nn.Module | None = None, collate: Callable[[Any], Any] | None = collated) -> tuple[Run, Any]:
    """A run that is prepared."""
    torch.manual_seed(1)
    training = RuntimeTraining(steps=4, global_batch=4)
    run = Run(Settings(training, 4, 4, expected_world=1), None)
    model = run.prepare(model=net or Net(), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Points(), collate=collate)
    return run, model


def everything(model: nn.Module) -> str:
    """All that an evaluation might change."""
    return digest(
        {
            "modes": {name: module.training for name, module in model.named_modules()},
            "buffers": dict(model.named_buffers()),
            "gradients": [parameter.grad for parameter in model.parameters()],
            "random": [torch.get_rng_state(), random.getstate(), np.random.get_state()],
            "modes of torch": [torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")],
            "autocast": str(torch.get_autocast_dtype("cpu")),
        }
    )


def plain(model: nn.Module, x: torch.Tensor) -> Any:
    return model(x).mean()


def drawing(model: nn.Module, x: torch.Tensor) -> Any:
    return model(x).mean() + torch.rand(()) + random.random() + np.random.randn()


def meddling(model: nn.Module, x: torch.Tensor) -> Any:
    model.train()
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.float16)
    loss = model(x).float().mean()
    loss.backward()
    return loss


def failing(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    meddling(model, x)
    raise ValueError("the script's")


@pytest.mark.parametrize("forward", [plain, drawing, meddling, failing])
@pytest.mark.parametrize("data", [Points, Stream])
def test_an_evaluation_leaves_nothing_behind(data: Callable[[], Any], forward: Callable[..., Any]) -> None:
    run, model = made()
    np.random.randn()  # numpy has one more in hand
    model.line.weight.grad = torch.ones(1, 2)
    before = everything(model)
    try:
        run.evaluate(data(), forward, batch=4)
    except ValueError:
        assert forward is failing
    assert everything(model) == before
    assert model.replaced is dict(model.named_buffers())["replaced"]


def test_modules_are_in_evaluation_mode_meanwhile() -> None:
    seen = []

    def forward(model: nn.Module, x: torch.Tensor) -> Any:
        seen.extend([module.training for module in model.modules()] + [torch.is_grad_enabled()])
        return model(x).mean()

    run, _ = made()
    run.evaluate(Points(), forward)
    assert set(seen) == {False}


@pytest.mark.parametrize("data", [Points, Stream, ByColumns, ByNothing])
def test_it_reads_with_the_collate_function_of_prepare(data: Callable[[], Any]) -> None:
    """And the mean is over samples, however many pieces what was read consists of."""
    run, _ = made()
    found = run.evaluate(data(), lambda model, x: x.mean(), batch=4)
    assert (found.loss, found.weight) == (sum(range(SIZE)) / SIZE, SIZE)


def test_training_reads_by_the_same_rules() -> None:
    training = RuntimeTraining(steps=1, global_batch=4)
    run = Run(Settings(training, 1, 4, expected_world=1), None)
    run.prepare(model=nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=ByNothing(), collate=collated)
    for batch in run.batches():
        run.step(batch, plain)
    assert run.step_number == 1


def test_it_may_have_a_collate_function_of_its_own() -> None:
    run, _ = made()
    found = run.evaluate(
        Points(), lambda model, x: torch.tensor(x), batch=4, collate=lambda samples: float(len(samples))
    )
    assert found.loss == (4 * 4 + 4 * 4 + 2 * 2) / SIZE


def test_what_is_no_loss_is_refused() -> None:
    run, _ = made()
    with pytest.raises(UsageError, match=r"evaluate\(forward\): .* got shape \(4, 1\)"):
        run.evaluate(Points(), lambda model, x: model(x), batch=4)


def test_weights_cast_by_an_autocast_around_all_are_not_kept() -> None:
    """torch caches them, without gradients: the next step would train nothing."""
    run, model = made(nn.Linear(2, 1))
    with torch.autocast("cpu", torch.bfloat16):
        run.evaluate(Points(), plain)
        model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None


def by_ranks(pipe: Pipe) -> tuple[float, float]:
    torch.set_num_threads(1)
    run, _ = made(Net())
    found = run.evaluate(
        Points(), lambda model, x: Loss(drawing(model, x) * len(x), len(x), {"drawn": float(torch.rand(()))}), batch=3
    )
    run.finish()
    return found.loss, found.metrics["drawn"]


def test_random_numbers_do_not_depend_on_who_evaluates() -> None:
    assert len({each for world in (1, 2) for each in together(by_ranks, world)}) == 1


class Shorter(Stream):
    """As a stream that shares itself out has it: not all samples on every rank."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return iter([Points()[index] for index in range(self.size)])


def on_shorter_streams(pipe: Pipe, sizes: tuple[int, ...]) -> str:
    run, _ = made(Net())
    try:
        return str(run.evaluate(Shorter(sizes[pipe.rank]), plain, batch=3).weight)
    except UsageError as error:
        return str(error)
    finally:
        run.finish()


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((SIZE, SIZE), str(float(SIZE))),
        ((SIZE, 7), "evaluate(data): the ranks find 7 to 10 samples in the iterable dataset"),
        ((0, 1), "the ranks find 0 to 1 samples"),
        ((0, 0), "evaluate(data): the stream has no samples"),
    ],
)
def test_ranks_must_find_the_same_stream(sizes: tuple[int, ...], told: str) -> None:
    one, other = together(on_shorter_streams, 2, sizes)
    assert one == other
    assert told in one
