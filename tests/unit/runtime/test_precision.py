"""Mixed precision: half the bytes, nearly the same training, and an overflow that costs exactly one update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from drivetrain.run import Run
from drivetrain_api.runtime import RuntimePrecision
from unit.runtime.together import Pipe, together
from unit.runtime.training import (
    Case,
    Net,
    Numbers,
    Outcome,
    by_drivetrain,
    by_torch,
    forward,
    make_optimizer,
    settings,
)

STEPS = 12
OVERFLOW_AT = 5


@pytest.mark.parametrize(
    ("compute", "reduce", "tolerance"),
    [
        ("fp32", "bf16", 0.005),
        ("bf16", "fp32", 0.007),
        ("bf16", "bf16", 0.008),
        ("fp16", "fp32", 0.001),
        ("fp16", "fp16", 0.001),
    ],
)
@pytest.mark.parametrize("microbatches", [1, 3])
def test_training_is_nearly_that_of_fp32(compute: Any, reduce: Any, tolerance: float, microbatches: int) -> None:
    case = Case(batch=25, microbatches=microbatches, precision=RuntimePrecision(compute=compute, reduce=reduce))
    outcomes: list[Outcome] = together(by_drivetrain, 3, case)
    distance = outcomes[0].distance(by_torch(case))
    assert 0 < distance <= tolerance
    assert len({outcome.sha256 for outcome in outcomes}) == 1
    assert all(value.dtype == torch.float32 for value in outcomes[0].after.values())


@dataclass(frozen=True)
class Overflow:
    """What one rank saw."""

    skipped: list[int]
    changed: list[bool]
    rates: list[float]
    scale: dict[str, float]
    counted: int
    sha256: str


def overflowing(pipe: Pipe) -> Overflow:
    """Train in fp16; at one step the gradient of one rank is infinite."""
    case = Case(steps=STEPS, scheduler=True, precision=RuntimePrecision(compute="fp16"))
    run = Run(settings(case), None)
    made: list[torch.optim.Optimizer] = []
    torch.manual_seed(11)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        made.append(make_optimizer(case, parameters))
        return made[0]

    model = run.prepare(
        model=Net("plain"),
        optimizer=optimizer,
        scheduler=lambda given: torch.optim.lr_scheduler.ExponentialLR(given, 0.9),
        data=Numbers(),
    )
    skipped, changed, rates = [], [], []
    for batch in run.batches():

        def poisoned(model: Any, shard: Any, step: int = batch.step) -> Any:
            loss = forward(case)(model, shard)
            return loss * float("inf") if step == OVERFLOW_AT and pipe.rank == 1 else loss

        before = [parameter.detach().clone() for parameter in model.parameters()]
        rates.append(made[0].param_groups[0]["lr"])
        result = run.step(batch, poisoned)
        if result.skipped:
            skipped.append(result.step)
        changed.append(any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)))
    counted = run._operations.counts.skipped_steps
    scale = run._state.collect()["loss_scale"]
    sha256 = run.state_sha256()
    run.finish()
    return Overflow(skipped, changed, rates, scale, counted, sha256)


def test_an_overflow_on_one_rank_skips_exactly_one_update_on_all() -> None:
    seen: list[Overflow] = together(overflowing, 3)
    for one in seen:
        assert one.skipped == [OVERFLOW_AT]
        assert one.changed == [step != OVERFLOW_AT for step in range(STEPS)]
        assert one.rates[OVERFLOW_AT + 1] == one.rates[OVERFLOW_AT], "the schedule waits for the update"
        assert one.counted == 1
        assert (one.scale["scale"], one.scale["_growth_tracker"]) == (2.0**15, STEPS - OVERFLOW_AT - 1)
    assert len({one.sha256 for one in seen}) == 1
