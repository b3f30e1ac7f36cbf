"""PURE: what one policy answers.

A policy is `(view, status) -> Decision`: `view` is what was seen, `status` what the policies before it have decided. It
answers one question, changes what follows from the answer, and says when time alone would change its mind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import Effect
from drivetrain_operator.plan.view import View


@dataclass(frozen=True, slots=True)
class Decision:
    """One policy's answer. Default: nothing more."""

    status: TrainingJobStatus
    effects: tuple[Effect, ...] = ()
    after: float | None = None
    """Seconds until the answer may change by time alone."""
    final: bool = False
    """The question is settled for this pass: policies that come after do not ask theirs (except the closing ones)."""


Policy = Callable[[View, TrainingJobStatus], Decision]


def soonest(*delays: float | None) -> float | None:
    """The first of several due times; None if nothing is due."""
    known = [d for d in delays if d is not None]
    return min(known) if known else None
