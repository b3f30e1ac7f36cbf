"""How is a base copied? Some of it beside each step, before its update changes anything, so that no step waits for it.

All ranks of a membership begin a base at the same step, each with its share of the parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from drivetrain import wire
from drivetrain.errors import UsageError
from drivetrain.optim.several import Several, kind_of
from drivetrain.parallel.coupled import refuse_unless_elementwise
from drivetrain.parallel.partition import is_like
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import small
from drivetrain.snapshot.base import Bases
from drivetrain.snapshot.beside import Beside
from drivetrain.snapshot.copying import Copying
from drivetrain.snapshot.keys import Seat
from drivetrain.snapshot.names import BaseName
from drivetrain.snapshot.parts import Range, held_by, shared_out
from drivetrain.snapshot.tensors import dtype_name, flat_bytes
from drivetrain.snapshot.units import Unit, Values
from drivetrain.state import TrainingState
from drivetrain.update import parameters_of

UNIT_ELEMENTS: Final = 1 << 16
STEP_BYTES: Final = 512 << 10
"""Of a base, that are copied beside a step at least. More where it would not be whole half-way to the next one."""
STEP_SHARE: Final = 0.005
"""Of a step's time that copying may take, where that is more."""


OptimizerState = Mapping[Any, Any]
"""By tensor, what it keeps of that, by name."""


@dataclass(slots=True)
class _Share:
    """What is left of this rank's."""

    name: BaseName
    seat: Seat
    ranges: list[Range]
    """All that it has."""
    tensors: list[int]
    """Ids of what model and optimizer had when `ranges` was made."""
    units: Iterator[tuple[int, int, int]]
    """Which of the ranges, and from where to where."""
    sizes: dict[str, int]
    spread: bool
    aside: bool
    """It may be copied by another thread: on a device that would get in the way of graphs that are captured."""
    pace: int
    """Bytes beside each step."""
    left: int = 0
    """Of these, in this step."""
    until: float = 0.0
    """When copying has taken its share of this step's time."""
    done: bool = False
    """All units are handed over."""


class Capture:
    """Of the bases of one process."""

    def __init__(
        self,
        bases: Bases,
        strategy: Strategy,
        state: TrainingState,
        position: Position,
        beside: Beside,
        copying: Copying,
        every: int,
    ) -> None:
        """`every`: steps between two bases."""
        self._bases = bases
        self._strategy = strategy
        self._state = state
        self._position = position
        self._beside = beside
        self._copying = copying
        self._every = every
        self._share: _Share | None = None
        self._elementwise: bool | None = None
        self._entered: float | None = None
        self._closing = False
        """The trainer waits."""
        self.hurries = False
        """The end may come at any moment: what the first base of a membership still lacks is copied at once, because
        without it nothing can be gone back to. Set from another thread."""
        self._handed_over: Seat | None = None
        """Where this rank's share of a base was, the newest that it was done with."""

    def give_up(self) -> None:
        """The membership has changed, or what was copied so far may be wrong: what was begun will not be whole."""
        self._share = None

    def begin(self, seat: Seat, *, spread: bool) -> None:
        """A base begins with this step. `spread`: it need not be copied at once."""
        step = self._position.step
        told = b""
        sizes: dict[str, int] = {}
        if seat.speaks:
            every = small.Pieces().changed(self._beside.after(every=True))
            buffers, model = self._state.beside_parameters(), self._described()
            told = wire.dump({"pieces": every, "buffers": buffers, "optimizer": self._optimizer_name, "model": model})
            sizes = {name: torch.Size(shape).numel() for name, (shape, _) in model.items()}
        name = BaseName(seat.run, step, seat.epoch)
        if self._share is not None:  # storage is so slow that the one before is not handed over yet
            self._bases.skip(name, seat)
            return
        self._bases.begin(name, seat, told)
        share = shared_out(held_by(self._strategy, seat.rank, seat.world))
        size = sum((each.last - each.first) * each.held.tensor.element_size() * self._copies(each) for each in share)
        pace = max(STEP_BYTES, 2 * size // self._every)
        units = (
            (number, first, min(first + UNIT_ELEMENTS, each.last))
            for number, each in enumerate(share)
            for first in (range(each.first, each.last, UNIT_ELEMENTS) or (each.first,))  # also of one without elements
        )
        spread = spread and self._is_elementwise()
        aside = all(each.held.tensor.device.type == "cpu" for each in share)
        self._share = _Share(name, seat, share, self._tensors(), units, sizes, spread, aside, pace)

    def go_on(self) -> None:
        """A step begins. What may not be spread is copied at once, what may not be copied aside bit by bit."""
        share, began = self._share, time.perf_counter()
        lasted = began - self._entered if self._entered is not None else 0.0
        self._entered = began
        if share is None:
            return
        share.left, share.until = share.pace, began + STEP_SHARE * lasted
        whole = not share.spread or (self.hurries and share.seat != self._handed_over)
        if (whole or not share.aside) and self._check(share):
            self._closing = False
            enough = (lambda: False) if whole else partial(self._is_enough, share)
            self._copy(share, self._strategy.optimizer.state, enough)
            self._finish(share)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Nothing of the state changes meanwhile: some of what is left is copied by another thread."""
        share = self._share
        if share is None or not share.aside or share.left <= 0 or not self._check(share):
            yield
            return
        self._closing = False
        state = self._strategy.optimizer.state  # the script's forward function sees another, where that is shared out
        self._copying.begin(lambda: self._copy(share, state, partial(self._is_enough, share)))
        try:
            yield
        finally:
            self._closing = True
            self._copying.wait()
            self._finish(share)

    def _is_enough(self, share: _Share) -> bool:
        """What the pace asks for is copied in any case, else the base might never be whole."""
        over = share.left <= 0 and (self._closing or time.perf_counter() >= share.until)
        return over or not self._bases.room(STEP_BYTES)

    def _check(self, share: _Share) -> bool:
        """Whether it goes on; else it is given up."""
        if self._is_current(share):
            return True
        self.give_up()
        return False

    def _copy(self, share: _Share, state: OptimizerState, enough: Callable[[], bool]) -> None:
        """Unit by unit, as they are now. Whatever the script may use of them meanwhile, this is the runtime."""
        for number, first, last in share.units:
            with torch._C.DisableTorchFunctionSubclass():
                unit = unit_of(state, Range(share.ranges[number].held, first, last), self._position.step)
            self._bases.add(unit)
            share.left -= unit.bytes
            if enough():
                return
        share.done = True

    def _finish(self, share: _Share) -> None:
        if share.done and share is self._share:
            self._share, self._handed_over = None, share.seat
            self._bases.finish(share.sizes, self._position.step)

    def _is_current(self, share: _Share) -> bool:
        """Whether what this rank has is the same. Where the state was put together since (a file was written), or a
        layer was replaced, there are other tensors of it, and the ones that were here are old and have no state."""
        tensors = self._tensors()
        if share.tensors != tensors:
            now = shared_out(held_by(self._strategy, share.seat.rank, share.seat.world))
            if [each.key for each in now] != [each.key for each in share.ranges]:
                return False  # it is whole, or cut otherwise: a membership has ended
            share.ranges, share.tensors = now, tensors
        return True

    def _tensors(self) -> list[int]:
        return list(map(id, [*self._strategy.model.parameters(), *parameters_of(self._strategy.optimizer)]))

    def _copies(self, range_: Range) -> int:
        """Of a parameter: itself, and what the optimizer has of each element."""
        state = self._strategy.optimizer.state.get(range_.held.tensor, {}) if range_.held.place >= 0 else {}
        return 1 + sum(1 for name, value in state.items() if is_like(name, value, range_.held.tensor))

    @property
    def _optimizer_name(self) -> str:
        return kind_of(self._strategy.optimizer)

    def _described(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each parameter, whole."""
        sharded = self._strategy.sharded
        whole = sharded is None or sharded.mesh is None
        return {
            name: (tuple(each.shape if whole else sharded.where(name).shape), dtype_name(each.dtype))  # type: ignore[union-attr]
            for name, each in self._strategy.model.named_parameters()
        }

    def _is_elementwise(self) -> bool:
        """Whether the replay of a part is right while others are not there yet, and nothing changes beside a step."""
        if isinstance(self._strategy.optimizer, Several):
            return False  # phases of a step look ahead (lookahead.py)
        if self._elementwise is None:
            try:
                refuse_unless_elementwise(self._strategy.optimizer, "snapshots")
                self._elementwise = True
            except UsageError:
                self._elementwise = False
        return self._elementwise


def unit_of(states: OptimizerState, range_: Range, step: int) -> Unit:
    """A copy of these elements and of what the optimizer has of them, as they are before this step."""
    held, inside = range_.held, slice(range_.first, range_.last)
    values = _values(held.flat(held.tensor.detach())[inside])
    state: dict[str, Values] = {}
    rest: dict[str, Any] = {}
    names = states.get(held.tensor, {}) if held.place >= 0 else {}
    for name, value in names.items():
        if is_like(name, value, held.tensor):
            state[name] = _values(held.flat(value)[inside])
        else:
            rest[name] = value
    return Unit(range_.key, step, values, state, wire.dump(rest), tuple(names))


def _values(tensor: torch.Tensor) -> Values:
    """A copy."""
    found = flat_bytes(tensor)
    shares = tensor.device.type == "cpu" and found.ctypes.data == tensor.data_ptr()
    return Values(found.copy() if shares else found, dtype_name(tensor.dtype))
