"""Where ranks are, and whether they move: parts of the messages, told by ranks and summed up by the coordinator."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from drivetrain_api.bounds import MAX_MEMBERS, Count, Number, Seconds, Sentence, Small

Short = Annotated[str, AfterValidator(lambda text: text[-200:])]
"""Cut, not refused: the end of a line's name is what tells it from others."""


STOCK: Final = "stock"
"""`Place.operation` of a process that runs a script which says nothing of its steps, and starts it anew in each
membership (ADR 0045)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Place(_Part):
    """Where a rank's script is. Durations, never times: the clocks of two machines are not compared."""

    operation: Short
    """batch, step, skip, reduce, evaluate, save or finish; script between them, empty if the runtime did not say;
    `STOCK` of a script that never will."""
    step: Number = -1
    """The step that it is about; -1 if unknown."""
    line: Short = ""
    """Such as `train.py:31`; empty if unknown."""
    number: Count = 0
    """Grows with every change of place: with the same number the rank has not moved since."""
    seconds: Seconds = 0.0
    """How long it has been there when this was sent."""


class Standstill(_Part):
    """A membership that trains, and in which nothing has moved for longer than usual."""

    message: Sentence
    """Who waits for whom, in one sentence. The same words for as long as only time passes, but for a few milestones."""
    seconds: Seconds
    """Since the last sign that all members moved."""
    late: list[Small] = Field(fail_fast=True, default_factory=list, max_length=MAX_MEMBERS)
    """Ranks for which the others wait; none if all wait for one another."""
