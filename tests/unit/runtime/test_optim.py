"""LAMB and LARS against their papers' formulas, written down once more in plain float64 numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from drivetrain.optim.lamb import Lamb
from drivetrain.optim.lars import Lars
from drivetrain.optim.named import named_optimizer
from drivetrain.optim.rate import RateFactor
from drivetrain_api.runtime import RuntimeLearningRate, RuntimeOptimizer

STEPS = 25
Vector = list[float]


def norm(values: Vector) -> float:
    return math.sqrt(sum(each * each for each in values))


def gradients(size: int, scale: float = 1.0) -> list[Vector]:
    """One for each step."""
    generator = torch.Generator().manual_seed(size)
    found: list[Vector] = (scale * torch.randn(STEPS, size, generator=generator, dtype=torch.float64)).tolist()
    return found


def lamb_by_the_paper(x: Vector, given: list[Vector], lr: float, decay: float) -> Vector:
    """Algorithm 2 of arXiv 1904.00962v5, element by element; betas 0.9 and 0.99, eps 1e-6."""
    m, v = [0.0] * len(x), [0.0] * len(x)
    for t, g in enumerate(given, start=1):
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.99 * a + 0.01 * b * b for a, b in zip(v, g, strict=True)]
        r = [
            (a / (1 - 0.9**t)) / (math.sqrt(b / (1 - 0.99**t)) + 1e-6) + decay * c
            for a, b, c in zip(m, v, x, strict=True)
        ]
        ratio = norm(x) / norm(r) if norm(x) > 0 and norm(r) > 0 else 1.0
        x = [a - lr * ratio * b for a, b in zip(x, r, strict=True)]
    return x


def lars_by_the_paper(x: Vector, given: list[Vector], lr: float, decay: float) -> Vector:
    """Algorithm 1 of arXiv 1708.03888v3; momentum 0.9, trust coefficient 0.02."""
    v = [0.0] * len(x)
    for g in given:
        local = 0.02 * norm(x) / (norm(g) + decay * norm(x)) if norm(x) > 0 and norm(g) > 0 else 1.0
        v = [0.9 * a + lr * local * (b + decay * c) for a, b, c in zip(v, g, x, strict=True)]
        x = [a - b for a, b in zip(x, v, strict=True)]
    return x


def by(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], x: Vector, given: list[Vector]) -> Vector:
    """What one of our optimizers makes of it."""
    parameter = torch.nn.Parameter(torch.tensor(x, dtype=torch.float64))
    optimizer = make([parameter])
    for g in given:
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    found: Vector = parameter.detach().tolist()
    return found


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("start", [[1.0, -2.0, 0.5, 3.0], [0.0] * 4])
def test_lamb_is_its_formula(start: Vector, decay: float) -> None:
    ours = by(lambda p: Lamb(p, 0.01, (0.9, 0.99), weight_decay=decay), start, gradients(4))
    assert ours == pytest.approx(lamb_by_the_paper(start, gradients(4), 0.01, decay), rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("start", [[1.0, -2.0, 0.5, 3.0], [0.0] * 4])
def test_lars_is_its_formula(start: Vector, decay: float) -> None:
    ours = by(lambda p: Lars(p, 0.5, weight_decay=decay, trust_coefficient=0.02), start, gradients(4))
    assert ours == pytest.approx(lars_by_the_paper(start, gradients(4), 0.5, decay), rel=1e-9)


@pytest.mark.parametrize("make", [lambda p: Lamb(p, 0.01, eps=1e-12), lambda p: Lars(p, 0.5)])
def test_a_layer_with_larger_gradients_takes_the_same_steps(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    start = [1.0, -2.0, 0.5]
    assert by(make, start, gradients(3, 100.0)) == pytest.approx(by(make, start, gradients(3)), rel=1e-9)


@pytest.mark.parametrize("make", [lambda p: Lamb(p, 0.01, weight_decay=0.1), lambda p: Lars(p, 0.5)])
def test_zero_gradients_do_no_harm(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> None:
    assert all(map(math.isfinite, by(make, [0.0, 0.0], [[0.0, 0.0]] * STEPS)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RuntimeOptimizer(name="lamb", lr=0.1, betas=(0.5, 0.6)), Lamb([torch.nn.Parameter()], 0.1, (0.5, 0.6))),
        (RuntimeOptimizer(name="lars", lr=0.1, momentum=0.0), Lars([torch.nn.Parameter()], 0.1, 0.0)),
        (RuntimeOptimizer(name="adamw", lr=0.1, eps=1e-3), torch.optim.AdamW([torch.nn.Parameter()], 0.1, eps=1e-3)),
        (RuntimeOptimizer(name="sgd", lr=0.1), torch.optim.SGD([torch.nn.Parameter()], 0.1)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_name_leaves_to_the_optimizer_what_the_job_does_not_say(
    settings: RuntimeOptimizer, expected: torch.optim.Optimizer
) -> None:
    found = named_optimizer(settings, [torch.nn.Parameter()])
    assert (type(found), found.defaults) == (type(expected), expected.defaults)


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        (RuntimeLearningRate(), [1.0, 1.0, 1.0, 1.0]),
        (RuntimeLearningRate(scaling="linear", base_batch=16), [4.0] * 4),
        (RuntimeLearningRate(scaling="sqrt", base_batch=16), [2.0] * 4),
        (RuntimeLearningRate(scaling="sqrt", base_batch=16, warmup_steps=4), [0.5, 1.0, 1.5, 2.0]),
        (RuntimeLearningRate(warmup_steps=2), [0.5, 1.0, 1.0, 1.0]),
    ],
    ids=lambda each: str(each)[:40],
)
def test_the_rate_follows_the_batch_and_warms_up(settings: RuntimeLearningRate, factors: Vector) -> None:
    rate = RateFactor.of(settings, 64)
    assert [rate.at(step) for step in range(4)] == pytest.approx(factors)
