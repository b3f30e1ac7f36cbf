"""Ranks as threads of one process, whose transport only pairs what they call, and notes what does not belong together.

What a real group would do with two collectives that differ (abort, or add up what is not alike) is a finding here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from drivetrain.comm.wait import Interrupt

_LIMIT_SECONDS = 20.0


class Hung(AssertionError):
    """A rank waits for what does not come."""


class Group:
    """What `world` ranks call, one collective after the other."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.mispaired: list[str] = []
        self._changed = threading.Condition()
        self._calls: list[dict[int, tuple[str, Any]]] = []

    def call(self, rank: int, number: int, what: str, value: Any) -> None:
        """Rank `rank` makes its collective `number`."""
        with self._changed:
            while len(self._calls) <= number:
                self._calls.append({})
            calls = self._calls[number]
            if any(kind != what for kind, _ in calls.values()):
                self.mispaired.append(f"{what} of rank {rank} with {sorted(kind for kind, _ in calls.values())}")
            calls[rank] = (what, value)
            if len(calls) == self.world:
                self._changed.notify_all()

    def result(self, rank: int, number: int) -> list[Any]:
        """What all ranks brought, by rank."""
        with self._changed:
            calls = self._calls[number]
            if not self._changed.wait_for(lambda: len(calls) == self.world, _LIMIT_SECONDS):
                raise Hung(f"rank {rank} waits for the others in {calls[rank][0]}")
            return [value for _, (_, value) in sorted(calls.items())]


class Pending:
    """One collective of one rank."""

    def __init__(self, transport: SimulatedTransport, what: str, value: Any, done: Callable[[list[Any]], None]) -> None:
        self._transport, self._done = transport, done
        self._number = transport.next
        transport.next += 1
        transport.group.call(transport.rank, self._number, what, value)

    def wait(self) -> None:
        self._done(self._transport.group.result(self._transport.rank, self._number))


class SimulatedTransport:
    """A rank's end of a `Group`, as far as operations use a transport."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self.rank, self.world = group, rank, group.world
        self.next = 0
        self.interrupt = Interrupt()
        self._gate: Callable[[], None] | None = None

    def enter(self, message: bytes, check: Callable[[list[bytes]], None]) -> None:
        self._gate = None
        self._gate = Pending(self, "enter", message, check).wait

    def _pass(self) -> None:
        if self._gate is not None:
            self._gate()
            self._gate = None

    def all_reduce(self, tensor: torch.Tensor) -> Pending:
        self._pass()

        def add(all_of_them: list[torch.Tensor]) -> None:
            tensor.copy_(torch.stack(all_of_them).sum(0))

        return Pending(self, f"all_reduce of {tuple(tensor.shape)}", tensor.clone(), add)

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self._pass()
        found: list[torch.Tensor] = []
        Pending(self, f"all_gather of {tuple(tensor.shape)}", tensor.clone(), found.extend).wait()
        return found
