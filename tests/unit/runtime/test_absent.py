"""A parameter that is elsewhere never answers: whatever a script does with it is an error with its name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.errors import Interrupted, UsageError
from drivetrain.parallel.absent import Absent, Door, Missing
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimePipeline
from unit.runtime.parts import Data, forward, make
from unit.runtime.text import SEQUENCE_PLAN, Text, Transformer
from unit.runtime.text import forward as text_forward
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, settings

USES: dict[str, Callable[[nn.Module, nn.Parameter], Any]] = {
    "a norm": lambda model, each: each.norm(),
    "a clamp": lambda model, each: each.clamp_(0),
    "its data": lambda model, each: each.data,
    "new data": lambda model, each: setattr(each, "data", torch.ones(2)),
    "its gradient": lambda model, each: each.grad,
    "as an array": lambda model, each: each.detach().numpy(),
    "arithmetic": lambda model, each: 1.0 - each,
    "a comparison": lambda model, each: bool((each > 0).all()),
    "an index": lambda model, each: each[0],
    "an assignment": lambda model, each: each.__setitem__(0, 1.0),
    "an argument": lambda model, each: torch.stack([each, each]),
    "where a result goes": lambda model, each: torch.add(torch.ones(2), 1, out=each),
    "in a list": lambda model, each: torch._foreach_norm([torch.ones(2), each]),
    "an initialisation": lambda model, each: nn.init.zeros_(each),
    "all in one vector": lambda model, each: nn.utils.parameters_to_vector(model.parameters()),
    "clipping": lambda model, each: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
    "a copy of the model": lambda model, each: copy.deepcopy(model),
    "an average of the model": lambda model, each: torch.optim.swa_utils.AveragedModel(model),
    "a pickle of the model": lambda model, each: pickle.dumps(model),
    "another type": lambda model, each: model.double(),
    "a part of the state": lambda model, each: model.get_submodule("0").state_dict(),
    "the state": lambda model, each: model.state_dict(),
    "a state": lambda model, each: model.load_state_dict({}),
    "a call": lambda model, each: model(torch.ones(1, 3)),
    "a call of a layer": lambda model, each: model.get_submodule("0")(torch.ones(1, 3)),
}


def absent() -> tuple[nn.Module, torch.optim.Optimizer, Absent]:
    model = nn.Sequential(nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    found = Absent(model, optimizer)
    whole = torch.Size([4, 3])
    found.set(
        {each: Missing(name, whole, "it is elsewhere", doors=(Door.LAYER,)) for name, each in model.named_parameters()}
    )
    found._take(found._turn)
    return model, optimizer, found


@pytest.mark.parametrize("use", USES)
def test_every_use_between_steps_is_refused_by_name(use: str) -> None:
    model, _, _ = absent()
    before = [each.clone() for each in nn.Linear(3, 2).parameters()]
    with pytest.raises(UsageError, match=r"0\.(weight|bias)|a model of which each rank has a part"):
        USES[use](model, next(model.parameters()))
    assert len(before) == 2


def test_the_optimizers_state_is_refused() -> None:
    _, optimizer, _ = absent()
    with pytest.raises(UsageError, match=r"run\.save"):
        optimizer.state_dict()
    with pytest.raises(UsageError, match="resume"):
        optimizer.load_state_dict({})


def test_what_is_true_of_the_whole_is_told() -> None:
    model, optimizer, _ = absent()
    weight = next(model.parameters())
    assert isinstance(weight, nn.Parameter)
    assert weight in {weight}
    assert (weight.dtype, weight.device, weight.requires_grad) == (torch.float32, torch.device("cpu"), True)
    assert (weight.shape, weight.size(0), weight.numel(), weight.dim()) == ((4, 3), 4, 12, 2)
    assert repr(weight) == "<0.weight, (4, 3), is elsewhere>"
    weight.grad = None
    model.zero_grad()
    optimizer.zero_grad(set_to_none=False)
    weight.requires_grad = False
    model.eval()
    assert [id(each) for each in optimizer.param_groups[0]["params"]] == [id(each) for each in model.parameters()]


def test_it_is_a_parameter_while_the_runtime_is_at_work_and_in_its_layer() -> None:
    model, optimizer, found = absent()
    weight, bias = model.parameters()

    def script() -> None:
        with pytest.raises(UsageError, match=r"norm of 0\.weight"):
            weight.norm()
        found.open(Door.LAYER, [weight, bias])
        model(torch.ones(1, 3)).sum().backward()
        found.close(Door.LAYER, [weight, bias])
        with pytest.raises(UsageError, match=r"norm of 0\.weight"):
            weight.norm()

    with found.ours():
        found.in_forward(script)()
        assert type(weight) is nn.Parameter
        before = weight.clone()
        optimizer.step()
        assert not torch.equal(before, weight)
    with pytest.raises(UsageError):
        weight.norm()
    found.clear()
    assert type(weight) is nn.Parameter
    weight.norm()


MODES = {
    "tensor": (2, Case(tensor=2)),
    "ZeRO 3": (2, Case(zero=3)),
    "tensor, ZeRO 1": (4, Case(tensor=2, zero=1)),
    "pipeline": (2, Case(pipeline=RuntimePipeline(stages=2), microbatches=4)),
    "tensor, an idle rank": (3, Case(tensor=2)),
}


def _penalty(model: nn.Module, shard: Any) -> Any:
    return forward(model, shard) + 0.01 * sum(each.norm() for each in model.parameters())


def _early_penalty(model: nn.Module, shard: Any) -> Any:
    penalty = sum(each.norm() for each in model.parameters())
    return forward(model, shard) + 0.01 * penalty


def _of_a_block(model: nn.Module, shard: Any) -> Any:
    return forward(model, shard) + sum(each.norm() for each in model.get_submodule("layers.0").parameters())


FUNCTIONS = (_penalty, _early_penalty, _of_a_block)


def told(action: Callable[[], Any]) -> str:
    """What a script is told that does this."""
    try:
        action()
    except (UsageError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def uses(pipe: Pipe, case: Case, ports: dict[str, int]) -> dict[str, str]:
    """What scripts are told that use parameters in a step, and between steps."""
    found = {}
    # An idle rank does not run forward, so it would wait for ranks that have ended theirs.
    for function in FUNCTIONS if pipe.world % 2 == 0 else ():
        Worlds.enter(ports[function.__name__])
        run = Run(settings(case.but(steps=3, batch=24)), None)
        model = run.prepare(model=make("all"), optimizer=lambda p: torch.optim.AdamW(p, 0.01), data=Data())
        steps = iter(run.batches())
        run.step(next(steps), forward)
        batch = next(steps)
        found[function.__name__] = told(lambda: run.step(batch, function))  # noqa: B023
        run._finished = True
    Worlds.enter(ports["between"])
    run = Run(settings(case.but(steps=3, batch=24)), None)
    model = run.prepare(model=make("all"), optimizer=lambda p: torch.optim.AdamW(p, 0.01), data=Data())
    steps = iter(run.batches())
    run.step(next(steps), forward)
    found["between"] = told(lambda: [each.norm() for each in model.parameters()])
    found["changed"] = told(lambda: [each.data.clamp_(0) for each in model.parameters()])
    found["head"] = told(lambda: model.get_submodule("head").weight.norm())  # type: ignore[operator]
    found["buffers"] = told(lambda: [each + 1 for each in model.buffers()])
    optimizer = run._prepared().update.state.optimizer
    found["optimizer"] = told(optimizer.state_dict)
    found["pieces"] = told(lambda: [each.norm() for group in optimizer.param_groups for each in group["params"]])
    found["count"] = str(sum(each.numel() for each in model.parameters()))
    run.step(next(steps), forward)
    run.evaluate(Data(), forward)
    run.finish()
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_script_is_told(mode: str) -> None:
    world, case = MODES[mode]
    worlds = Worlds([*(each.__name__ for each in FUNCTIONS), "between"])
    ranks: list[dict[str, str]] = together(uses, world, case, worlds.ports)
    idle = mode == "tensor, an idle rank"
    for function in () if idle else FUNCTIONS:
        answers = [rank[function.__name__] for rank in ranks]
        assert any(each.startswith("UsageError: norm of layers.") for each in answers), (function, answers)
        assert all("norm of layers." in each or "it has hung up" in each for each in answers), (function, answers)
    for rank in ranks:
        for name in ("between", "changed", "pieces"):
            assert rank[name].startswith("UsageError"), (name, rank[name])
        assert "run.save" in rank["optimizer"]
        assert rank["count"] == str(sum(each.numel() for each in make("all").parameters()))
    assert (ranks[0]["head"] == "nothing") == (mode == "pipeline")  # all stages have it
    assert (ranks[0]["buffers"] == "nothing") == (mode != "pipeline")
    if idle:
        assert "this rank is idle" in ranks[2]["between"]
        assert "this rank is idle" in ranks[2]["buffers"]


def sequence(pipe: Pipe, reads: bool) -> str:
    """A penalty on what each rank uses for a part of the sequence, or only a look at it."""
    case = Case(tensor=2, steps=2)
    run = Run(settings(case), None)
    run.prepare(model=Transformer(SEQUENCE_PLAN), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Text())

    def penalised(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
        loss = text_forward(model, words)
        with torch.set_grad_enabled(not reads):
            penalty: torch.Tensor = model.get_submodule("norm").weight.norm()  # type: ignore[operator]
        return loss + penalty

    return told(lambda: [run.step(batch, penalised) for batch in run.batches()])


def test_what_counts_once_for_each_rank_is_refused_where_it_would() -> None:
    for answer in together(sequence, 2, False):
        assert answer.startswith("UsageError: norm of norm.weight: model.tp_plan: each rank uses it for a part")
    assert together(sequence, 2, True) == ["nothing"] * 2
