"""Pipeline parallelism: ranks that share a model's blocks train as one process would, alone and with other kinds."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import Interrupted, UsageError
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.parallel.rows import Rows
from drivetrain.run import Run
from drivetrain_api.choices import ScheduleName
from drivetrain_api.runtime import RuntimePipeline, RuntimePrecision
from unit.runtime.text import (
    LAMB,
    LARS,
    PLAN,
    SEQUENCE_PLAN,
    WIDTH,
    Text,
    assert_as_one_process,
    by_drivetrain,
    by_torch,
    forward,
    from_file_to_file,
    make,
)
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, make_optimizer, settings


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
    "data, tensor and pipeline": (8, PLAN, pipeline(2, tensor=2, clip=0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str) -> None:
    assert_as_one_process(*CASES[name])


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


def test_blocks_are_cut_by_what_they_cost() -> None:
    """One block is far slower than the others together: it gets a stage of its own."""
    told = together(bounds, 2, pipeline(2, steps=1))
    assert told == [[0, 5, 6]] * 2


def bounds(pipe: Pipe, case: Case) -> list[int]:
    """Where blocks were cut."""
    run = Run(settings(case), None)
    model = make(case, PLAN)
    slow = model.get_submodule("layers.5.up")
    slow.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=Text())
    for batch in run.batches():
        run.step(batch, forward)
    division = run._prepared().strategy.division
    assert isinstance(division, Rows)
    assert division.pipeline is not None
    return division.pipeline.stages.bounds


def test_a_file_goes_on_with_other_stages(tmp_path: Path) -> None:
    case = pipeline(2, steps=16)
    together(from_file_to_file, 4, replace(pipeline(2, tensor=2), steps=8), tmp_path)
    together(from_file_to_file, 3, replace(pipeline(3, "zerobubble"), steps=12), tmp_path)
    first, outcome = together(from_file_to_file, 2, case, tmp_path)[0]
    assert first == 12
    assert outcome.distance(by_torch(case)) <= 1e-5


class Chain(nn.Module):
    """Four blocks, used as `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Linear(WIDTH, WIDTH)
        self.norm: nn.Module = nn.BatchNorm1d(WIDTH) if kind == "norm outside" else nn.Identity()
        shared = nn.LayerNorm(WIDTH) if kind == "a shared layer" else nn.Identity()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH) if kind == "norm inside" else nn.Identity(), shared
            )
            for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> Any:
        if self.kind == "a late buffer" and "late" not in self._buffers:
            self.register_buffer("late", torch.zeros(1))
        first = hidden = self.norm(self.first(x))
        kept = []
        for number, block in enumerate(self.blocks):
            if self.kind == "skips one" and number == 1 and float(x.detach().sum()) < 1e9:
                continue
            if self.kind == "shape" and hidden.shape[0] == 0:
                return hidden
            if self.kind == "uses an early one":
                hidden = hidden.tanh()
            hidden = block((hidden,)) if self.kind == "a tuple" else block(hidden)
            kept.append(hidden)
        if self.kind in ("uses an early one", "uses the first one"):
            hidden = hidden + kept[0]
        if self.kind == "restarts":
            hidden = self.blocks[3](first)
        return hidden + first if self.kind == "a skip connection" else hidden


def chain(pipe: Pipe, kind: str, best: int = 2) -> tuple[str, list[float]]:
    """What a script with such a model is told, and its losses. Going by costs, the second stage would begin with block
    `best`."""
    torch.manual_seed(3)
    costs = torch.tensor([*{1: (6, 2, 2, 2), 2: (1, 1, 1, 1), 3: (2, 2, 2, 6)}[best], 0, 0], dtype=torch.float64)
    Stages.measure = lambda self, compute: costs  # type: ignore[method-assign]
    case = pipeline(2, steps=3, batch=16, optimizer="sgd")
    if pipe.world == 1:
        case = replace(case, pipeline=None)
    run = Run(settings(case), None)
    losses: list[float] = []
    model = Chain(kind)
    data = torch.utils.data.TensorDataset(torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1)))
    try:
        run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=data)
        for batch in run.batches():
            losses.append(run.step(batch, lambda model, shard: model(shard[0]).square().mean()).loss)
        if kind == "calls it later":
            model(torch.zeros(1, WIDTH))
        if kind == "asks for its state":
            model.state_dict()
    except UsageError as error:
        return str(error), losses
    return "", losses


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("shape", "shape asks for its shape or numbers. Do that inside a block"),
        ("skips one", "block 2 of model.blocks is called where block 1 was due"),
        ("a tuple", "a block's first argument must be a tensor, not tuple"),
        ("uses an early one", "the loss must not depend on what blocks of other stages return"),
        ("restarts", "block 3 of model.blocks is called where block 4 was due"),
        ("a late buffer", "it must not register buffers: register late in the model's __init__"),
        ("norm outside", "only blocks may have buffers that forward changes"),
        ("calls it later", "between steps no rank has the whole model: call the model in the functions of run.step"),
        ("asks for its state", "between steps no rank has the whole model: write it with run.save"),
    ],
)
@pytest.mark.parametrize("best", [1, 2, 3])
def test_what_cannot_be_cut_is_refused(kind: str, told: str, best: int) -> None:
    texts = [text for text, _ in together(chain_or_interrupted, 2, kind, best)]
    assert any(told in text for text in texts), texts


def chain_or_interrupted(pipe: Pipe, kind: str, best: int) -> tuple[str, list[float]]:
    """The rank that finds the mistake ends; the other one notices."""
    try:
        return chain(pipe, kind, best)
    except Interrupted as error:
        return str(error), []


@pytest.mark.parametrize(
    ("kind", "best"),
    [
        *(("plain", 2), ("a skip connection", 2), ("a shared layer", 2)),
        # It cannot be cut but after the first block, however long others take.
        *(("uses the first one", best) for best in (1, 2, 3)),
    ],
)
def test_what_goes_past_the_blocks_is_kept(kind: str, best: int) -> None:
    _, reference = together(chain, 1, kind)[0]
    for told, losses in together(chain, 2, kind, best):
        assert told == ""
        assert losses == pytest.approx(reference, rel=1e-5)


def saved(pipe: Pipe, path: Path) -> str:
    """Train with batch norms in the blocks, and save."""
    torch.manual_seed(3)
    case = pipeline(2, steps=3, batch=16)
    run = Run(settings(case), None)
    data = torch.utils.data.TensorDataset(torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1)))
    run.prepare(model=Chain("norm inside"), optimizer=lambda p: make_optimizer(case, p), data=data)
    for batch in run.batches():
        run.step(batch, lambda model, shard: model(shard[0]).square().mean())
    run.save(path)
    run.finish()
    return "done"


def test_a_file_has_the_statistics_of_all_blocks(tmp_path: Path) -> None:
    together(saved, 2, tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    for number in range(4):
        assert state[f"blocks.{number}.1.num_batches_tracked"] > 0
        assert state[f"blocks.{number}.1.running_mean"].abs().sum() > 0


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="the model has 4 blocks for 6 chunks"):
        Stages(Chain("plain"), 6)
