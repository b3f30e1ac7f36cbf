"""What would let ranks come to have other values, or train with other gradients, is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.errors import Deviation, UsageError
from drivetrain.identity import Identity, Kind, compare, told_arguments
from drivetrain.parallel.arguments import Arguments
from drivetrain.parallel.shared_memory import refuse_shared_memory
from drivetrain.parallel.trained import Trained
from drivetrain.run import Run
from drivetrain.state import Piece, TrainingState, flatten, unflatten
from drivetrain_api.runtime import RuntimePipeline
from unit.runtime.odd_models import Base, BufferOfWeight, TiedByData
from unit.runtime.odd_scripts import adam, keep_flat
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, Numbers, settings

CASE = Case(steps=4, batch=25)


def loss_of(model: nn.Module, shard: Any) -> torch.Tensor:
    return F.cross_entropy(model(shard[0]), shard[1])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


class Job:
    """One script on one rank, step by step."""

    def __init__(self, pipe: Pipe, make: Callable[[Any], torch.optim.Optimizer], case: Case = CASE) -> None:
        torch.manual_seed(5)
        self.rank = pipe.rank
        self.run = Run(settings(case), None)
        self.model = Base()
        self.made = make(self.model)
        self.run.prepare(model=self.model, optimizer=lambda _: self.made, data=Numbers())
        self._batches = self.run.batches()

    def step(self, forward: Callable[..., torch.Tensor] = loss_of) -> None:
        """The next one."""
        self.run.step(next(self._batches), forward)


def all_but_first(model: Base) -> torch.optim.Optimizer:
    return sgd([*model.middle.parameters(), *model.last.parameters()])


def a_second_optimizer(pipe: Pipe) -> None:
    job = Job(pipe, all_but_first)
    second = sgd(job.model.first.parameters())
    job.step()
    second.step()


def an_optimizer_in_backward(pipe: Pipe) -> None:
    job = Job(pipe, all_but_first)
    for each in job.model.first.parameters():
        own = sgd([each])
        each.register_post_accumulate_grad_hook(lambda _, own=own: own.step())
    job.step()


def the_update_once_more(pipe: Pipe) -> None:
    job = Job(pipe, adam)
    job.step()
    job.made.step()


def another_rate(pipe: Pipe) -> None:
    job = Job(pipe, adam)
    job.step()
    job.made.param_groups[0]["lr"] *= 1.0 if pipe.rank == 0 else 0.5
    job.step()


def other_betas(pipe: Pipe) -> None:
    job = Job(pipe, adam)
    if pipe.rank == 1:
        job.made.param_groups[0]["betas"] = (0.9, 0.99)
    job.step()
    job.made.param_groups[0]["betas"] = (0.9, 0.99 if pipe.rank == 1 else 0.999)
    job.step()


def one_more_argument(pipe: Pipe) -> None:
    job = Job(pipe, adam)
    job.step()
    if pipe.rank == 0:
        job.made.param_groups[0]["mine"] = 1
    job.step()


def a_new_head_by_chance(pipe: Pipe) -> None:
    job = Job(pipe, lambda model: torch.optim.SGD(model.parameters(), 0.1))
    job.step()
    torch.manual_seed(pipe.rank)
    job.model.last = nn.Linear(16, 5)
    job.made.param_groups[0]["params"] = list(job.model.parameters())
    job.step()


def state_left_behind(pipe: Pipe) -> None:
    job = Job(pipe, lambda model: sgd(model.last.parameters()))
    job.step()
    job.made.param_groups[0]["params"] = list(job.model.first.parameters())
    job.step()


def centering(model: Any, shard: Any) -> torch.Tensor:
    with torch.no_grad():
        model.first.weight.add_(shard[0].mean() * 0.01)
    return loss_of(model, shard)


def changed_in_forward(pipe: Pipe) -> None:
    Job(pipe, adam).step(centering)


def changed_on_one_rank(pipe: Pipe) -> None:
    Job(pipe, adam).step(centering if pipe.rank == 1 else loss_of)


def changed_and_caught(pipe: Pipe) -> None:
    job = Job(pipe, adam)
    with pytest.raises(UsageError):
        job.step(centering)
    job.step()  # what was changed is not put back


def changed_by_a_hook(pipe: Pipe) -> None:
    job = Job(pipe, all_but_first)

    def update(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        with torch.no_grad():
            parameter.sub_(parameter.grad, alpha=0.1)

    job.model.first.bias.register_post_accumulate_grad_hook(update)
    job.step()


REFUSED: dict[str, tuple[Callable[[Pipe], None], str]] = {
    "a second optimizer": (a_second_optimizer, "SGD.step: it would update first.weight with"),
    "an optimizer in backward": (an_optimizer_in_backward, "SGD.step: it would update first."),
    "the update once more": (the_update_once_more, "AdamW.step: run.step makes the update itself"),
    "another rate": (another_rate, "different hyper-parameters (lr)"),
    "other betas": (other_betas, "different hyper-parameters (betas)"),
    "one more argument": (one_more_argument, "different hyper-parameters (some have others)"),
    "a new head by chance": (a_new_head_by_chance, "new ones that were not initialised alike"),
    "state left behind": (state_left_behind, "the optimizer has state of last."),
    "changed in forward": (changed_in_forward, "first.weight, a parameter, was changed while forward"),
    "changed on one rank": (changed_on_one_rank, "first.weight, a parameter, was changed while forward"),
    "changed and caught": (changed_and_caught, "first.weight, a parameter, was changed while forward"),
    "changed by a hook": (changed_by_a_hook, "first.bias, a parameter, was changed while forward"),
}


def refusals(pipe: Pipe, ports: dict[str, int]) -> dict[str, str]:
    """What each script is told, each in a world of its own."""
    found = {}
    for name, port in ports.items():
        Worlds.enter(port)
        try:
            REFUSED[name][0](pipe)
        except (UsageError, Deviation) as error:
            found[name] = str(error)
        else:
            found[name] = "accepted"
    return found


def test_what_lets_ranks_differ_is_refused_by_name() -> None:
    worlds = Worlds(REFUSED)
    for told in together(refusals, 2, worlds.ports):
        for name, (_, expected) in REFUSED.items():
            assert expected in told[name], f"{name}: {told[name]}"


class Both(torch.optim.Optimizer):
    """Two of them, each for a part of the model."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        for part in parts:
            part.state = self.state
            part.param_groups = [group for group in self.param_groups if group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


def allowed(pipe: Pipe) -> list[str]:
    """What a script may do beside it."""
    job = Job(pipe, lambda model: Both(all_but_first(model), torch.optim.SGD(model.first.parameters(), 0.01)))
    table = nn.Parameter(torch.ones(3))
    of_its_own = sgd([table])
    before = {name: each.clone() for name, each in job.model.named_parameters()}
    for _ in range(2):
        of_its_own.zero_grad()
        table.square().sum().backward()
        of_its_own.step()
        job.step()
    return [name for name, each in job.model.named_parameters() if not torch.equal(each, before[name])]


def test_optimizers_of_the_scripts_own_tensors_and_one_that_calls_two_are_allowed() -> None:
    names = [name for name, _ in Base().named_parameters()]
    assert together(allowed, 2) == [names, names]


def others_gradients(pipe: Pipe) -> list[str]:
    job = Job(pipe, all_but_first)
    seen: list[str] = []
    job.run.on_update(lambda _: seen.extend(name for name, each in job.model.named_parameters() if each.grad is None))
    job.step()
    return seen


def test_what_is_not_trained_has_no_gradient_after_the_step() -> None:
    assert together(others_gradients, 2) == [["first.weight", "first.bias"]] * 2


# --- memory that tensors share ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [TiedByData, BufferOfWeight])
def test_taking_over_state_keeps_memory_that_is_shared(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    giver, taker = make(), make()
    kept = [each.data for each in taker.parameters()]
    states = []
    for model in (giver, taker):
        states.append(TrainingState())
        states[-1].register(Piece("model", model))
    skeleton, tensors = flatten(states[0].collect())
    states[1].load(unflatten(skeleton, [each.clone() for each in tensors]))
    for mine, theirs, memory in zip(taker.parameters(), giver.parameters(), kept, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() == memory.data_ptr()
    assert len({each.data_ptr() for each in taker.state_dict().values()}) < len(taker.state_dict())


def columns() -> nn.Module:
    """Two parameters that are columns of one matrix: side by side, with nothing in common."""
    model, whole = nn.Module(), torch.zeros(4, 6)
    model.left, model.right = nn.Parameter(whole[:, :3]), nn.Parameter(whole[:, 3:])
    return model


def overlapping() -> nn.Module:
    model, whole = nn.Module(), torch.zeros(10)
    model.one, model.inside, model.other = (nn.Parameter(whole[at]) for at in (slice(0, 8), slice(1, 2), slice(5, 10)))
    return model


def flat() -> nn.Module:
    model = Base()
    keep_flat(model)
    return model


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Base, None),
        (flat, None),
        (columns, None),
        (TiedByData, ("middle.weight", "again.weight")),
        (BufferOfWeight, ("middle.weight", "alias")),
        (overlapping, ("one", "inside")),
    ],
)
def test_shared_memory_is_found_by_name(make: Callable[[], nn.Module], names: tuple[str, str] | None) -> None:
    if names is None:
        refuse_shared_memory(make(), "training.parallel.zero")
        return
    with pytest.raises(UsageError, match=r"training\.parallel\.zero: .* lie in the same memory") as told:
        refuse_shared_memory(make(), "training.parallel.zero")
    assert all(name in str(told.value) for name in names)


CASES = {
    "training.parallel.zero": Case(zero=1),
    "training.parallel.tensor": Case(tensor=2),
    "training.parallel.pipeline": Case(pipeline=RuntimePipeline(stages=2), microbatches=4),
}


def shared_where_parts_are(_: Pipe) -> dict[str, str]:
    found = {}
    for field, case in CASES.items():
        layers = [nn.Linear(12, 12) for _ in range(4)]
        layers[2].weight.data = layers[1].weight.data
        model = nn.Module()
        model.layers = nn.ModuleList(layers)
        model.__dict__["tp_plan"] = {"layers.0": "colwise_gather"}
        try:
            Run(settings(case), None).prepare(model=model, optimizer=sgd, data=Numbers())
        except UsageError as error:
            found[field] = str(error)
    return found


def test_shared_memory_is_refused_where_ranks_have_parts() -> None:
    (found,) = together(shared_where_parts_are, 1)
    assert found.keys() == CASES.keys()
    for field, told in found.items():
        assert told.startswith(field)
        assert "layers.1.weight" in told
        assert "layers.2.weight" in told


# --- what is trained, and with which arguments ------------------------------------------------------------------------


def test_a_newcomer_trains_what_members_do_after_the_optimizer_got_other_parameters() -> None:
    """Also where that was since the last step."""
    member, newcomer = Base(), Base()
    theirs, ours = (torch.optim.SGD(each.last.parameters(), 0.1) for each in (member, newcomer))
    giving, taking = Trained(member, theirs), Trained(newcomer, ours)
    theirs.param_groups[0]["params"] = list(member.middle.parameters())
    theirs.add_param_group({"params": list(member.first.parameters())})
    member.last = nn.Linear(16, 5)
    given = giving.state_dict()
    giving.look()
    taking.load_state_dict(given)
    assert taking.change() is not None
    taking.look()
    assert taking.digest == giving.digest
    assert [len(group["params"]) for group in ours.param_groups] == [2, 2]
    assert giving.state_dict() == given == taking.state_dict()


def test_a_change_that_was_refused_is_refused_again() -> None:
    model = Base()
    optimizer = sgd(model.last.parameters())
    trained = Trained(model, optimizer)
    model.last = nn.Linear(16, 5)
    for _ in range(2):
        assert trained.change() == "last.weight of the model is another parameter than before"
        with pytest.raises(UsageError, match="no parameter of the model"):
            trained.look()


def test_modules_without_parameters_may_come_and_go() -> None:
    model = Base()
    trained = Trained(model, sgd(model.parameters()))
    model.drop = nn.Dropout()
    assert trained.change() is None
    model.drop = nn.Linear(3, 3)
    assert trained.change() == "drop.weight of the model is another parameter than before"
    trained.look()
    assert trained.change() is None
    del model.drop
    assert trained.change() == "drop.weight of the model is another parameter than before"


def test_equal_hyper_parameters_are_equal_whatever_type_they_are_of() -> None:
    found = []
    for rate, betas in ((1, [0.5, 0.9]), (1.0, (0.5, 0.9)), (torch.tensor(1.0), (0.5, torch.tensor(0.9).double()))):
        optimizer = torch.optim.AdamW(Base().parameters(), 0.1)
        arguments = Arguments(optimizer)
        arguments.digests()
        optimizer.param_groups[0] |= {"lr": rate, "betas": betas}
        found.append(dict(arguments.digests()))
    assert found[0] == found[1]
    assert found[0]["lr"] == found[1]["lr"] != 0


def test_many_hyper_parameters_are_compared_too() -> None:
    names = [f"a{number:02}" for number in range(30)]
    mine = dict.fromkeys(names, 1)
    messages = [
        Identity(Kind.STEP, arguments=told_arguments(each)).packed() for each in (mine, mine | {"a29": 2, "a03": 4})
    ]
    with pytest.raises(Deviation, match=r"hyper-parameters \(a03, .*a29\)"):
        compare(messages, names)
