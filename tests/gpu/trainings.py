"""The trainings of the unit tests, on the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gpu.report import DEVICE
from unit.runtime import text, training
from unit.runtime.together import Pipe
from unit.runtime.training import Case, Net, Numbers, Outcome


class OnDevice(Numbers):
    """The same samples."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y, self.weight = self.x.to(DEVICE), self.y.to(DEVICE), self.weight.to(DEVICE)


class TextOnDevice(text.Text):
    """The same."""

    def __init__(self) -> None:
        super().__init__()
        self.words = self.words.to(DEVICE)


def ours(pipe: Pipe, case: Case, plan: dict[str, str] | None = None) -> tuple[Outcome, set[str]]:
    """Train as one of `pipe.world` ranks, a transformer if there is a `plan`; and on which devices its state was."""
    _exact()
    outcome = training.by_drivetrain(pipe, case) if plan is None else text.by_drivetrain(pipe, case, plan)
    return _on_processor(outcome), {each.device.type for each in outcome.after.values()}


def plain(pipe: Pipe, case: Case, plan: dict[str, str] | None = None) -> Outcome:
    """Train by torch alone, the whole batch in one process."""
    _exact()
    training.Numbers = OnDevice  # type: ignore[misc]
    text.Text = TextOnDevice  # type: ignore[misc]

    def made(kind: str) -> nn.Module:
        return Net(kind).to(DEVICE)

    make = text.make
    training.Net = made  # type: ignore[assignment,misc]
    text.make = lambda case, plan: make(case, plan).to(DEVICE)
    return _on_processor(training.by_torch(case) if plan is None else text.by_torch(case))


def _exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _on_processor(outcome: Outcome) -> Outcome:
    def moved(state: dict[str, Any]) -> dict[str, Any]:
        return {name: value.cpu() for name, value in state.items()}

    return replace(outcome, before=moved(outcome.before), after=moved(outcome.after))
