"""Pipeline parallelism: ranks that share a model's blocks train as one process would, alone and with the other kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.run import Run
from drivetrain_api.choices import ScheduleName
from drivetrain_api.runtime import RuntimePipeline, RuntimePrecision
from unit.runtime.text import LAMB, LARS, PLAN, SEQUENCE_PLAN, WIDTH, Text, by_drivetrain, by_torch, forward, make
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Outcome, copied, make_optimizer, settings


def pipeline(stages: int, schedule: ScheduleName = "1f1b", **fields: Any) -> Case:
    """A case with so many stages."""
    chunks = 2 if schedule == "interleaved" else 1
    options = RuntimePipeline(stages=stages, schedule=schedule, chunks=chunks)
    return Case(pipeline=options, **{"microbatches": 4, "optimizer": "adam", **fields})


CASES = {
    "GPipe": (2, PLAN, pipeline(2, "gpipe")),
    "GPipe, 4 stages": (4, PLAN, pipeline(4, "gpipe", clip=0.5)),
    "1F1B": (2, PLAN, pipeline(2, clip=0.5, batch=25)),
    "1F1B, 3 stages, SGD": (3, PLAN, pipeline(3, optimizer="sgd", microbatches=5)),
    "interleaved": (2, PLAN, pipeline(2, "interleaved", clip=0.5)),
    "interleaved, 3 stages": (3, PLAN, pipeline(3, "interleaved", microbatches=6)),
    "zero-bubble": (2, PLAN, pipeline(2, "zerobubble", clip=0.5)),
    "zero-bubble, 4 stages": (4, PLAN, pipeline(4, "zerobubble", microbatches=6)),
    "an odd model": (3, PLAN, pipeline(3, model="odd", clip=0.5)),
    "an odd model, zero-bubble": (2, PLAN, pipeline(2, "zerobubble", model="odd", clip=0.5)),
    "an odd model, interleaved": (2, PLAN, pipeline(2, "interleaved", model="odd", optimizer="sgd")),
    "weights and metrics": (2, PLAN, pipeline(2, loss="weighted", clip=0.5)),
    "data and pipeline": (4, PLAN, pipeline(2, clip=0.5, batch=25, bucket_bytes=2000)),
    "data and pipeline, zero-bubble, weights": (4, PLAN, pipeline(2, "zerobubble", loss="weighted", batch=25)),
    "an idle rank": (3, PLAN, pipeline(2, clip=0.5, loss="weighted")),
    "LAMB": (2, PLAN, pipeline(2, named=LAMB)),
    "tensor and pipeline": (4, SEQUENCE_PLAN, pipeline(2, tensor=2, clip=0.5)),
    "tensor and pipeline, zero-bubble, LARS": (4, SEQUENCE_PLAN, pipeline(2, "zerobubble", tensor=2, named=LARS)),
    "data, tensor and pipeline": (8, PLAN, pipeline(2, tensor=2, clip=0.5, steps=20)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str) -> None:
    world, plan, case = CASES[name]
    reference = by_torch(case)
    outcomes: list[Outcome] = together(by_drivetrain, world, case, plan)
    assert outcomes[0].distance(reference) <= (1e-4 if case.named else 1e-5)  # LAMB's ratios carry rounding on
    for outcome in outcomes:
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-4)
        assert outcome.evaluation == outcomes[0].evaluation
        assert outcome.metrics == outcomes[0].metrics
        if case.clip is not None:
            assert outcome.norms == pytest.approx(reference.norms, rel=1e-4)
    assert (case.loss == "weighted") == ("right" in outcomes[0].metrics[-1])


@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_mixed_precision(compute: Any) -> None:
    case = pipeline(2, "zerobubble", precision=RuntimePrecision(compute=compute))
    assert 0 < together(by_drivetrain, 2, case, PLAN)[0].distance(by_torch(case)) < 0.02


def test_every_rank_keeps_its_blocks() -> None:
    case = pipeline(2, "interleaved", steps=2)
    outcomes = together(by_drivetrain, 2, case, PLAN)
    model = make(case, PLAN)
    rest = sum(each.numel() for name, each in model.named_parameters() if not name.startswith("layers."))
    whole = sum(each.numel() for each in model.parameters())
    blocks = [outcome.extra["parameters"] - rest for outcome in outcomes]
    assert sum(blocks) == whole - rest
    assert min(blocks) >= (whole - rest) / 6
    assert [outcome.extra["state"] for outcome in outcomes] == [2 * (each + rest) for each in blocks]
