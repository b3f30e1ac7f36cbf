"""An update is a function of a state and a record: applied to a copy of the state, the record makes the same bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import drivetrain.prepared
from drivetrain.data.passes import PassLength
from drivetrain.optim.rate import RateFactor
from drivetrain.precision import LossScale
from drivetrain.run import Run
from drivetrain.schedule import Schedule
from drivetrain.state import digest
from drivetrain.update import Record, State, Update, apply
from drivetrain_api.runtime import RuntimeLearningRate
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Numbers, settings


def made(kind: str, fp16: bool) -> State:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    model = nn.Sequential(first, nn.BatchNorm1d(8), nn.Tanh(), last)
    rest = list(model.parameters())[2:]
    groups: list[dict[str, Any]] = [{"params": list(first.parameters()), "lr": 0.02}, {"params": rest}]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups, 0.1, momentum=0.9) if kind == "sgd" else torch.optim.AdamW(groups, 0.01)
    )
    scale = LossScale("cpu", init_scale=8.0, growth_interval=3) if fp16 else None
    if scale is not None:
        scale.scale(torch.zeros(()))
    schedulers = {"": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}
    return State(model, optimizer, Schedule.of(schedulers, "step", PassLength(None, 8)), scale)


def everything(state: State) -> dict[str, Any]:
    parts: list[Any] = [state.model, state.optimizer, *state.schedule.schedulers.values(), state.loss_scale]
    return {str(number): part.state_dict() for number, part in enumerate(parts) if part is not None}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_records_replayed_elsewhere_make_the_same_bits(kind: str, fp16: bool, clip: float | None) -> None:
    trained, replayed = made(kind, fp16), made(kind, fp16)
    update = Update(trained, clip, RateFactor.of(RuntimeLearningRate(warmup_steps=4), 8))
    records: list[Record] = []
    generator = torch.Generator().manual_seed(1)
    for step in range(8):
        inputs = torch.randn(8, 6, generator=generator)
        loss = F.cross_entropy(trained.model(inputs), torch.zeros(8, dtype=torch.int64))
        scale = trained.loss_scale.get_scale() if trained.loss_scale is not None else 1.0
        trained.optimizer.zero_grad()
        (loss * scale * (float("inf") if fp16 and step == 5 else 1.0)).backward()
        if step == 2:
            list(trained.model.parameters())[-1].grad = None
        gradients = [each.grad for each in trained.model.parameters() if each.grad is not None]
        norm = float(torch.stack(torch._foreach_norm(gradients)).norm()) if update.needs_norm else None
        buffers = {name: (each.clone(), "cpu", False) for name, each in trained.model.named_buffers()}
        record = update.record(step, norm, buffers)
        kept = [None if each is None else each.clone() for each in record.gradients]
        records.append(Record(step, kept, record.norm, record.factor, record.rate, record.skipped, buffers))
        update.apply(record)
    assert [record.skipped for record in records] == [fp16 and step == 5 for step in range(8)]
    for record in records:
        apply(replayed, copy.deepcopy(record))
    assert digest(everything(replayed)) == digest(everything(trained))
    assert digest(everything(made(kind, fp16))) != digest(everything(trained))


class Restless(nn.Module):
    """Its buffers are written to, assigned anew, made None, registered late and deleted."""

    calls: torch.Tensor
    until: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(12), persistent=False)
        self.register_buffer("first", torch.zeros(2))
        self.register_buffer("until", torch.zeros(3))
        self.register_buffer("mask", torch.ones(100_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x[0].detach() * 2
        if self.calls == 2:
            self.register_buffer("late", torch.arange(3.0))
        if self.calls == 3:
            self.until = None
        if self.calls == 4:
            del self.first
        out: torch.Tensor = self.net(x)
        return out


def trained_and_replayed(pipe: Pipe) -> tuple[list[str], list[list[str]]]:
    """Digests of a run's model and optimizer, and of those to which only the records of its steps were applied. And the
    names of the buffers in each record."""
    torch.manual_seed(0)
    model = Restless()
    twin = copy.deepcopy(model)
    state = State(twin, torch.optim.AdamW(twin.parameters(), 0.01))
    names: list[list[str]] = []

    class Noting(Update):
        def record(self, *args: Any) -> Record:
            record = super().record(*args)
            names.append(sorted(record.buffers))
            apply(state, copy.deepcopy(record))
            return record

    drivetrain.prepared.Update = Noting  # type: ignore[attr-defined]  # this process is the test's own
    run = Run(settings(Case(steps=6, clip=1.0)), None)
    run.prepare(model=model, optimizer=lambda parameters: torch.optim.AdamW(parameters, 0.01), data=Numbers())
    for batch in run.batches():
        run.step(batch, lambda model, shard: F.cross_entropy(model(shard[0]), shard[1]))
    assert run._made is not None
    trained = State(model, run._made.update.state.optimizer)
    return [digest(everything(each) | {"hidden": each.model.last}) for each in (trained, state)], names


@pytest.mark.parametrize("world", [1, 2])
def test_a_runs_own_records_tell_all_that_a_step_has_changed(world: int) -> None:
    always = ["calls", "last", "net.1.num_batches_tracked", "net.1.running_mean", "net.1.running_var"]
    for digests, names in together(trained_and_replayed, world):
        assert digests[0] == digests[1]
        extra = [sorted(set(each) - set(always)) for each in names]
        assert extra == [[], ["late"], ["until"], ["first"], [], []]
        assert all(set(always) <= set(each) for each in names)
