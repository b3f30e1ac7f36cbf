"""Which parameters does a step train? Those that the optimizer updates and that require a gradient: looked at in every
step, because a script may unfreeze a layer, replace one, or give the optimizer others. What is trained is exchanged,
and nothing else is trained.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any, NamedTuple

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.state import as_bytes

_values = methodcaller("values")
_requires_grad = attrgetter("requires_grad")


class _Signature(NamedTuple):
    """What a look depends on. Ids stay true, because whoever looks keeps what they are of."""

    model: list[int]
    """Ids of parameters and modules, module by module."""
    flags: list[bool]
    """Whether each parameter requires a gradient."""
    groups: list[list[int]]
    """Ids of the optimizer's."""


class Trained:
    """Those of one model and its optimizer. A part of the training state: newcomers, and a run that is resumed, train
    what the members do."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._tables: list[dict[str, Any]] = []
        """Of all modules: their parameters and the modules in them, by name."""
        self._names: dict[nn.Parameter, str] = {}
        self._signature = _Signature([], [], [])
        self.stand_ins: Mapping[int, int] = {}
        """By id of what the runtime has put into the optimizer's groups: the id of the parameter that it is of."""
        self.names: dict[int, str] = {}
        """Of all the model's parameters, by id."""
        self.every: list[nn.Parameter] = []
        """All the model's."""
        self.parameters: list[nn.Parameter] = []
        """That are trained, in the order of the model."""
        self.others: list[nn.Parameter] = []
        """The model's parameters that get gradients for nothing."""
        self.digest = 0
        """32 bits that tell this set, and the values of what came to it later, from others: all members must have the
        same."""
        self._known = set(model.parameters())
        """Whose values are the same on all members."""
        self._values = 0
        """Tells the values that later ones came with from others."""
        self.look()
        self._began = self._description()

    # --- what has changed since the last look -------------------------------------------------------------------------

    def change(self) -> str | None:
        """What has changed since the last look, for people; None if nothing has."""
        signature, before = self._sign(), self._signature
        if signature == before:
            return None
        if signature.model != before.model:
            names, known = {id(each): name for name, each in self._model.named_parameters()}, self.names
            if names != known:
                name = next(name for key, name in (names | known).items() if names.get(key) != known.get(key))
                return f"{name} of the model is another parameter than before"
            self._watch()  # modules came or went that have none
            signature = self._sign()
            self._signature = before = before._replace(model=signature.model)
            if signature == before:
                return None
        for name, now, then in zip(self._names.values(), signature.flags, before.flags, strict=True):
            if now != then:
                return f"{name} requires {'a' if now else 'no'} gradient now"
        sizes, sizes_before = ([len(group) for group in each] for each in (signature.groups, before.groups))
        if sizes != sizes_before:
            return f"the optimizer has groups of {sizes} parameters now, not {sizes_before}"
        return "the optimizer has other parameters in its groups than before"

    def _watch(self) -> None:
        modules = self._model.modules()
        self._tables = [table for module in modules for table in (module._parameters, module._modules)]

    def _sign(self) -> _Signature:
        # In each step, for thousands of tensors: so no loops of Python's.
        inside = list(map(id, chain.from_iterable(map(_values, self._tables))))
        stand_ins, groups = self.stand_ins, self._optimizer.param_groups
        if stand_ins:
            ids = [[stand_ins.get(id(each), id(each)) for each in group["params"]] for group in groups]
        else:
            ids = [list(map(id, group["params"])) for group in groups]
        return _Signature(inside, list(map(_requires_grad, self.every)), ids)

    def look(self) -> None:
        """Train what is to be trained now. Raises `UsageError` if that is nothing, or not of the model."""
        names = {each: name for name, each in self._model.named_parameters()}
        updated = [each for group in self._optimizer.param_groups for each in group["params"]]
        for each in updated:
            if each.requires_grad and each not in names:
                raise UsageError(
                    f"prepare(optimizer=...): it updates a tensor of shape {tuple(each.shape)} that is no parameter of "
                    "the model, so other ranks would not know it; make it a parameter of the model"
                )
        wanted = set(updated)
        requiring = [each for each in names if each.requires_grad]
        parameters = [each for each in requiring if each in wanted]
        if not parameters:
            raise UsageError("prepare(model=..., optimizer=...): no parameter that it updates requires a gradient")
        self._refuse_left_behind(wanted)
        for each in names:
            if each not in self._known:
                self._values = _with_values_of(each, self._values)
        self._known = set(names)
        self._names, self.every = names, list(names)
        self._watch()
        self.names = {id(each): name for each, name in names.items()}
        self.parameters, self.others = parameters, [each for each in requiring if each not in wanted]
        described = [(names[each], tuple(each.shape), str(each.dtype)) for each in parameters]
        self.digest = zlib.crc32(repr((described, self._groups(), self._values)).encode())
        self._signature = self._sign()

    def _refuse_left_behind(self, wanted: set[Any]) -> None:
        """State of what the optimizer does not have any more can neither travel nor be saved."""
        for each, state in self._optimizer.state.items():
            if isinstance(each, torch.Tensor) and each not in wanted and state and id(each) not in self.stand_ins:
                name = self.names.get(id(each), f"a tensor of shape {tuple(each.shape)}")
                raise UsageError(
                    f"the optimizer has state of {name}, which none of its groups has any more; take that away, too: "
                    "optimizer.state.pop(parameter, None)"
                )

    # --- gradients ----------------------------------------------------------------------------------------------------

    def forget_others(self) -> None:
        """Gradients of what is not trained are this rank's own: nobody may take them for those of the whole batch."""
        for each in self.others:
            each.grad = None

    # --- as a part of the state ---------------------------------------------------------------------------------------

    def _groups(self) -> list[list[str]]:
        """Names of what the optimizer has now."""
        names = {id(each): name for name, each in self._model.named_parameters()}
        return [self._named(group["params"], names) for group in self._optimizer.param_groups]

    def _named(self, parameters: Sequence[torch.Tensor], names: Mapping[int, str]) -> list[str]:
        found = (names.get(self.stand_ins.get(id(each), id(each))) for each in parameters)
        return [name for name in found if name is not None]

    def _description(self) -> dict[str, Any]:
        requiring = sorted(name for name, each in self._model.named_parameters() if each.requires_grad)
        return {"requires_grad": requiring, "groups": self._groups()}

    def state_dict(self) -> dict[str, Any]:
        """What is trained, by name, and what was when the script began."""
        return {"began": self._began, "now": self._description(), "values": self._values_now()}

    def _values_now(self) -> int:
        """As the next look will have it."""
        values = self._values
        for each in self._model.parameters():
            if each not in self._known:
                values = _with_values_of(each, values)
        return values

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Train what a peer does. A file's word counts only for a script that begins with the same parameters: one that
        freezes others now means it."""
        if state["began"] != self._began:
            return
        by_name = dict(self._model.named_parameters())
        names = {id(each): name for name, each in by_name.items()}
        requiring = set(state["now"]["requires_grad"])
        for name, each in by_name.items():
            each.requires_grad_(name in requiring)
        groups, given = self._optimizer.param_groups, state["now"]["groups"]
        del groups[len(given) :]
        for group, wanted in zip(groups, given, strict=False):  # some may be missing
            if self._named(group["params"], names) != wanted:
                group["params"] = [by_name[name] for name in wanted]
        for wanted in given[len(groups) :]:
            self._optimizer.add_param_group({"params": [by_name[name] for name in wanted]})
        self._known, self._values = set(by_name.values()), state.get("values", 0)
        # The next step finds the change.


def _with_values_of(parameter: torch.Tensor, before: int) -> int:
    return zlib.crc32(as_bytes(parameter).cpu().numpy().data, before)
