"""What a script or a job may not ask for, and what it is told; and what may change between a save and a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import StateMismatch, UsageError
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeOptimizer, RuntimePrecision
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, by_drivetrain, forward, make_scheduler, settings

SGD = RuntimeOptimizer(name="sgd", lr=0.1)


class Tied(nn.Module):
    """The table is also what logits are made with: by a module of its own, or in forward."""

    def __init__(self, *, by_module: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 12, sparse=True)
        if by_module:
            self.head = nn.Linear(12, 5, bias=False)
            self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.table(torch.zeros(len(x), dtype=torch.int64)) + x, self.table.weight)


def with_buffer(buffer: torch.Tensor) -> nn.Module:
    """A model with this one among others."""
    model = nn.Sequential(nn.Linear(12, 5), nn.Linear(5, 5))
    model[1].register_buffer("odd", buffer, persistent=False)
    return model


def with_parameter(parameter: torch.Tensor) -> nn.Module:
    """A model with this one among others."""
    model = nn.Sequential(nn.Linear(12, 5))
    model[0].weight = nn.Parameter(parameter)
    return model


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


ODD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a sparse buffer": (lambda: with_buffer(torch.eye(3).to_sparse()), "the buffer 1.odd is no dense tensor (sparse_"),
    "a CSR buffer": (
        lambda: with_buffer(torch.eye(3).to_sparse_csr()),
        "the buffer 1.odd is no dense tensor (sparse_csr",
    ),
    "a buffer of mkldnn": (
        lambda: with_buffer(torch.eye(3).to_mkldnn()),
        "the buffer 1.odd is no dense tensor (mkldnn)",
    ),
    "a quantized buffer": (lambda: with_buffer(quantized()), "the buffer 1.odd is quantized (torch.qint8)"),
    "a nested buffer": (lambda: with_buffer(nested()), "the buffer 1.odd is nested"),
    "a meta buffer": (lambda: with_buffer(torch.ones(3, device="meta")), "the buffer 1.odd is on the meta device"),
    "a meta parameter": (lambda: nn.Linear(12, 5, device="meta"), "the parameter weight is on the meta device"),
    "a sparse parameter": (lambda: with_parameter(torch.eye(12).to_sparse()), "the parameter 0.weight is no dense"),
    "a lazy layer": (
        lambda: nn.Sequential(nn.LazyLinear(5)),
        "the parameter 0.weight has no shape yet: run one batch through the model before prepare",
    ),
    "a lazy batch norm": (
        lambda: nn.Sequential(nn.Linear(12, 5), nn.LazyBatchNorm1d(affine=False)),
        "the buffer 1.running_mean has no shape yet: run one batch through the model before prepare",
    ),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_bytes_is_refused_by_prepare(name: str) -> None:
    make, told = ODD[name]
    model = make()
    with pytest.raises(UsageError) as refused:
        Run(settings(Case()), None).prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    assert f"prepare(model=...): {told}" in str(refused.value)


def test_a_lazy_model_that_has_run_is_trained() -> None:
    case = Case(steps=2)
    run = Run(settings(case), None)
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d())
    model(torch.ones(2, 12))
    run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    for batch in run.batches():
        run.step(batch, forward(case))


def backward_inside(_: Pipe) -> str:
    """Forward that calls `backward` itself."""
    run = Run(settings(Case()), None)
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())

    def twice(model: nn.Module, shard: Any) -> Any:
        loss = forward(Case())(model, shard)
        loss.backward(retain_graph=True)
        return loss

    try:
        run.step(next(iter(run.batches())), twice)
    except UsageError as error:
        return str(error)
    return "accepted"


def test_backward_in_forward_is_named() -> None:
    for told in together(backward_inside, 2):
        assert "forward must not call backward()" in told
        assert "use_reentrant=False" in told


REFUSED: dict[str, tuple[Callable[[], nn.Module], RuntimeOptimizer, str]] = {
    "a table of two modules": (lambda: Tied(by_module=True), SGD, "shares its weight"),
    "a table with another use": (lambda: Tied(by_module=False), SGD, "used elsewhere"),
    "max_norm": (lambda: nn.Sequential(nn.Embedding(5, 2, max_norm=1.0)), SGD, "0 has max_norm"),
    "sparse LAMB": (lambda: Net("sparse"), RuntimeOptimizer(name="lamb", lr=0.1), "lamb cannot update"),
    "sparse momentum of the job": (lambda: Net("sparse"), SGD.model_copy(update={"momentum": 0.9}), "sgd cannot"),
}


def refusals(_: Pipe) -> dict[str, str]:
    """What each of them is told."""
    found = {}
    for name, (model, optimizer, _expected) in REFUSED.items():
        found[name] = _refusal(model(), Case(named=optimizer))
    found["sparse momentum of the script"] = _refusal(Net("sparse"), Case())
    return found


def _refusal(model: nn.Module, case: Case) -> str:
    try:
        run = Run(settings(case), None)
        run.prepare(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), data=Numbers())
        run.step(next(iter(run.batches())), forward(case))
    except UsageError as error:
        return str(error)
    return "accepted"


def test_what_cannot_be_trained_is_refused_by_name() -> None:
    (told,) = together(refusals, 1)
    for name, (_, _, expected) in REFUSED.items():
        assert expected in told[name]
    assert "SGD keeps 'momentum_buffer' as a sparse tensor" in told["sparse momentum of the script"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_ranks_without_samples_have_a_loss_scale_too(deterministic: bool) -> None:
    case = Case(batch=3, steps=4, deterministic=deterministic, precision=RuntimePrecision(compute="fp16"))
    assert len({outcome.sha256 for outcome in together(by_drivetrain, 4, case)}) == 1


def changes(_: Pipe, path: Path) -> dict[str, Any]:
    """Save; resume with another rate and precision; try to with another optimizer."""
    adamw = RuntimeOptimizer(name="adamw", lr=0.1, weight_decay=0.01)
    found: dict[str, Any] = {"begun": _trained(path, Case(steps=4, named=adamw, scheduler=True))}
    quicker = adamw.model_copy(update={"lr": 0.5, "weight_decay": 0.02})
    half = RuntimePrecision(compute="fp16")
    found["quicker"] = _trained(path, Case(steps=6, named=quicker, scheduler=True, precision=half))
    found["fp32 again"] = _trained(path, Case(steps=8, named=quicker, scheduler=True))
    try:
        _trained(path, Case(steps=9, named=RuntimeOptimizer(name="lamb", lr=0.1), scheduler=True))
    except StateMismatch as error:
        found["lamb"] = str(error)
    return found


def _trained(path: Path, case: Case) -> list[tuple[int, float, float]]:
    """Resume if there is a file, train, save. By step: its number, the rate and the decay it was made with."""
    run = Run(settings(case), None)
    run.prepare(
        model=Net("plain"),
        optimizer=lambda _parameters: pytest.fail("the job names one"),
        scheduler=make_scheduler,
        data=Numbers(),
        resume=path,
    )
    seen = []
    for batch in run.batches():
        number = batch.step
        (group,) = run._prepared().update.state.optimizer.param_groups
        seen.append((number, group["lr"], group["weight_decay"]))
        run.step(batch, forward(case))
    run.save(path)
    return seen


def test_a_resumed_job_has_what_it_says_now(tmp_path: Path) -> None:
    (found,) = together(changes, 1, tmp_path / "model.pt")
    for name, steps, rate, decay in (
        ("begun", range(4), 0.1, 0.01),
        ("quicker", range(4, 6), 0.5, 0.02),
        ("fp32 again", range(6, 8), 0.5, 0.02),
    ):
        assert [each[0] for each in found[name]] == list(steps)
        assert [each[1] for each in found[name]] == pytest.approx([rate * 0.97**step for step in steps])
        assert {each[2] for each in found[name]} == {decay}
    assert "another optimizer" in found["lamb"]
