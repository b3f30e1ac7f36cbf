"""What a run needs to know of the processes around it, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from drivetrain.comm.transport import Transport
from drivetrain.errors import Deviation, Interrupted
from drivetrain.position import StepResult
from drivetrain.world.heal import Doing, Healed
from drivetrain_api.messages import EpochId, Progress


@dataclass(frozen=True, slots=True)
class Entry:
    """On which terms this process enters a membership epoch."""

    new: bool = False
    """It brings no state that counts, whatever it holds."""
    may_start: bool = True
    """If nobody brings state, training begins (or resumes from a file)."""


Synchronise = Callable[[Transport | None, Doing, Entry], Healed]
"""Brings all members of a new group to the same state; given by the run, called by the world. Raises `Interrupted`,
`OutOfStep` or `StateMismatch`."""


class World(Protocol):
    """The group of processes that train together."""

    @property
    def transport(self) -> Transport | None:
        """The current group; None when this process trains alone."""

    @property
    def epoch(self) -> EpochId:
        """The current membership epoch."""

    @property
    def rank(self) -> int:
        """Rank in the current group."""

    @property
    def size(self) -> int:
        """Size of the current group."""

    def process(self, rank: int) -> str:
        """Id of the process that has this rank in the current group; empty where nobody counts them."""

    @property
    def unplaced(self) -> str | None:
        """Why rank and size have no meaning here and now; None if they have."""

    @property
    def change_pending(self) -> bool:
        """A join or leave waits for a step boundary: tell the others with the next step."""

    @property
    def is_spare(self) -> bool:
        """Started as a spare, and no member yet."""

    def ensure(self, doing: Doing) -> Healed | None:
        """Return at once while the membership stands (None); otherwise join the next one and synchronise.

        Waits as long as the job needs to have enough members. Never raises `Interrupted`.
        """

    def interrupted(self, error: Interrupted) -> None:
        """The current operation failed: this group is done for."""

    def failed(self, error: BaseException) -> None:
        """An attempt failed here, and the others cannot be told in this group: it is done for, like after a fault. In a
        world that never changes, raises `error`."""

    def deviated(self, error: Deviation) -> NoReturn:
        """The members' scripts have come apart: this ends the job."""

    def boundary(self) -> None:
        """A step with a pending change was committed: leave this group at the next `ensure`."""

    def at(self, operation: str, step: int, line: str) -> None:
        """The script is now at this operation (`script`: between two), about this step, called at this line.

        Called at each entry and exit: costs a microsecond, and is told if it stays so.
        """

    def committed(self, result: StepResult, step: int) -> None:
        """A step was committed here; `step` is its number."""

    def progress(self, progress: Progress, *, due: bool) -> None:
        """Tell the outside how far the job is (members agree that this step is visible): at once where it is due, else
        if nothing newer comes."""

    def counters(self, counters: dict[str, float]) -> None:
        """Tell the outside the runtime's counts."""

    def linger(self, serve: Callable[[], object]) -> None:
        """Keep this finished process and its state until all are done; `serve` synchronises with a new group."""

    def close(self) -> None:
        """Give up the current group: the process ends."""
