"""Training scripts as people write them: a model, what is done before and after a step, how the optimizer is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unit.runtime.odd_models import (
    Averaging,
    Base,
    BufferOfWeight,
    Calls,
    Coming,
    Complex,
    Constant,
    Counting,
    Double,
    Gaps,
    Growing,
    Gru,
    Images,
    Lora,
    Normed,
    Scalars,
    Switching,
    Tied,
    TiedByData,
    Transposed,
    Unused,
    Views,
)
from unit.runtime.training import Case

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


def gated(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.gate = step % 3 != 1


def grow(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A module that counts is added, another takes its place."""
    if step in (3, 8):
        model.added = nn.Sequential(Calls(), *(Calls() for _ in range(step == 8)))


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


def modes(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    model.train(step % 2 == 0)


def l2(model: Any) -> torch.Tensor:
    return 0.01 * torch.stack([each.square().sum() for each in model.parameters()]).sum()


def l1_of_one(model: Any) -> torch.Tensor:
    penalty: torch.Tensor = 0.01 * model.first.weight.abs().sum()
    return penalty


def hooked(model: Any) -> None:
    """The script's own hooks on gradients and parameters."""
    model.first.weight.register_hook(lambda gradient: gradient * 0.5)
    model.middle.register_full_backward_hook(lambda module, given, taken: (given[0] * 1.5,))


def keep_data(model: Any) -> None:
    """The script keeps the memory of the parameters."""
    model.__dict__["kept"] = [each.data for each in model.parameters()]


def decay_kept(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    for each in model.kept:
        each.mul_(0.98)


def keep_flat(model: Any) -> None:
    """Parameters are views of one vector, which the script keeps."""
    flat = torch.cat([each.detach().flatten() for each in model.parameters()])
    at = 0
    for each in model.parameters():
        each.data = flat[at : at + each.numel()].view(each.shape)
        at += each.numel()
    model.__dict__["kept"] = [flat]


def another_layer(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """The optimizer gets other parameters, as many as before; what it knows of the old ones is dropped."""
    if step in (4, 8):
        optimizer.state.clear()
        optimizer.param_groups[0]["params"] = list(getattr(model, {4: "middle", 8: "first"}[step]).parameters())


def new_head(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A module takes the place of another, initialised alike on all ranks."""
    if step == 4:
        for each in model.last.parameters():
            optimizer.state.pop(each, None)
        torch.manual_seed(7)
        model.last = nn.Linear(16, 5)
        optimizer.param_groups[0]["params"] = list(model.parameters())


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
    "tied by .data": Script(TiedByData),
    "a buffer in a weight's memory": Script(BufferOfWeight),
    "a list of .data is kept": Script(prepare=keep_data, after=decay_kept),
    "a flat vector is kept": Script(prepare=keep_flat, after=decay_kept),
    "another layer's turn": Script(optimizer=head_only, before=another_layer),
    "a new head": Script(before=new_head),
    "a new head, Adam, deterministic": Script(optimizer=adam, before=new_head, case=CASE.but(deterministic=True)),
    "a new head, clipping": Script(before=new_head, case=CASE.but(clip=0.1)),
    "unused in some steps": Script(Unused, adam, before=gated),
    "constant buffers": Script(Constant),
    "buffers that change": Script(Counting),
    "buffers that come and go": Script(Coming),
    "buffers that come and go, deterministic": Script(Coming, case=CASE.but(deterministic=True, virtual_shards=4)),
    "modules that are added": Script(Growing, before=grow),
    "modules that are added, deterministic": Script(Growing, before=grow, case=CASE.but(deterministic=True)),
    "buffers that are views": Script(Views),
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
