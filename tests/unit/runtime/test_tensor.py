"""Tensor parallelism: ranks that share layers train as one process would, alone and with the other kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimePrecision
from unit.runtime.text import (
    LAMB,
    LARS,
    PLAN,
    SEQUENCE_PLAN,
    TOKENS,
    WIDTH,
    Text,
    Transformer,
    assert_as_one_process,
    by_drivetrain,
    by_torch,
    forward,
    from_file_to_file,
)
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, make_optimizer, settings

CASES = {
    "tensor": (2, PLAN, Case(tensor=2)),
    "4 ranks a layer": (4, PLAN, Case(tensor=4, optimizer="adam", batch=10)),
    "data and tensor": (4, PLAN, Case(tensor=2, optimizer="adam", clip=0.5, batch=25)),
    "sequence, Adam, clipping, micro-batches": (
        2, SEQUENCE_PLAN, Case(tensor=2, optimizer="adam", clip=0.5, microbatches=2),
    ),
    "sequence, an idle rank": (3, SEQUENCE_PLAN, Case(tensor=2, optimizer="adam", clip=0.5)),
    "sequence, data and tensor, LAMB": (4, SEQUENCE_PLAN, Case(tensor=2, named=LAMB, batch=25)),
    "sequence, LARS": (2, SEQUENCE_PLAN, Case(tensor=2, named=LARS)),
    "ZeRO 1": (4, PLAN, Case(tensor=2, zero=1, optimizer="adam", clip=0.5, bucket_bytes=2000)),
    "sequence, ZeRO 2, LAMB": (4, SEQUENCE_PLAN, Case(tensor=2, zero=2, named=LAMB)),
    "sequence, ZeRO 3": (4, SEQUENCE_PLAN, Case(tensor=2, zero=3, optimizer="adam", clip=0.5, microbatches=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str) -> None:
    assert_as_one_process(*CASES[name])


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_mixed_precision(compute: Any) -> None:
    case = Case(tensor=2, precision=RuntimePrecision(compute=compute), zero=1)
    assert 0 < together(by_drivetrain, 4, case, SEQUENCE_PLAN)[0].distance(by_torch(case)) < 0.02


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_every_rank_keeps_its_part(zero: int) -> None:
    outcomes = together(by_drivetrain, 4, Case(tensor=2, optimizer="adam", steps=2, zero=zero), PLAN)
    divided = sum(each.weight.numel() for each in Transformer(PLAN).modules() if isinstance(each, nn.Linear))
    whole = sum(each.numel() for each in Transformer(PLAN).parameters())
    biases = 2 * (4 * WIDTH + 3 * WIDTH) + TOKENS
    part = (divided + biases) / 2 + (whole - divided - biases)
    for outcome in outcomes:
        assert outcome.extra["state"] == pytest.approx(2 * part / (2 if zero else 1), abs=24)
        assert outcome.extra["parameters"] == pytest.approx(part / (2 if zero == 3 else 1), abs=24)


def test_a_file_goes_on_with_other_parts(tmp_path: Path) -> None:
    case = Case(optimizer="adam", steps=16)
    together(from_file_to_file, 4, replace(case, tensor=2, zero=3, steps=8), tmp_path)
    together(from_file_to_file, 2, replace(case, tensor=2, steps=12), tmp_path)
    first, outcome = together(from_file_to_file, 2, case, tmp_path)[0]
    assert first == 12
    assert outcome.distance(by_torch(case)) <= 1e-5


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (None, "training.parallel.tensor needs model.tp_plan"),
        ({"layers.*.out": "diagonal"}, "no style 'diagonal'; there are colwise, colwise_gather, rowwise"),
        ({"layer.*.out": "rowwise"}, "the model has no such module"),
        ({"tokens": "colwise"}, "tokens is no nn.Linear but Embedding"),
    ],
)
def test_a_wrong_plan_is_refused(plan: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        TensorParallel(Transformer(plan), 2)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UsageError, match=r"does not divide dimension 0 of layers\.0\.query\.weight, shape \(16, 16\)"):
        TensorParallel(Transformer(PLAN), 3)


def incomplete(pipe: Pipe, plan: dict[str, str]) -> str:
    """What a script is told whose plan leaves something out."""
    case = Case(tensor=2, steps=2)
    run = Run(settings(case), None)
    run.prepare(model=Transformer(plan), optimizer=lambda p: make_optimizer(case, p), data=Text())
    try:
        for batch in run.batches():
            run.step(batch, forward)
    except UsageError as error:
        return str(error)
    return "nothing"


def test_a_plan_that_leaves_something_out_is_found_out() -> None:
    for told in together(incomplete, 2, SEQUENCE_PLAN):
        assert told == "nothing"
    left_out = {name: style for name, style in SEQUENCE_PLAN.items() if name != "norm"}
    for told in together(incomplete, 2, left_out):
        assert told.startswith("model.tp_plan: the ranks have different gradients of norm.weight")


def test_too_few_ranks() -> None:
    (told,) = together(incomplete, 1, PLAN)
    assert told.startswith("training.parallel.tensor is 2, but there are only 1 ranks")
