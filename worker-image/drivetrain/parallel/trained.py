"""Which parameters does a step train? Those that the optimizer updates and that require a gradient: looked at in every
step, because a script may unfreeze a layer or add a group of parameters. What is trained is exchanged, and nothing else
is trained.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import nn

from drivetrain.errors import UsageError


class Trained:
    """Those of one model and its optimizer. A part of the training state: newcomers, and a run that is resumed, train
    what the members do."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._names: dict[nn.Parameter, str] = {}
        self._groups: list[list[str]] = []
        self._signature: tuple[list[bool], list[int]] = ([], [])
        self.parameters: list[nn.Parameter] = []
        """In the order of the model."""
        self.others: list[nn.Parameter] = []
        """The model's parameters that get gradients for nothing."""
        self.digest = 0
        """32 bits that tell this set from others: all members must have the same."""
        self.look()
        self._began = self._description()

    def change(self) -> str | None:
        """What has changed since the last look, for people; None if nothing has."""
        signature = self._sign()
        if signature == self._signature:
            return None
        (flags, sizes), (flags_before, sizes_before) = signature, self._signature
        for name, now, before in zip(self._names.values(), flags, flags_before, strict=True):
            if now != before:
                return f"{name} requires {'a' if now else 'no'} gradient now"
        return f"the optimizer has groups of {sizes} parameters now, not {sizes_before}"

    def _sign(self) -> tuple[list[bool], list[int]]:
        flags = [each.requires_grad for each in self._names]
        return flags, [len(group["params"]) for group in self._optimizer.param_groups]

    def look(self) -> None:
        """Train what is to be trained now. Raises `UsageError` if that is nothing, or not of the model."""
        self._names = {each: name for name, each in self._model.named_parameters()}
        self._signature = self._sign()
        updated = [each for group in self._optimizer.param_groups for each in group["params"]]
        for each in updated:
            if each.requires_grad and each not in self._names:
                raise UsageError(
                    f"prepare(optimizer=...): it updates a tensor of shape {tuple(each.shape)} that is no parameter of "
                    "the model, so other ranks would not know it; make it a parameter of the model"
                )
        wanted = set(updated)
        groups = self._optimizer.param_groups
        self._groups = [[self._names[each] for each in group["params"] if each in self._names] for group in groups]
        requiring = [each for each in self._names if each.requires_grad]
        self.parameters = [each for each in requiring if each in wanted]
        self.others = [each for each in requiring if each not in wanted]
        if not self.parameters:
            raise UsageError("prepare(model=..., optimizer=...): no parameter that it updates requires a gradient")
        described = ((self._names[each], tuple(each.shape), str(each.dtype)) for each in self.parameters)
        self.digest = zlib.crc32(repr(list(described)).encode())

    # --- as a part of the state ---------------------------------------------------------------------------------------

    def _description(self) -> dict[str, Any]:
        requiring = sorted(name for each, name in self._names.items() if each.requires_grad)
        return {"requires_grad": requiring, "groups": [list(names) for names in self._groups]}

    def state_dict(self) -> dict[str, Any]:
        """What is trained, by name, and what was when the script began."""
        return {"began": self._began, "now": self._description()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Train what a peer does. A file's word counts only for a script that begins with the same parameters: one that
        freezes others now means it."""
        if state["began"] != self._began:
            return
        by_name = {name: each for each, name in self._names.items()}
        requiring = set(state["now"]["requires_grad"])
        for name, each in by_name.items():
            each.requires_grad_(name in requiring)
        for names in state["now"]["groups"][len(self._groups) :]:
            self._optimizer.add_param_group({"params": [by_name[name] for name in names]})
        # The next step finds the change.
