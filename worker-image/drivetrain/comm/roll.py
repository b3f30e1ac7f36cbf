"""Where is everybody? Two numbers from each rank to all others, told without waiting for them.

Over connections of their own where ranks are few: a gather by gloo costs ten times as much, in threads that wake one
another.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

import torch

from drivetrain.comm.links import connect
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import InFlight, Transport
from drivetrain.comm.waiting import Waiting
from drivetrain.errors import CommFault

_ENTRY: Final = struct.Struct("!qq")
_FEW: Final = 16
"""Ranks that have connections to all others."""

Place = tuple[int, int]


class Roll(Protocol):
    """What the ranks of one membership have said, in order."""

    def say(self, place: Place) -> None:
        """Tell all others. Raises `Interrupted`."""

    def answers(self) -> list[Place]:
        """By rank: what each has said next. Waits for it. Raises `Interrupted`."""

    def hang_up(self) -> None:
        """From any thread: nothing is said or heard any more."""


def roll_of(transport: Transport) -> Roll:
    """All ranks call this. Raises `Interrupted`."""
    return _ByLinks(transport) if transport.world <= _FEW else _ByGather(transport)


class _ByLinks:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._links = connect(transport, [rank for rank in range(transport.world) if rank != transport.rank])
        self._said: deque[Place] = deque()
        transport.at_end(self)
        transport.interrupt.on_end(self.hang_up)

    def say(self, place: Place) -> None:
        self._transport.interrupt.check()
        self._said.append(place)
        entry = _ENTRY.pack(*place)
        try:
            for link in self._links.values():
                link.sendall(entry)  # never waits: nobody is more than one entry behind
        except OSError as error:
            self._failed(error)

    def answers(self) -> list[Place]:
        own = self._said.popleft()
        return [own if rank == self._transport.rank else self._heard(rank) for rank in range(self._transport.world)]

    def _heard(self, rank: int) -> Place:
        link, entry = self._links[rank], b""
        try:
            with suppress(BlockingIOError):
                entry = link.recv(_ENTRY.size, socket.MSG_DONTWAIT)
                if not entry:
                    raise ConnectionResetError("it has hung up")
            if len(entry) < _ENTRY.size:
                with Waiting(self._transport, self._transport.calls.begin("receive", 0, "", rank)):
                    entry += (rest := link.recv(_ENTRY.size - len(entry), socket.MSG_WAITALL))
                if not rest:
                    raise ConnectionResetError("it has hung up")
            first, second = _ENTRY.unpack(entry)
        except (OSError, struct.error) as error:
            self._failed(error)
        return first, second

    def _failed(self, error: Exception) -> None:
        self._transport.interrupt.check()
        raise CommFault(f"hearing where the others are: {error}") from error

    def abandon(self, quarantine: Quarantine) -> None:
        """End the connections, which nothing writes to tensors from."""
        self.hang_up()
        for link in self._links.values():
            link.close()

    def hang_up(self) -> None:
        # From any thread: whoever waits for one of them wakes up.
        for link in self._links.values():
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


class _ByGather:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._told: deque[tuple[InFlight, torch.Tensor]] = deque()

    def say(self, place: Place) -> None:
        found = torch.empty(2 * self._transport.world, dtype=torch.int64)
        self._told.append((self._transport.all_gather_into(found, torch.tensor(place)), found))

    def answers(self) -> list[Place]:
        pending, found = self._told.popleft()
        pending.wait()
        return [(first, second) for first, second in found.view(-1, 2).tolist()]

    def hang_up(self) -> None:
        self._told.clear()  # the transport knows what is in flight
