"""ZeRO: every rank keeps its part, sends no more than the papers say, and trains as one process would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.comm.pending import Pending
from drivetrain.errors import CommFault, UsageError
from drivetrain.optim.lamb import Lamb
from drivetrain.parallel.blocks import blocks_of
from drivetrain.parallel.zero.same_order import SameOrder
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeLearningRate, RuntimeOptimizer, RuntimePrecision
from unit.runtime.together import Pipe, together
from unit.runtime.training import (
    Case,
    Net,
    Numbers,
    Outcome,
    by_drivetrain,
    by_torch,
    copied,
    forward,
    make_optimizer,
    settings,
)

LAMB = RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4, weight_decay=0.01)
LARS = RuntimeOptimizer(name="lars", lr=1.0, weight_decay=0.01, trust_coefficient=0.02)
SQRT = RuntimeLearningRate(scaling="sqrt", base_batch=4, warmup_steps=5)
FP16 = RuntimePrecision(compute="fp16")

CASES = {
    "Adam, small buckets": (3, Case(batch=25, optimizer="adam", bucket_bytes=300)),
    "clipping, schedule, micro-batches": (2, Case(batch=26, clip=0.4, scheduler=True, microbatches=3)),
    "blocks": (4, Case(model="deep", batch=25, optimizer="adam", clip=0.5)),
    "blocks, micro-batches": (2, Case(model="deep", batch=24, microbatches=3)),
    "LAMB, sqrt scaling, warm-up": (3, Case(model="deep", batch=25, named=LAMB, learning_rate=SQRT)),
    "LARS, schedule": (4, Case(batch=25, named=LARS, scheduler=True)),
    "weighted sums": (3, Case(loss="weighted", batch=25, clip=0.5)),
    "sparse gradients": (3, Case(model="sparse", batch=25, optimizer="plain sgd", clip=0.4)),
}


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str, stage: int) -> None:
    world, case = CASES[name]
    case = case.but(zero=stage)
    reference = by_torch(case)
    outcomes: list[Outcome] = together(by_drivetrain, world, case)
    assert outcomes[0].distance(reference) <= 1e-5
    for outcome in outcomes:
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-5)
        if case.clip is not None:
            assert outcome.norms == pytest.approx(reference.norms, rel=1e-4)
        assert outcome.evaluation == outcomes[0].evaluation


@pytest.mark.parametrize("stage", [1, 2])
def test_a_script_may_compute_gradients_of_its_own_between_steps(stage: int) -> None:
    case = Case(batch=25, clip=0.5, looks=True)
    outcomes: list[Outcome] = together(by_drivetrain, 2, case.but(zero=stage))
    assert outcomes[0].distance(by_torch(case)) <= 1e-5


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "case",
    [Case(batch=3, steps=24), Case(batch=26, balance_every=3), Case(batch=3, loss="weighted", microbatches=2)],
    ids=["fewer samples than ranks", "balance", "weighted, fewer samples than ranks"],
)
def test_uneven_shares(case: Case, stage: int) -> None:
    outcomes = together(by_drivetrain, 4, case.but(zero=stage))
    assert outcomes[0].distance(by_torch(case)) <= 1e-5


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_unused_parameters_get_no_update(stage: int) -> None:
    case = Case(model="unused", batch=6, steps=30, optimizer="adam", zero=stage)
    after = together(by_drivetrain, 3, case)[0].after
    plain = together(by_drivetrain, 3, case.but(zero=0))[0]
    assert torch.equal(after["never.weight"], plain.before["never.weight"])
    assert (after["sometimes.weight"] - plain.after["sometimes.weight"]).abs().max() < 1e-5


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(RuntimePrecision(reduce="bf16"), 0.005), (RuntimePrecision(compute="bf16", reduce="bf16"), 0.008), (FP16, 0.001)],
    ids=["reduce bf16", "all bf16", "fp16"],
)
def test_mixed_precision(stage: int, precision: RuntimePrecision, tolerance: float) -> None:
    case = Case(model="deep", batch=25, precision=precision, zero=stage)
    assert 0 < together(by_drivetrain, 3, case)[0].distance(by_torch(case)) <= tolerance


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("world", [2, 4])
def test_every_rank_keeps_its_part(stage: int, world: int) -> None:
    case = Case(model="deep", batch=24, optimizer="adam", steps=3, zero=stage)
    outcomes = together(by_drivetrain, world, case)
    whole = sum(each.numel() for each in Net("deep").parameters())
    buckets = len(blocks_of(Net("deep"))) if stage == 3 else 1
    padding = buckets * world
    assert sum(outcome.extra["state"] for outcome in outcomes) == 2 * whole
    for outcome in outcomes:
        assert abs(outcome.extra["state"] - 2 * whole / world) <= 2 * padding
        assert outcome.extra["gradients"] == 0
        if stage == 3:
            assert outcome.extra["parameters"] <= whole / world + padding


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("before", [0, 2, 3])
def test_a_file_goes_on_in_another_world_and_stage(before: int, stage: int, tmp_path: Path) -> None:
    case = Case(model="deep", batch=24, optimizer="adam", scheduler=True, steps=16, precision=FP16)
    together(halves, 3, case.but(zero=before, steps=8), tmp_path)
    resumed = together(halves, 2, case.but(zero=stage), tmp_path)
    assert resumed[0][0] == 8, "it goes on where the file was written"
    assert resumed[0][1].distance(by_torch(case)) <= 0.002, "fp16 is not more exact"


def halves(pipe: Pipe, case: Case, folder: Path) -> tuple[int, Outcome]:
    """Train from `folder`'s file to the end and save there."""
    torch.manual_seed(11)
    model = Net(case.model)
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(
        model=model,
        optimizer=lambda parameters: make_optimizer(case, parameters),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
        data=Numbers(),
        resume=folder / "model.pt",
    )
    steps = [run.step(batch, forward(case)).step for batch in run.batches()]
    run.save(folder / "model.pt")
    run.finish()
    return steps[0], Outcome(before, torch.load(folder / "model.pt", weights_only=True)["model"], [], [], [])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_overflow_skips_the_update_on_all_ranks(stage: int) -> None:
    for skipped, scale, changed in together(overflowing, 3, stage):
        assert skipped == [4]
        assert scale == 2.0**15
        assert not changed


def overflowing(pipe: Pipe, stage: int) -> tuple[list[int], float, bool]:
    """At step 4 the gradient of rank 1 is infinite."""
    case = Case(model="deep", steps=8, precision=FP16, optimizer="adam", zero=stage)
    torch.manual_seed(11)
    run = Run(settings(case), None)
    run.prepare(model=Net("deep"), optimizer=lambda parameters: make_optimizer(case, parameters), data=Numbers())
    skipped, changed = [], False
    for batch in run.batches():

        def poisoned(model: Any, shard: Any, step: int = batch.step) -> Any:
            return forward(case)(model, shard) * (float("inf") if step == 4 and pipe.rank == 1 else 1.0)

        before = run.state_sha256()
        if run.step(batch, poisoned).skipped:
            skipped.append(batch.step)
            changed = before != run.state_sha256()
    scaler = run._prepared().precision.scaler
    assert scaler is not None
    scale = scaler.get_scale()
    run.finish()
    return skipped, scale, changed


class Lost(torch.autograd.Function):
    """Backward comes so far and no further."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise CommFault("a peer is lost")


def interrupted(pipe: Pipe, stage: int, folder: Path) -> Outcome:
    """All ranks lose their peers in the middle of a backward pass, undo the step and make it again."""
    case = Case(model="deep", steps=6, zero=stage, optimizer="adam")
    torch.manual_seed(11)
    model = Net("deep")
    before = copied(model)
    run = Run(settings(case), None)
    run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=Numbers())
    failed = []

    def failing(model: nn.Module, shard: Any) -> Any:
        handle = model.layers[1].register_forward_hook(lambda _module, _args, output: Lost.apply(output))  # type: ignore[index,union-attr]
        try:
            return forward(case)(model, shard)
        finally:
            handle.remove()

    for batch in run.batches():
        if batch.step == 2:
            with pytest.raises(CommFault):
                run.step(batch, failing)
            failed.append(batch.step)
        run.step(batch, forward(case))
    run.save(folder / "model.pt")
    run.finish()
    assert failed == [2]
    return Outcome(before, torch.load(folder / "model.pt", weights_only=True)["model"], [], [], [])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_interrupted_step_is_made_again(stage: int, tmp_path: Path) -> None:
    outcomes = together(interrupted, 3, stage, tmp_path)
    assert outcomes[0].distance(by_torch(Case(model="deep", steps=6, optimizer="adam"))) <= 1e-5


def misused(pipe: Pipe) -> list[str]:
    """What a script is told that uses a model between steps."""
    case = Case(model="deep", steps=2, zero=3, optimizer="adam")
    run = Run(settings(case), None)
    model = run.prepare(model=Net("deep"), optimizer=lambda p: make_optimizer(case, p), data=Numbers())
    for batch in run.batches():
        run.step(batch, forward(case))
    told = []
    for misuse in (model.state_dict, lambda: model(Numbers().x[:3])):
        try:
            misuse()
        except (UsageError, RuntimeError) as error:
            told.append(f"{type(error).__name__}: {error}")
    run.finish()
    return told


def test_between_steps_no_rank_has_a_model_in_stage_3() -> None:
    for told in together(misused, 2):
        assert told[0].startswith("UsageError: between steps no rank has the whole model: write it with run.save")
        assert told[1].startswith("UsageError: between steps no rank has the whole model: call the model in")


class Switching(nn.Module):
    """Runs its blocks in an order that depends on the rank, from a step on."""

    def __init__(self, order: tuple[int, ...], *, stops: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(12, 12, bias=number != 1) for number in range(4))
        self.last = nn.Linear(12, 5)
        self.order: tuple[int, ...] = (0, 1, 2, 3)
        self.then = order
        self.stops = stops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in self.order:
            x = self.blocks[number](x)
            if self.stops and self.order == self.then:
                x = x.detach() if number == 1 else x
        out: torch.Tensor = self.last(x)
        return out


ORDERS: dict[str, tuple[tuple[int, ...], bool]] = {
    "another order": ((0, 2, 1, 3), False),
    "one of another size": ((0, 1, 1, 3), False),
    "fewer": ((0, 1, 2), False),
    "none at the beginning": ((1, 2, 3), False),
    "none": ((), False),
    "more": ((0, 1, 2, 3, 2), False),
    "less backward": ((0, 1, 2, 3), True),
}


def tear() -> None:
    """From blocks.2 on, connections end before what is gathered has come: as they do when the other rank, which has
    found out first that this one is elsewhere, has ended by then."""
    visit, wait = SameOrder.visit, Pending.wait
    torn: list[int] = []

    def visiting(order: SameOrder, block: int) -> int | None:
        torn.extend([block] * (block == 3))  # 0 is what is in no block
        return visit(order, block)

    def waiting(pending: Pending) -> None:
        if torn:
            raise CommFault("all-gather: connection reset by peer")
        wait(pending)

    patch = pytest.MonkeyPatch()  # for good: this process is a rank's
    patch.setattr(SameOrder, "visit", visiting)
    patch.setattr(Pending, "wait", waiting)


def switching(pipe: Pipe, order: tuple[int, ...], stops: bool, since: int, torn: bool = False) -> str:
    """Train with it."""
    case = Case(steps=4, zero=3, microbatches=2)
    run = Run(settings(case), None)
    model = Switching(order if pipe.rank == 0 else (0, 1, 2, 3), stops=stops and pipe.rank == 0)
    run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=Numbers())
    for batch in run.batches():
        if batch.step == since:
            model.order = model.then
            if torn and pipe.rank == 1:
                tear()
        try:
            run.step(batch, forward(case))
        except UsageError as error:
            return str(error)
    return "nothing"


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("kind", ORDERS)
def test_ranks_that_run_other_blocks_are_told_which(kind: str, since: int) -> None:
    order, stops = ORDERS[kind]
    answers = together(switching, 2, order, stops, since)
    assert answers[0] == answers[1]
    assert re.search(
        r"rank 0 is at (blocks\.\d as|the end of).* while rank 1 is at (blocks\.\d as|the end of)", answers[0]
    )


def test_a_rank_is_told_although_the_other_one_has_ended() -> None:
    answers = together(switching, 2, *ORDERS["one of another size"], 2, True)
    assert answers[0] == answers[1]
    assert "rank 0 is at blocks.1 as block number 3 while rank 1 is at blocks.2" in answers[0]


def changing(pipe: Pipe) -> list[float]:
    """All ranks change the order of the blocks, now and then."""
    case = Case(steps=6, zero=3, microbatches=2)
    torch.manual_seed(2)
    run = Run(settings(case if pipe.world > 1 else case.but(zero=0)), None)
    model = Switching((3, 1), stops=False)
    run.prepare(model=model, optimizer=lambda p: make_optimizer(case, p), data=Numbers())
    losses = []
    for batch in run.batches():
        model.order = (3, 1) if batch.step in (2, 3, 5) else (0, 1, 2, 3)
        losses.append(run.step(batch, forward(case)).loss)
    run.finish()
    return losses


def test_all_may_run_other_blocks_than_before() -> None:
    (alone,) = together(changing, 1)
    assert together(changing, 2) == [pytest.approx(alone, rel=1e-5)] * 2


def few(pipe: Pipe) -> str:
    """Fewer samples than micro-batches for one rank."""
    case = Case(steps=3, zero=3, batch=5, microbatches=3)
    run = Run(settings(case), None)
    run.prepare(model=Net("deep"), optimizer=lambda p: make_optimizer(case, p), data=Numbers())
    try:
        run.step(next(iter(run.batches())), forward(case))
    except UsageError as error:
        return str(error)
    return "nothing"


def test_stage_3_needs_samples_for_all_micro_batches() -> None:
    for told in together(few, 2):
        assert told.startswith("training.batch.global is 5: too small for 2 ranks with 3 micro-batches")


def test_lamb_knows_norms_over_ranks_only_while_cut() -> None:
    assert Lamb([nn.Parameter(torch.ones(2))], 0.1).sum_over_ranks is None
