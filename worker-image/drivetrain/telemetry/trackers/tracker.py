"""What is a tracker of experiments to a run? Something that is asked what it has, and then given what is missing.

So nothing stands in it twice: a rank that takes over, a process that starts again, and a connection that was lost all
begin with the same question. Methods are called in a thread of the tracker's own, one at a time; they may take long,
and may raise anything: then `close` is called, and later `open` again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose steps are written."""

    uid: str
    """Of the job: the same in all its processes, so they write to one run."""
    name: str
    parameters: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    """`spec.training` and the number of ranks, as the run began."""

    @property
    def run(self) -> str:
        """A name that no other job has, for people."""
        return f"{self.name}-{self.uid[:8]}"


@dataclass(frozen=True, slots=True)
class Life:
    """What began when nobody had state (`Position.life`)."""

    token: str
    first: int
    """Steps that were done when it began: those after it may have been written in a life before."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step that all members hold."""

    step: int
    """How many steps are done with it, as the log counts them: the first is 1."""
    seconds: float
    """Since 1970, when it was known."""
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tracker has, and will keep."""

    last: int
    """The last step that is written; steps that were done before this life, if none is."""
    repeated: bool = False
    """There are steps of a life before that this one repeats, and they cannot be taken back: the first values stay."""


class Tracker(Protocol):
    """One of them."""

    @property
    def name(self) -> str:
        """As people know it."""

    def open(self, life: Life) -> Standing:
        """Go on with the job's run, or begin it."""

    def write(self, points: Sequence[Point]) -> None:
        """Write steps that come after those, in order. What it returns from is written."""

    def close(self, *, finished: bool) -> None:
        """Give up what is open. `finished`: training has come to its end, and all of it is written."""
