"""Training scripts as people write them: each must come to what plain torch comes to with the whole batch at once.

A script is a model, what it does before and after a step, and how its optimizer is made. Plain torch runs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.data.order import samples_of_step
from drivetrain.run import Run
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, Numbers, settings

STEPS = 12
BATCH = 25
CASE = Case(steps=STEPS, batch=BATCH)

Make = Callable[[Any], torch.optim.Optimizer]
Around = Callable[[Any, torch.optim.Optimizer, int], None]


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)


def adam(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 3e-3, eps=1e-4)


def fused(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 3e-3, eps=1e-4, fused=True)


def nothing(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Before or after a step."""


class Base(nn.Module):
    """12 numbers to 5 classes by way of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.middle = nn.Linear(16, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))
        return out


@dataclass(frozen=True)
class Script:
    """One."""

    model: Callable[[], nn.Module] = Base
    optimizer: Make = sgd
    before: Around = nothing
    after: Around = nothing
    penalty: Callable[[Any], torch.Tensor] | None = None
    case: Case = field(default_factory=lambda: CASE)
    prepare: Callable[[Any], None] = lambda model: None
    same_for_all: bool = True
    """The model's buffers are what plain torch has; else only its parameters are."""


# --- odd parameters ---------------------------------------------------------------------------------------------------


class Scalars(Base):
    """Parameters without dimensions, with one element, and a bare one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.zeros(1))
        self.table = nn.ParameterDict({"a": nn.Parameter(torch.ones(16)), "b": nn.Parameter(torch.zeros(1, 16))})
        self.more = nn.ParameterList([nn.Parameter(torch.ones(5)) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) * self.table["a"] + self.table["b"]
        out: torch.Tensor = self.last(hidden) * self.scale + self.shift
        scaled: torch.Tensor = out * self.more[0] * self.more[1]
        return scaled


class Transposed(Base):
    """Dense, but not in the usual order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first.weight = nn.Parameter(self.first.weight.detach().t().contiguous().t())
        self.middle.weight = nn.Parameter(self.middle.weight.detach().t().contiguous().t())


class Gaps(Base):
    """A parameter with gaps in memory, and one that is a part of a larger tensor."""

    def __init__(self) -> None:
        super().__init__()
        room = torch.zeros(16, 32)
        room[:, ::2] = self.middle.weight.detach()
        self.middle.weight = nn.Parameter(room[:, ::2])
        self.last.bias = nn.Parameter(torch.zeros(9)[2:7])


class Images(nn.Module):
    """Convolutions, as images in the last dimension's order."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, (3, 2))
        self.last = nn.Linear(4 * 1 * 3, 5)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.view(-1, 1, 3, 4).to(memory_format=torch.channels_last)
        hidden = torch.tanh(self.two(torch.tanh(self.one(image))))
        out: torch.Tensor = self.last(hidden.flatten(1))
        return out


class Tied(Base):
    """Two layers with one weight, and a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(16, 16)
        self.again.weight = self.middle.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.again(torch.tanh(self.middle(torch.tanh(self.first(x))))))
        out: torch.Tensor = self.last(hidden + F.linear(hidden, self.middle.weight))
        return out


class Normed(Base):
    """torch's parametrizations."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.middle)
        nn.utils.parametrizations.orthogonal(self.first)


class Gru(nn.Module):
    """A recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 8, 2, batch_first=True)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.rnn(x.view(-1, 3, 4))[0][:, -1])
        return out


class Unused(Base):
    """A layer that is never used, and one that is in some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        if self.gate:
            hidden = torch.tanh(self.middle(hidden))
        out: torch.Tensor = self.last(hidden)
        return out

    gate = True


def gated(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.gate = step % 3 != 1


# --- buffers ----------------------------------------------------------------------------------------------------------


class Constant(Base):
    """Large, small, expanded, not persistent, of whole numbers and of truth values: none of them changes."""

    mask: torch.Tensor
    large: torch.Tensor
    hidden: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(16).expand(300, 16))
        self.register_buffer("large", torch.linspace(0, 1, 40_000))
        self.register_buffer("hidden", torch.ones(16) * 0.5, persistent=False)
        self.register_buffer("numbers", torch.arange(7))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("nothing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) * self.mask[0] + self.hidden * self.large[17]
        out: torch.Tensor = self.last(hidden)
        return out


class Counting(Base):
    """Changes in forward by what does not depend on the samples: in place, by another tensor, by .data, expanded."""

    calls: torch.Tensor
    hidden: torch.Tensor
    whole: torch.Tensor
    spread: torch.Tensor
    queue: torch.Tensor
    assigned: torch.Tensor
    late: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.register_buffer("whole", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("spread", torch.zeros(1).expand(6))
        self.register_buffer("queue", torch.zeros(30_000))
        self.register_buffer("late", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                self.calls += 1
                self.assigned = self.assigned + 0.5
                self.hidden.data += 1
                self.whole.add_(2)
                dense = self.spread[:1]
                dense += 1
                at = int(self.calls)
                self.queue.data[at * 10 : at * 10 + 10] = at
                if at > 4:
                    self.late = torch.full((4,), float(at))
        scale = 1 + 0.01 * self.calls + 0.01 * self.hidden[0] + 0.01 * self.spread[3]
        out: torch.Tensor = self.last(torch.tanh(self.first(x)) * scale)
        return out


# --- phases and changes -----------------------------------------------------------------------------------------------


def freeze(model: Any) -> None:
    """All but the last layer."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("last"))


def thaw(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One layer after the other."""
    if step in (4, 8):
        for parameter in getattr(model, {4: "middle", 8: "first"}[step]).parameters():
            parameter.requires_grad_(True)


def to_and_fro(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A layer is frozen every other step, like in adversarial training."""
    for parameter in model.first.parameters():
        parameter.requires_grad_(step % 2 == 0)


def head_only(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.last.parameters(), 0.05, momentum=0.9)


def add_group(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 5:
        optimizer.add_param_group({"params": list(model.first.parameters()), "lr": 0.01})


def clamp(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.2, 0.2)


def clamp_data(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    for parameter in model.parameters():
        parameter.data.clamp_(-0.2, 0.2)


def decay_by_hand(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.99


def start_anew(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    if step == 6:
        nn.init.ones_(model.last.bias)
        optimizer.state.clear()


def rates_by_hand(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        group["momentum"] = 0.9 if step < 6 else 0.8


def groups(model: Any) -> torch.optim.Optimizer:
    weights = [each for each in model.parameters() if each.dim() > 1]
    biases = [each for each in model.parameters() if each.dim() <= 1]
    given: list[dict[str, Any]] = [{"params": biases, "weight_decay": 0.0, "lr": 1e-3}, {"params": weights}]
    return torch.optim.AdamW(given, 3e-3, eps=1e-4, weight_decay=0.1)


def averaged(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """The script keeps a moving average in the model itself."""
    with torch.no_grad():
        model.average.lerp_(model.first.weight, 0.1)


class Averaging(Base):
    """Has a frozen parameter that the script changes."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Parameter(torch.zeros(16, 12), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x) + 0.1 * F.linear(x, self.average))
        out: torch.Tensor = self.last(hidden)
        return out


def modes(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.train(step % 2 == 0)


class Switching(Base):
    """Computes otherwise in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        out: torch.Tensor = self.last(hidden if self.training else hidden * 0.5)
        return out


class Lora(nn.Module):
    """A frozen layer in half precision, and a small trained one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(12, 16).bfloat16().requires_grad_(False)
        self.down = nn.Linear(12, 2, bias=False)
        self.up = nn.Linear(2, 16, bias=False)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.base(x.bfloat16()).float() + self.up(self.down(x))
        out: torch.Tensor = self.last(torch.tanh(hidden))
        return out


def l2(model: Any) -> torch.Tensor:
    return 0.01 * torch.stack([each.square().sum() for each in model.parameters()]).sum()


def l1_of_one(model: Any) -> torch.Tensor:
    penalty: torch.Tensor = 0.01 * model.first.weight.abs().sum()
    return penalty


class Double(Base):
    """In float64."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double())


def hooked(model: Any) -> None:
    """The script's own hooks on gradients and parameters."""
    model.first.weight.register_hook(lambda gradient: gradient * 0.5)
    model.middle.register_full_backward_hook(lambda module, given, taken: (given[0] * 1.5,))


class Complex(Base):
    """Works with complex numbers inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.fft.rfft(torch.tanh(self.first(x)))
        out: torch.Tensor = self.last(torch.fft.irfft(hidden * 0.5, 16))
        return out


def nadam(model: Any) -> torch.optim.Optimizer:
    return torch.optim.NAdam(model.parameters(), 3e-3, eps=1e-4)


def rprop(model: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(model.parameters(), 3e-3, eps=1e-4, centered=True, momentum=0.5)


def amsgrad(model: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 3e-3, eps=1e-4, amsgrad=True, foreach=False)


def adagrad(model: Any) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(model.parameters(), 1e-2, eps=1e-4)


def maximizing(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.01, maximize=True, nesterov=True, momentum=0.5)


SCRIPTS: dict[str, Script] = {
    "plain": Script(),
    "scalars, dicts and lists of parameters": Script(Scalars, adam),
    "transposed parameters": Script(Transposed, adam),
    "transposed parameters, fused": Script(Transposed, fused),
    "parameters with gaps": Script(Gaps, adam),
    "channels_last": Script(Images, adam),
    "channels_last, fused": Script(Images, fused),
    "channels_last, fused, micro-batches, small buckets": Script(
        Images, fused, case=CASE.but(microbatches=3, bucket_bytes=64)
    ),
    "channels_last, deterministic": Script(Images, fused, case=CASE.but(deterministic=True)),
    "channels_last, clipping": Script(Images, sgd, case=CASE.but(clip=0.2)),
    "tied weights": Script(Tied),
    "parametrizations": Script(Normed, adam),
    "recurrent": Script(Gru, adam),
    "unused in some steps": Script(Unused, adam, before=gated),
    "constant buffers": Script(Constant),
    "buffers that change": Script(Counting),
    "buffers that change, deterministic": Script(Counting, case=CASE.but(deterministic=True, virtual_shards=4)),
    "frozen for good": Script(prepare=freeze),
    "thawed layer by layer": Script(prepare=freeze, before=thaw),
    "thawed layer by layer, Adam": Script(optimizer=adam, prepare=freeze, before=thaw),
    "thawed layer by layer, deterministic": Script(
        prepare=freeze, before=thaw, case=CASE.but(deterministic=True, clip=0.3)
    ),
    "frozen to and fro": Script(before=to_and_fro, optimizer=adam),
    "the optimizer has one layer": Script(optimizer=head_only),
    "the optimizer has one layer, clipping": Script(optimizer=head_only, case=CASE.but(clip=0.1)),
    "a group is added": Script(optimizer=head_only, before=add_group),
    "clamped after the step": Script(after=clamp),
    "clamped by .data": Script(after=clamp_data, optimizer=adam),
    "new .data after the step": Script(after=decay_by_hand),
    "started anew": Script(after=start_anew),
    "rates by hand": Script(before=rates_by_hand),
    "groups of parameters": Script(optimizer=groups),
    "an average in the model": Script(Averaging, after=averaged),
    "modes change": Script(Switching, before=modes),
    "LoRA on a frozen bf16 layer": Script(Lora, adam),
    "LoRA, clipping, micro-batches": Script(Lora, adam, case=CASE.but(clip=0.1, microbatches=2)),
    "a penalty on all parameters": Script(penalty=l2),
    "a penalty on one, deterministic": Script(penalty=l1_of_one, case=CASE.but(deterministic=True, virtual_shards=5)),
    "float64": Script(Double, adam),
    "the script's own hooks": Script(prepare=hooked),
    "complex numbers inside": Script(Complex),
    "NAdam": Script(optimizer=nadam),
    "RMSprop": Script(optimizer=rprop),
    "AMSGrad, one by one": Script(optimizer=amsgrad),
    "Adagrad": Script(optimizer=adagrad),
    "maximizing": Script(optimizer=maximizing),
}  # fmt: skip


def loss_of(script: Script, model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    return loss if script.penalty is None else loss + script.penalty(model)


def ours(pipe: Pipe, ports: dict[str, int]) -> dict[str, Any]:
    """All scripts, one after the other, as one of `pipe.world` ranks, each in a world of its own."""
    found: dict[str, Any] = {}
    for name, port in ports.items():
        Worlds.enter(port)
        found[name] = one(SCRIPTS[name])
    return found


def one(script: Script) -> dict[str, Any]:
    if script.case.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(5)
    run = Run(settings(script.case), None)
    model = script.model()
    script.prepare(model)
    made: list[torch.optim.Optimizer] = []

    def optimizer(_: Any) -> torch.optim.Optimizer:
        made.append(script.optimizer(model))
        return made[0]

    run.prepare(model=model, optimizer=optimizer, data=Numbers())
    losses = []
    for batch in run.batches():
        script.before(model, made[0], batch.step)
        losses.append(run.step(batch, lambda model, shard: loss_of(script, model, shard[0], shard[1])).loss)
        script.after(model, made[0], batch.step)
    sha = run.state_sha256()
    run.finish()
    run._world.close()
    torch.use_deterministic_algorithms(False)
    return {"losses": losses, "sha": sha, "state": tensors(model)}


def plain(script: Script) -> dict[str, Any]:
    """The same in plain torch."""
    torch.manual_seed(5)
    model = script.model()
    script.prepare(model)
    optimizer = script.optimizer(model)
    data, losses = Numbers(), []
    for step in range(STEPS):
        script.before(model, optimizer, step)
        picked = samples_of_step(step, BATCH, len(data), script.case.seed)
        model.zero_grad()
        loss = loss_of(script, model, data.x[picked], data.y[picked])
        loss.backward()
        if script.case.clip is not None:
            updated = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(updated, script.case.clip)
        optimizer.step()
        script.after(model, optimizer, step)
        losses.append(float(loss.detach()))
    return {"losses": losses, "state": tensors(model)}


def tensors(model: Any) -> dict[str, torch.Tensor]:
    """All parameters and buffers, also those that are not persistent."""
    return {name: each.detach().clone() for name, each in [*model.named_parameters(), *model.named_buffers()]}


GROUPS = [list(SCRIPTS)[at::5] for at in range(5)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_scripts_come_to_what_plain_torch_comes_to(group: int, world: int) -> None:
    names = GROUPS[group]
    worlds = Worlds(names)
    by_rank = together(ours, world, worlds.ports)
    for name in names:
        expected = plain(SCRIPTS[name])
        assert len({found[name]["sha"] for found in by_rank}) == 1, name
        for found in by_rank:
            assert found[name]["losses"] == pytest.approx(expected["losses"], rel=2e-5), name
            for key, value in expected["state"].items():
                torch.testing.assert_close(found[name]["state"][key], value, rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")
                assert found[name]["state"][key].stride() == value.stride(), f"{name}: {key}"
