"""What scripts do with model, optimizer and gradients between steps, where ranks have parts of them: it is as in plain
torch, or an error that says what to do instead."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.errors import UsageError
from drivetrain.run import Run
from unit.runtime import parts
from unit.runtime.parts import Data, forward, make
from unit.runtime.together import Pipe, together
from unit.runtime.training import settings

MODES = {name: parts.MODES[name] for name in ("ZeRO 1", "ZeRO 2", "ZeRO 3", "tensor", "tensor, ZeRO 1", "pipeline")}
WHOLE = ("ZeRO 1", "ZeRO 2")
"""Modes in which each rank has all of the model."""

Use = Callable[[nn.Module, torch.optim.Optimizer, nn.Parameter], Any]


def ones() -> torch.Tensor:
    return torch.ones(2, parts.WIDTH, dtype=torch.float64)


def own_gradients(model: nn.Module, optimizer: torch.optim.Optimizer, _: nn.Parameter) -> float:
    model(ones()).sum().backward()
    total = sum(float(each.grad.norm()) for each in model.parameters() if each.grad is not None)
    optimizer.zero_grad()
    return total


def averaged(model: nn.Module, *_: Any) -> float:
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    total: float = average(ones()).sum().item()
    return total


def saved(model: nn.Module) -> float:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    total: float = torch.load(file, weights_only=False)(ones()).sum().item()
    return total


OF_MODEL: dict[str, Use] = {
    "a call": lambda model, *_: model(ones()).sum().item(),
    "the state": lambda model, *_: sum(float(each.double().norm()) for each in model.state_dict().values()),
    "a copy": lambda model, *_: copy.deepcopy(model)(ones()).sum().item(),
    "a pickle": lambda model, *_: pickle.loads(pickle.dumps(model))(ones()).sum().item(),
    "a file": lambda model, *_: saved(model),
    "an average": averaged,
    "own gradients": own_gradients,
}
OF_STATE: dict[str, Use] = {
    "an item": lambda _, optimizer, each: optimizer.state[each]["momentum_buffer"],
    "get": lambda _, optimizer, each: optimizer.state.get(each),
    "pop": lambda _, optimizer, each: optimizer.state.pop(each, None),
    "setdefault": lambda _, optimizer, each: optimizer.state.setdefault(each, {}),
    "in": lambda _, optimizer, each: each in optimizer.state,
    "del": lambda _, optimizer, each: optimizer.state.__delitem__(each),
    "all": lambda _, optimizer, each: dict(optimizer.state),
    "how many": lambda _, optimizer, each: len(optimizer.state),
    "none of it": lambda _, optimizer, each: optimizer.state.clear(),
    "a copy": lambda _, optimizer, each: copy.deepcopy(optimizer),
    "a file": lambda _, optimizer, each: torch.save(optimizer, io.BytesIO()),
    "state_dict": lambda _, optimizer, each: optimizer.state_dict(),
}
ANYWHERE: dict[str, Use] = {
    "optimizer.zero_grad": lambda _, optimizer, each: optimizer.zero_grad(),
    "zeros": lambda _, optimizer, each: optimizer.zero_grad(set_to_none=False),
    "model.zero_grad": lambda model, *_: model.zero_grad(),
    "its group": lambda _, optimizer, each: any(each is other for other in optimizer.param_groups[1]["params"]),
    "its rate": lambda _, optimizer, each: optimizer.param_groups[1].update(lr=optimizer.param_groups[1]["lr"] / 2),
    "repr": lambda _, optimizer, each: len(repr(optimizer)) + len(repr(each)) + len(repr(optimizer.state)) > 0,
}


def made(model: nn.Module) -> torch.optim.Optimizer:
    last = {id(each) for each in model.get_submodule("layers.3").parameters()}
    groups = [[each for each in model.parameters() if (id(each) in last) is wanted] for wanted in (False, True)]
    return torch.optim.SGD([{"params": each} for each in groups], 0.1, momentum=0.9)


def told(use: Use, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    try:
        return use(model, optimizer, model.get_parameter("layers.3.up.weight"))
    except UsageError as error:
        return f"UsageError: {error}"


def between(_: Pipe, mode: str) -> dict[str, Any]:
    """What each use comes to after the first step, and what is trained."""
    run = Run(settings(MODES[mode][1].but(steps=3, batch=24)), None)
    model = make("all")
    optimizer = made(model)
    run.prepare(model=model, optimizer=lambda _: optimizer, data=Data())
    found: dict[str, Any] = {"losses": []}
    for batch in run.batches():
        found["losses"].append(run.step(batch, forward).loss)
        if batch.step == 0:
            found["model"] = {name: told(use, model, optimizer) for name, use in OF_MODEL.items()}
            found["state"] = {name: told(use, model, optimizer) for name, use in OF_STATE.items()}
            found["gradient"] = told(lambda model, optimizer, each: each.grad, model, optimizer)
            found["anywhere"] = {name: told(use, model, optimizer) for name, use in ANYWHERE.items()}
    run.finish()
    return found


def alone() -> dict[str, Any]:
    """The same in plain torch."""
    model, data = make("all"), Data()
    optimizer, found = made(model), dict[str, Any](losses=[])
    for step in range(3):
        picked = samples_of_step(step, 24, len(data), settings(MODES["ZeRO 1"][1]).training.seed)
        optimizer.zero_grad()
        loss = forward(model, (data.x[picked], data.y[picked]))
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        found["losses"].append(float(loss.detach()))  # type: ignore[union-attr]
        if step == 0:
            optimizer.zero_grad()
            found["model"] = {name: told(use, model, optimizer) for name, use in OF_MODEL.items()}
            found["anywhere"] = {name: told(use, model, optimizer) for name, use in ANYWHERE.items()}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_it_is_right_or_refused_by_name(mode: str) -> None:
    expected = alone()
    ranks: list[dict[str, Any]] = together(between, MODES[mode][0], mode)
    for found in ranks:
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-9)
        assert found["anywhere"] == expected["anywhere"]
        for name, answer in found["state"].items():
            assert answer.startswith("UsageError"), (name, answer)
            assert "run.save" in answer, (name, answer)
        assert found["state"]["an item"].startswith("UsageError: optimizer.state[layers.3.up.weight]: no rank has all")
        if mode in WHOLE:
            assert found["model"] == pytest.approx(expected["model"], rel=1e-9)
        else:
            assert all(str(answer).startswith("UsageError") for answer in found["model"].values()), found["model"]
            assert "run.save" in found["model"]["a file"]
    # Of a pipeline only one rank has it, and its gradient.
    assert str(ranks[0]["gradient"]).startswith("UsageError: layers.3.up.weight.grad: training.parallel.")


def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a hook": (lambda optimizer: optimizer.register_step_pre_hook(clip), "has hooks around its step (clip)"),
    "new state": (lambda optimizer: setattr(optimizer, "state", {}), "optimizer.state was replaced"),
    "one less": (lambda optimizer: optimizer.param_groups[0]["params"].pop(), "param_groups[0] has other parameters"),
    "others": (
        lambda optimizer: optimizer.param_groups[0]["params"].reverse(),
        "optimizer.param_groups[0] has other parameters now; with training.parallel.zero",
    ),
    "another group": (
        lambda optimizer: optimizer.param_groups.__setitem__(1, dict(optimizer.param_groups[1])),
        "optimizer.param_groups[1] has other parameters",
    ),
}


def changed(_: Pipe, change: str) -> str:
    run = Run(settings(MODES["ZeRO 1"][1].but(steps=3, batch=24)), None)
    model = make("all")
    optimizer = made(model)
    run.prepare(model=model, optimizer=lambda _: optimizer, data=Data())
    steps = iter(run.batches())
    run.step(next(steps), forward)
    CHANGES[change][0](optimizer)
    try:
        run.step(next(steps), forward)
    except UsageError as error:
        return str(error)
    finally:
        run._finished = True
    return "nothing"


@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_changed_between_steps_is_told_at_the_next(change: str) -> None:
    for answer in together(changed, 2, change):
        assert CHANGES[change][1] in answer
