"""A rank holds other bits than its peers: who gives it theirs, and who is told?

Asked at the beginning of a step, when all sums have come (alike.py) and nothing is computed yet. State travels as it
does to newcomers (world/heal.py), in the same membership: no process starts, no step is made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

from drivetrain import say
from drivetrain.alike import BUFFER, NOTHING, Difference, Sums, compared, differing, judge
from drivetrain.comm.transport import Transport
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.state import TrainingState
from drivetrain.world.heal import give, take
from drivetrain_api.messages import MAX_CORRUPTIONS, Corruption

_MODEL: Final = ["model"]
_OWN: Final = 2
"""So often a buffer is found to differ that is a script's."""
MAX_NAME: Final = 253


class Healing:
    """Of one process."""

    def __init__(self, strategy: Strategy, training: TrainingState, every: int) -> None:
        """`every`: so many steps a comparison; 0: none."""
        self._strategy = strategy
        self._state = training
        # Of what only this rank has there is no peer's. ZeRO's first stages leave parameters and buffers with all.
        job = strategy.training
        alike = job.zero < 3 and job.tensor == 1 and job.pipeline is None
        self._every = every if alike else 0
        self._sums: Sums | None = None
        self.process: Callable[[int], str] = lambda rank: ""
        """Id of the process that has this rank."""
        self.aside: Callable[[], AbstractContextManager[None]] = nullcontext
        """While state is replaced here: nobody shall take it for the script's doing."""
        self.on_difference: Callable[[], None] = lambda: None
        """Called on all ranks when all have the same again."""
        self.found: deque[Corruption] = deque(maxlen=MAX_CORRUPTIONS)
        """What to tell: the last ones of this run."""
        self.healed = 0
        """How often this rank has taken a peer's state."""

    def told(self, position: Position) -> bytes:
        """What this rank tells the others at the beginning of a step."""
        self._sums, step = None, position.step
        if not self._every or not step or step % self._every:
            return NOTHING
        strategy = self._strategy
        state = compared(strategy.model, strategy.optimizer, whole=strategy.sharded is None)
        try:
            self._sums = Sums.of((name, each) for name, each in state if position.apart.get(name, 0) < _OWN)
        except (RuntimeError, TypeError, AttributeError) as error:  # a kind of tensor that has no bytes
            self._every = 0
            say.note(f"ranks are not compared: {error}", level="warning")
            return NOTHING
        return self._sums.told()

    @property
    def due(self) -> bool:
        """This step is compared."""
        return self._sums is not None

    def settle(self, transport: Transport, position: Position, told: Sequence[bytes]) -> None:
        """What the ranks told, by rank: afterwards all hold the same. All ranks call this. Raises `Interrupted`."""
        difference, sums = judge(told), self._sums
        if difference is None or sums is None:
            return
        table = [row.tolist() for row in transport.all_gather(torch.tensor(sums.values, dtype=torch.int64))]
        right = table[difference.right]
        names = {name for rank in difference.wrong for name in differing(sums.names, right, table[rank])}
        buffers = all(each.startswith(BUFFER) for each in names)
        if buffers and self._are_own(transport, difference, position, names):
            position.apart |= dict.fromkeys(names, _OWN)
            if transport.rank == difference.right:
                told_ = ", ".join(sorted(names))
                say.note(f"ranks differ in {told_}: a script's, and not compared any more", level="warning")
            return
        self._heal(transport, difference, position)
        if buffers:
            position.apart |= dict.fromkeys(names, 1)
        self._note(difference, position.step, table, transport)
        self.on_difference()

    def _are_own(self, transport: Transport, difference: Difference, position: Position, names: set[str]) -> bool:
        """Whether buffers, in which ranks differ, are so by the script's will: it wrote them on some ranks only. Asked
        of all, who may have come at different times."""
        own = not difference.known or any(position.apart.get(name, 0) for name in names)
        return any(bool(each) for each in transport.all_gather(torch.tensor([int(own)])))

    def _heal(self, transport: Transport, difference: Difference, position: Position) -> None:
        names = self._state.kept if self._strategy.sharded is None else _MODEL
        if transport.rank == difference.right:
            pieces = {key: part for name in names for key, part in self._state.collect_whole(name).items()}
            give(transport, position, pieces, list(difference.wrong))
        elif transport.rank in difference.wrong:
            with self.aside():
                take(transport, position, self._state, difference.right, None, load=self._state.load_whole)
            self.healed += 1

    def _note(self, difference: Difference, step: int, table: Sequence[Sequence[int]], transport: Transport) -> None:
        assert self._sums is not None
        for rank in difference.wrong if difference.known else range(transport.world):
            other = rank if difference.known else difference.wrong[0]
            names = differing(self._sums.names, table[difference.right], table[other])
            corruption = Corruption(
                step=step,
                rank=rank,
                process=self.process(rank),
                peer=difference.right,
                ranks=transport.world,
                known=difference.known,
                what=names[0][:MAX_NAME] if names else "",
                tensors=len(names),
                only_buffers=all(each.startswith(BUFFER) for each in names),
            )
            self.found.append(corruption)
            if transport.rank == difference.right:
                say.note(told(corruption), level="warning")


def told(found: Corruption) -> str:
    """For people."""
    more = f" and {found.tensors - 1} others" if found.tensors > 1 else ""
    where = f"before step {found.step}, in {found.what}{more}"
    if found.known:
        return f"rank {found.rank} held other bits than its peers {where}; it has taken the state of rank {found.peer}"
    return (
        f"rank {found.rank} and its peers held different bits {where}, and nothing says which are right; "
        f"all have the state of rank {found.peer} now"
    )
