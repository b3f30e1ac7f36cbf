"""When may a rank make an update of which the others make the rest? When all of them can.

A part of the state that has the update is of another step than one that has not, and neither can go where the other is.
So each rank says when it has all that its update needs, and makes it when it has heard that of all: whoever then dies,
the rest can follow. A rank that was interrupted before it heard keeps the update until the next membership tells what
has become of it (world/heal.py): it is made where somebody has made it, and else given up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivetrain import faults
from drivetrain.comm.transport import Transport
from drivetrain.position import StepResult
from drivetrain_api.messages import EpochId

Update = Callable[[], StepResult]


@dataclass(frozen=True, slots=True)
class Readied:
    """An update that this rank could make."""

    number: int
    """Of the step."""
    epoch: EpochId
    """The membership in which it came about."""
    update: Update
    commit: Callable[[int, Update, EpochId], object]
    give_up: Callable[[], None]
    """Nobody has made it: it is to be tried again."""

    def make(self) -> None:
        """The others have."""
        self.commit(self.number, self.update, self.epoch)


def heard_of_all(transport: Transport, step: int) -> None:
    """This rank has all that its update needs; return when all have. Raises `Interrupted`: others may know it."""
    faults.point("readied", step)
    transport.barrier()
    faults.point("heard", step)
