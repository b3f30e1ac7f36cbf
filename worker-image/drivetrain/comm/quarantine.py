"""Where tensors of abandoned operations stay until nothing can write into them any more.

A peer that was frozen in the middle of an all-reduce and wakes up later completes the operation: its bytes land in our
tensor, whatever that memory is used for by then (measured: 67–100 % of a reused tensor overwritten). So an abandoned
operation keeps its tensors here until its future is done. gloo completes that future only after the operation's own
buffers are unregistered, which happens when its peers are dead or have sent everything.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Held:
    """One abandoned operation: what it may still write to, and what tells when it is over."""

    done: threading.Event
    tensors: tuple[torch.Tensor, ...]
    keep_alive: tuple[object, ...]


class Quarantine:
    """All abandoned operations of this process."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def hold(self, done: threading.Event, tensors: Sequence[torch.Tensor], *keep_alive: object) -> None:
        """Keep `tensors` (and the objects that the operation needs) until `done` is set."""
        self._held.append(Held(done, tuple(tensors), keep_alive))

    def sweep(self) -> int:
        """Let go of everything whose operation is over; return how many are left."""
        self._held = [held for held in self._held if not held.done.is_set()]
        return len(self._held)
