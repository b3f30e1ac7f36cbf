"""An update is a function of a state and a record: applied to a copy of the state, the record makes the same bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.optim.rate import RateFactor
from drivetrain.precision import LossScale
from drivetrain.state import digest
from drivetrain.update import Record, State, Update, apply
from drivetrain_api.runtime import RuntimeLearningRate


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
    return State(model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), scale)


def everything(state: State) -> dict[str, Any]:
    parts: list[Any] = [state.model, state.optimizer, state.scheduler, state.loss_scale]
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
        record = update.record(step, norm)
        buffers = {name: each.clone() for name, each in trained.model.named_buffers()}
        kept = [None if each is None else each.clone() for each in record.gradients]
        records.append(Record(step, kept, record.norm, record.factor, record.rate, record.skipped, buffers))
        update.apply(record)
    assert [record.skipped for record in records] == [fp16 and step == 5 for step in range(8)]
    for record in records:
        apply(replayed, copy.deepcopy(record))
    assert digest(everything(replayed)) == digest(everything(trained))
    assert digest(everything(made(kind, fp16))) != digest(everything(trained))
