"""Flight recorder: the last collectives of a rank, in memory that its launcher reads whatever has become of the rank.

A ring of fixed-size records in a memfd. The rank notes where a collective begins, where it is waited for and where it
ends: some packed bytes each time, no system call, no lock, nothing to collect. The launcher holds the same memory open.
So it has the last collectives of a rank that hangs with the interpreter's lock held, is stopped, or is dead.

Light to import: the launcher has no torch. There is nothing in it that a script computes: names, sizes and times.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.constants import ENV_TELEMETRY
from drivetrain_api.logline import escaped
from drivetrain_api.messages import EpochId
from drivetrain_api.places import Call

ENTRIES: Final = 1024
"""The last ones: a power of two."""
_MAGIC: Final = b"DTFLIGHT"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sII")
_NAMES: Final = 256
_NAME_BYTES: Final = 64
_NAMES_AT: Final = 64
_RECORDS_AT: Final = _NAMES_AT + _NAMES * _NAME_BYTES
_RECORD: Final = struct.Struct("<QQdddQqIIiHHHBx")
"""Ticket (0: empty), number within the group, when it began, was waited for and ended, bytes, step, membership, peer,
names of operation, group and type, state."""
SIZE: Final = _RECORDS_AT + ENTRIES * _RECORD.size
_WAITED_AT: Final = 24
_ENDED_AT: Final = 32
_STATE_AT: Final = _RECORD.size - 2
_DOUBLE: Final = struct.Struct("<d")
_OTHER: Final = 1
"""Name of what has found no room in the table."""
NO_PEER: Final = -1


class State(IntEnum):
    """What has become of a collective, as far as this rank knows."""

    STARTED = 1
    WAITING = 2
    DONE = 3
    FAILED = 4
    ABANDONED = 5
    """Its membership was over first."""


class Calls(Protocol):
    """Notes the collectives of one group of ranks, in one membership."""

    def begin(self, operation: str, payload: int, dtype: object, peer: int = NO_PEER) -> int:
        """One has begun, with so many bytes; returns its ticket."""

    def wait(self, ticket: int) -> None:
        """This rank waits for it from now on."""

    def end(self, ticket: int, state: State = State.DONE) -> None:
        """It is over."""

    def of(self, group: str) -> Calls:
        """Those of another group of the same membership."""


class _Nobody:
    """Notes nothing."""

    def begin(self, operation: str, payload: int, dtype: object, peer: int = NO_PEER) -> int:
        return 0

    def wait(self, ticket: int) -> None:
        return

    def end(self, ticket: int, state: State = State.DONE) -> None:
        return

    def of(self, group: str) -> Calls:
        return self


UNRECORDED: Final[Calls] = _Nobody()


class Flight:
    """The recorder of this process."""

    def __init__(self) -> None:
        self.fd: Final = os.memfd_create("drivetrain-flight", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, SIZE)
        self._memory = mmap.mmap(self.fd, SIZE)
        _HEADER.pack_into(self._memory, 0, _MAGIC, _VERSION, ENTRIES)
        self._tickets = itertools.count(1)
        self._newest = 0
        self._waiting = 0
        self._names: dict[object, int] = {"": 0}
        self._named("other")
        self.step = -1
        """That of the script, now."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Flight | None:
        """None where `DRIVETRAIN_TELEMETRY` is off."""
        return None if environ.get(ENV_TELEMETRY) == "off" else cls()

    def group(self, name: str, epoch: EpochId) -> Calls:
        """What notes the collectives of a group of this membership; they are numbered from 1."""
        return _Group(self, name, epoch)

    def last(self) -> Record | None:
        """The one that is waited for, else the newest."""
        ticket = self._waiting or self._newest
        return _record(self._memory, _at(ticket), self._name) if ticket else None

    def begin(
        self, number: int, group: int, epoch: EpochId, operation: str, payload: int, dtype: object, peer: int
    ) -> int:
        """See `Calls`."""
        ticket = next(self._tickets)
        names = self._names
        named = names.get(operation), names.get(dtype)
        _RECORD.pack_into(
            self._memory,
            _at(ticket),
            ticket,
            number,
            time.monotonic(),
            0.0,
            0.0,
            payload,
            self.step,
            epoch[0],
            epoch[1],
            peer,
            named[0] if named[0] is not None else self._named(operation),
            group,
            named[1] if named[1] is not None else self._named(dtype),
            State.STARTED,
        )
        self._newest = ticket
        return ticket

    def wait(self, ticket: int) -> None:
        """See `Calls`."""
        if ticket > self._newest - ENTRIES:
            at = _at(ticket)
            _DOUBLE.pack_into(self._memory, at + _WAITED_AT, time.monotonic())
            self._memory[at + _STATE_AT] = State.WAITING
            self._waiting = ticket

    def end(self, ticket: int, state: State) -> None:
        """See `Calls`. What has ended stays as it ended."""
        if ticket > self._newest - ENTRIES:
            at = _at(ticket)
            if self._memory[at + _STATE_AT] < State.DONE:
                _DOUBLE.pack_into(self._memory, at + _ENDED_AT, time.monotonic())
                self._memory[at + _STATE_AT] = state
        if self._waiting == ticket:
            self._waiting = 0

    def _named(self, thing: object) -> int:
        """Its place in the table of names."""
        known = self._names.get(thing)
        if known is None:
            number = len(set(self._names.values()))
            if number >= _NAMES:
                return _OTHER
            text = str(thing).removeprefix("torch.").encode(errors="replace")[:_NAME_BYTES]
            start = _NAMES_AT + number * _NAME_BYTES
            self._memory[start : start + len(text)] = text
            known = self._names[thing] = number
        return known

    def _name(self, number: int) -> str:
        return _name(self._memory, number)


class _Group:
    """One group's."""

    __slots__ = ("_epoch", "_flight", "_messages", "_name", "_number")

    def __init__(self, flight: Flight, name: str, epoch: EpochId) -> None:
        self._flight = flight
        self._name = flight._named(name)
        self._epoch = epoch
        self._number = 0
        self._messages = 0

    def begin(self, operation: str, payload: int, dtype: object, peer: int = NO_PEER) -> int:
        if peer < 0:
            number = self._number = self._number + 1
        else:  # which not all ranks have: it must not put them apart
            number = self._messages = self._messages + 1
        return self._flight.begin(number, self._name, self._epoch, operation, payload, dtype, peer)

    def wait(self, ticket: int) -> None:
        self._flight.wait(ticket)

    def end(self, ticket: int, state: State = State.DONE) -> None:
        self._flight.end(ticket, state)

    def of(self, group: str) -> Calls:
        return _Group(self._flight, group, self._epoch)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One collective. Times are of `time.monotonic()` on this machine; 0.0: not yet."""

    ticket: int
    number: int
    """Within its group and membership: that of all its ranks is the same for the same collective. Messages between two
    ranks have numbers of their own."""
    operation: str
    group: str
    peer: int
    bytes: int
    dtype: str
    step: int
    epoch: EpochId
    state: State
    began: float
    waited: float
    ended: float

    def call(self, now: float) -> Call:
        """For a message."""
        return Call(
            operation=self.operation,
            number=self.number,
            group=self.group,
            peer=self.peer,
            bytes=self.bytes,
            dtype=self.dtype,
            step=self.step,
            state=self.state.name.lower(),
            seconds=round(min(max(0.0, now - self.began), MAX_SECONDS), 1),
        )


def read(data: bytes) -> list[Record]:
    """The records in a recorder's memory, oldest first. Whatever else is there, another process may have written."""
    if len(data) != SIZE or _HEADER.unpack_from(data)[:2] != (_MAGIC, _VERSION):
        return []
    names = [_name(data, number) for number in range(_NAMES)]

    def name(number: int) -> str:
        return names[number] if number < _NAMES else ""

    found = [_record(data, _RECORDS_AT + slot * _RECORD.size, name) for slot in range(ENTRIES)]
    return sorted((each for each in found if each is not None), key=lambda record: record.ticket)


def _record(data: bytes | mmap.mmap, at: int, name: _NameOf) -> Record | None:
    ticket, number, began, waited, ended, payload, step, term, n, peer, operation, group, dtype, state = (
        _RECORD.unpack_from(data, at)
    )
    if not ticket or state not in _STATES or not all(math.isfinite(each) for each in (began, waited, ended)):
        return None
    return Record(
        ticket=ticket,
        number=min(number, _MOST),
        operation=name(operation),
        group=name(group),
        peer=max(peer, NO_PEER),
        bytes=min(payload, _MOST),
        dtype=name(dtype),
        step=max(-1, min(step, _MOST)),
        epoch=EpochId(term, n),
        state=State(state),
        began=began,
        waited=waited,
        ended=ended,
    )


_STATES: Final = frozenset(map(int, State))
_MOST: Final = 2**53 - 1


class _NameOf(Protocol):
    def __call__(self, number: int, /) -> str: ...


def _name(data: bytes | mmap.mmap, number: int) -> str:
    start = _NAMES_AT + number * _NAME_BYTES
    text = bytes(data[start : start + _NAME_BYTES]).rstrip(b"\0").decode(errors="replace")
    return escaped(text)


def _at(ticket: int) -> int:
    """Where in the memory its record is."""
    return _RECORDS_AT + (ticket & (ENTRIES - 1)) * _RECORD.size
