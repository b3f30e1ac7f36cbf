"""A table of decisions: given this view, expect that status and those effects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import (
    DeletePod,
    Effect,
    PatchBudget,
    RecordEvent,
)
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import View


@dataclass(frozen=True)
class Case:
    """`status`: dotted paths into the new status. `effects`: all but events."""

    name: str
    view: View
    status: dict[str, Any] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()


def conditions(status: TrainingJobStatus) -> dict[str, str]:
    return {c.type: f"{c.status} {c.reason}" for c in status.conditions}


def look(status: TrainingJobStatus, path: str) -> Any:
    value: Any = conditions(status) if path.startswith("conditions.") else status
    for step in path.removeprefix("conditions.").split("."):
        value = value.get(step) if isinstance(value, dict) else getattr(value, step)
    return value


def check(case: Case) -> None:
    found = plan(case.view)
    assert {path: look(found.status, path) for path in case.status} == case.status
    assert tuple(e for e in found.effects if not isinstance(e, RecordEvent | PatchBudget)) == case.effects


def gone(name: str, uid: str, reason: str) -> DeletePod:
    return DeletePod(name, uid, reason)


def with_secret(view: View) -> View:
    return replace(view, files=frozenset({"lm-worker-11111111"}))
