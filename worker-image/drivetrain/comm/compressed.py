"""How do gradients become (nearly) their sum over all ranks with fewer bytes, while backward still runs?

As in reducer.py, but the flat vector is cut into chunks of one size, whatever parameters lie in them, and a method of
`drivetrain.compress` adds up each. Collectives touch only what a method has written down for them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from drivetrain import faults
from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.transport import InFlight, Transport
from drivetrain.compress.auto import Auto
from drivetrain.compress.method import Chunk, Method, Rounds
from drivetrain.parallel.exchange import DuringBackward
from drivetrain.parallel.layout import Layout, Slot
from drivetrain.state import Stateful


@dataclass(slots=True)
class _Part:
    chunk: Chunk
    slots: list[Slot]
    missing: int = 0


class CompressedReducer(DuringBackward):
    """Sums the gradients of one model over the ranks of a transport, chunk by chunk, during backward."""

    def __init__(self, layout: Layout, chunk_bytes: int, method: Method, warmup_steps: int) -> None:
        super().__init__(layout)
        self._layout = layout
        self._method = method
        self._warm_up = method.warm_up
        self._warmup_steps = warmup_steps
        self._current = method
        """Which of the two makes this step."""
        self._vector = torch.zeros(layout.gradients, dtype=layout.dtype, device=layout.device)
        self._views = [slot.shaped(self._vector[slot.start : slot.stop]) for slot in layout.slots]
        self._parts = self._cut(max(1, chunk_bytes // layout.dtype.itemsize) if method.by_chunks else layout.gradients)
        self._parts_of: dict[int, list[_Part]] = {slot.index: [] for slot in layout.slots}
        for part in self._parts:
            for slot in part.slots:
                self._parts_of[slot.index].append(part)
        self._transport: Transport | None = None
        self._launched = 0
        self._running: deque[tuple[Rounds, InFlight]] = deque()
        self._step = -1
        self._chosen_for: Transport | None = None
        self.arrivals = Arrivals(layout, lambda slot: self._views[slot.index], self._complete)

    def _cut(self, limit: int) -> list[_Part]:
        parts = []
        for start in range(0, self._layout.gradients, max(1, limit)):
            stop = min(start + limit, self._layout.gradients)
            slots = [slot for slot in self._layout.slots if slot.start < stop and start < slot.stop]
            parts.append(_Part(Chunk(start, stop, self._vector[start:stop]), slots))
        return parts

    def begin(self, transport: Transport | None, step: int) -> None:
        """Start a step. None: one rank only, gradients stay where autograd puts them."""
        self._transport = transport if transport is not None and transport.world > 1 else None
        self.arrivals.begin(self._transport.interrupt if self._transport is not None else None)
        self._step = step
        if isinstance(self._method, Auto) and self._transport is not self._chosen_for:
            self._method.forget()
        self._current = self._warm_up if step < self._warmup_steps else self._method
        for carried in self._method.carried:
            carried.begin(transport.world if transport is not None else 1)
        self._launched = 0
        self._running.clear()
        for part in self._parts:
            part.missing = len(part.slots)

    def _complete(self, slot: Slot) -> None:
        assert self._transport is not None
        for part in self._parts_of[slot.index]:
            part.missing -= 1
        while self._launched < len(self._parts) and self._parts[self._launched].missing <= 0:
            self._launch(self._transport)

    def _launch(self, transport: Transport) -> None:
        self.arrivals.move()
        rounds = self._current.rounds(transport, self._parts[self._launched].chunk)
        self._running.append((rounds, next(rounds)))
        self._launched += 1
        faults.point("bucket", self._step)

    def finish_with(self, tail: torch.Tensor) -> torch.Tensor:
        """Send what is left, wait for everything, and point `.grad` at the sums (None where no rank had one)."""
        transport = self._transport
        if transport is None:
            self._finish_alone()
            return tail
        for slot in self._layout.slots:
            if not self.arrivals.has(slot):
                self._views[slot.index].zero_()
        while self._launched < len(self._parts):
            self._launch(transport)
        total = tail.clone()
        pending = transport.all_reduce(total)
        faults.point("gathering", self._step)
        # Round after round, the chunks in their order: the same on every rank.
        while self._running:
            rounds, awaited = self._running.popleft()
            awaited.wait()
            following = next(rounds, None)
            if following is not None:
                self._running.append((rounds, following))
        pending.wait()
        if isinstance(self._method, Auto) and transport is not self._chosen_for:
            self._method.choose(transport, self._vector)
            self._chosen_for = transport
        faults.point("reduced", self._step)
        self.arrivals.rest()
        for slot, used in zip(self._layout.slots, self._layout.read_used(total), strict=True):
            slot.parameter.grad = self._views[slot.index] if used else None
        return total

    @property
    def vectors(self) -> list[torch.Tensor] | None:
        return [self._vector]

    def _finish_alone(self) -> None:
        for slot, view in zip(self._layout.slots, self._views, strict=True):
            if slot.parameter.grad is None:
                view.zero_()
            else:
                slot.parameter.grad = view.copy_(slot.parameter.grad)
        self._current.alone(Chunk(0, self._layout.gradients, self._vector))

    def committed(self, *, skipped: bool) -> None:
        """What the step left out is carried on."""
        if not skipped:
            self._current.commit()

    def abandon(self) -> None:
        """The epoch ended in the middle of a step."""
        self.arrivals.end()
        self._running.clear()
        self._transport = None

    @property
    def chosen(self) -> tuple[str, str] | None:
        return (self._method.chosen, self._method.reason) if isinstance(self._method, Auto) else None

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def states(self) -> dict[str, Stateful]:
        return {"compression": self}

    def hand_over(self, transport: Transport) -> None:
        """What ranks carry becomes common property."""
        for carried in self._method.carried:
            carried.hand_over(transport)

    def state_dict(self) -> dict[str, Any]:
        """What all members have alike: what was handed over, and what the method shares."""
        return {"carried": [each.whole for each in self._method.carried], "shared": list(self._method.shared)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a peer's."""
        for carried, whole in zip(self._method.carried, state["carried"], strict=True):
            carried.take_over(whole)
        for tensor, given in zip(self._method.shared, state["shared"], strict=True):
            tensor.copy_(given)
