"""PURE: how are conditions written? metav1's way: a transition time that moves only when the status does."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from drivetrain_api.status import Condition, ConditionType, TrainingJobStatus
from drivetrain_operator.plan.view import View

MESSAGE_LIMIT: Final = 2000
_ORDER: Final = {type_.value: position for position, type_ in enumerate(ConditionType)}


def stamp(now: datetime) -> datetime:
    """Whole seconds, as metav1.Time keeps them: else a status read back would differ from the one written."""
    return now.replace(microsecond=0)


def clip(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """The end of a long text goes; its beginning says what it is about."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def with_condition(
    view: View, status: TrainingJobStatus, type_: ConditionType, holds: bool | None, reason: str, message: str = ""
) -> TrainingJobStatus:
    """`status` with this condition; None is Unknown. Unchanged if it says the same already."""
    word = "Unknown" if holds is None else "True" if holds else "False"
    old = status.condition(type_)
    same = old is not None and old.status == word
    new = Condition(
        type=type_.value,
        status=word,
        observed_generation=view.job.generation,
        last_transition_time=old.last_transition_time if old is not None and same else stamp(view.now),
        reason=reason[:64],
        message=clip(message),
    )
    if new == old:
        return status
    others = [c for c in status.conditions if c.type != type_.value]
    return status.model_copy(
        update={"conditions": sorted([*others, new], key=lambda c: (_ORDER.get(c.type, len(_ORDER)), c.type))}
    )


def ended(
    view: View, status: TrainingJobStatus, type_: ConditionType, reason: str, message: str = ""
) -> TrainingJobStatus:
    """The job is over: `type_` is COMPLETE or FAILED."""
    found = with_condition(view, status, type_, True, reason, message)
    return found.model_copy(update={"completion_time": stamp(view.now)})
