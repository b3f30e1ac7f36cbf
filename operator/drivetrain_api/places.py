"""Where ranks are, and whether they move: parts of the messages, told by ranks and summed up by the coordinator."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from drivetrain_api.bounds import MAX_MEMBERS, MAX_TAIL, Count, Number, ProcessId, Seconds, Sentence, Small, Word
from drivetrain_api.logline import escaped

Short = Annotated[str, AfterValidator(lambda text: text[-200:])]
"""Cut, not refused: the end of a line's name is what tells it from others."""


STOCK: Final = "stock"
"""`Place.operation` of a process that runs a script which says nothing of its steps, and starts it anew in each
membership (ADR 0045)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Call(_Part):
    """A collective operation, or a message between two ranks, as one rank has noted it."""

    operation: Word
    """Such as all-reduce."""
    number: Count
    """Within its group and membership: with the same number all ranks of the group mean the same one. Messages between
    two ranks are numbered by each for itself."""
    group: Word = ""
    """world, tensor, pipeline, data, script; `world` is all ranks."""
    peer: Number = -1
    """Rank within the group; -1: all."""
    bytes: Count = 0
    """0: not known."""
    dtype: Word = ""
    step: Number = -1
    state: Word = ""
    """started, waiting, done, failed or abandoned."""
    seconds: Seconds = 0.0
    """Since it began, when this was sent."""

    def __str__(self) -> str:
        of = f" of the {self.group} group" if self.group not in ("", "world") else ""
        if self.peer < 0:
            return f"{self.operation} #{self.number}{of}"
        whom = f"stage {self.peer}" if self.group == "pipeline" else f"rank {self.peer}{of}"
        return f"{self.operation} #{self.number} {'from' if self.operation == 'receive' else 'to'} {whom}"


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
    call: Call | None = None
    """The collective that it waits for, else its last one, once it has stayed for a moment; `seconds` is not told. None
    from images that note none."""


MAX_CALLS: Final = 16
MAX_LOOKS: Final = 3
"""Ranks of one job that launchers look at, at the same time."""


def _shown(text: str) -> str:
    return "\n".join(escaped(line) for line in text[-MAX_TAIL:].splitlines())[-MAX_TAIL:]


Stack = Annotated[str, AfterValidator(_shown)]
"""Nothing but lines of text that does nothing to a terminal; the end of it, if it is long."""


class Seen(_Part):
    """A rank that others wait for, as its launcher saw it when it was asked."""

    number: Count
    """`Place.number` of then: it has not moved since while it has that."""
    at: Short = ""
    """The script's innermost line, of a rank that could not tell it itself."""
    stack: Stack = ""
    """Where its threads were, that of the script last; or why that cannot be told."""
    calls: list[Call] = Field(fail_fast=True, default_factory=list, max_length=MAX_CALLS)
    """Its last collectives, oldest first; none from images that note none."""


class Look(_Part):
    """What is known of a rank that holds the others up."""

    rank: Small
    process: ProcessId
    where: Short = ""
    """The line of its script."""
    stack: Stack = ""
    calls: list[Call] = Field(fail_fast=True, default_factory=list, max_length=MAX_CALLS)


class Standstill(_Part):
    """A membership that trains, and in which nothing has moved for longer than usual."""

    message: Sentence
    """Who waits for whom, in one sentence. The same words for as long as only time passes, but for a few milestones."""
    seconds: Seconds
    """Since the last sign that all members moved."""
    late: list[Small] = Field(fail_fast=True, default_factory=list, max_length=MAX_MEMBERS)
    """Ranks for which the others wait; none if all wait for one another."""
    looks: list[Look] = Field(fail_fast=True, default_factory=list, max_length=MAX_LOOKS)
    """Of some that hold the others up; none from older coordinators, and while launchers have not answered."""
