"""Do all ranks come to the same blocks in the same order? What they gather would otherwise be mixed up, or waited for.

Each rank tells the others where it is. Who does as in the micro-batch before goes on meanwhile, and looks at the answer
when it comes to the next place: so an agreement that is expected costs no waiting. Whoever does something else sends
nothing until it knows that all do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from drivetrain.comm.roll import Roll, roll_of
from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError

END_OF_FORWARD: Final = -1
END_OF_BACKWARD: Final = -2


class SameOrder:
    """Of one model's blocks, by their numbers."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names` of the blocks, for people."""
        self._names = names
        self._plan: list[int] = []
        """Where the micro-batch before was, one after the other."""
        self._visited: list[int] = []
        self._as_planned = True
        self._roll: Roll | None = None
        self._transport: Transport | None = None
        self._unheard = 0
        """How often this rank has said where it is, and not looked where others are."""

    def begin(self, transport: Transport) -> None:
        """A step begins, on all ranks. In a new membership newcomers know of no order, and what is called ahead must be
        the same everywhere. Raises `Interrupted`."""
        if self._roll is None or transport is not self._transport:
            self._plan, self._visited, self._unheard = [], [], 0
            self._roll, self._transport = roll_of(transport), transport

    def begin_microbatch(self) -> None:
        """What was done last is what will be done now, probably."""
        self._plan, self._visited = self._visited or self._plan, []
        self._as_planned = True

    def abandon(self) -> None:
        """The step was interrupted."""
        self._visited, self._as_planned = [], True
        if self._roll is not None:
            self._roll.hang_up()  # what was said and not heard must not be taken for what comes next
        self._unheard, self._roll = 0, None

    def visit(self, block: int) -> int | None:
        """This rank comes to a block, or to one of the ends; returns the block that comes next, if that is known.

        Raises `UsageError` on all ranks if some are elsewhere, or `Interrupted`.
        """
        self.settle()
        place = len(self._visited)
        self._visited.append(block)
        assert self._roll is not None
        self._roll.say((place, block))
        self._unheard += 1
        self._as_planned = self._as_planned and self._plan[place : place + 1] == [block]
        if not self._as_planned:
            self.settle()
            return None
        return next((each for each in self._plan[place + 1 :] if each >= 0), None)

    def is_next(self, block: int) -> bool:
        """Whether this is where the micro-batch before went from here."""
        place = len(self._visited)
        return next((each for each in self._plan[place:] if each >= 0), None) == block

    def settle(self) -> None:
        """Wait until all have told where they are. Raises as `visit` does."""
        while self._unheard and self._roll is not None:
            self._unheard -= 1
            places = self._roll.answers()
            other = next((rank for rank, each in enumerate(places) if each != places[0]), None)
            if other is not None:
                raise UsageError(
                    f"forward: rank 0 is at {self._name(*places[0])} while rank "
                    f"{other} is at {self._name(*places[other])}; with training.parallel.zero 3 the "
                    "blocks that run, forward and backward, must not depend on the samples or on the rank"
                )

    def _name(self, place: int, block: int) -> str:
        if block == END_OF_FORWARD:
            return f"the end of forward, after {place} blocks"
        if block == END_OF_BACKWARD:
            return f"the end of backward, after {place - 1} blocks"
        return f"{self._names[block]} as block number {place + 1}"
