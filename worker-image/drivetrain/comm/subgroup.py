"""Some ranks of a membership among themselves: a gloo group whose rendezvous goes over the membership's own.

All ranks of the membership call `subgroup` at the same place, each for the group that it belongs to. One all-gather
tells all addresses; no store, no port and no message to the coordinator is needed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import torch

from drivetrain.comm.store import LinkStore
from drivetrain.comm.transport import Transport, connect_gloo
from drivetrain.wire import dump, load
from drivetrain_api.constants import ENV_POD_IP

T = TypeVar("T")

_MESSAGE: Final = 4096
"""Bytes, the length included."""
_LENGTH: Final = struct.Struct("!H")
_SECONDS: Final = 30.0


def subgroup(transport: Transport, members: Sequence[int], name: str = "") -> Transport | None:
    """Connect `members` (ranks of `transport`, this one among them), numbered in their order; None for one alone.
    `name`: what people are told of it.

    It ends with the membership, and what it moves is counted there. Raises `Interrupted`.
    """
    if len(members) == 1:
        tell_all(transport, None)  # the others wait for everybody's
        return None

    def put(key: str, value: bytes) -> None:
        told = tell_all(transport, (key, value))
        store.feed(dict(each for rank in members if (each := told[rank]) is not None))

    store = LinkStore(put, transport.interrupt, _SECONDS)
    rank = members.index(transport.rank)
    group = connect_gloo(store, rank, len(members), transport.interrupt, _SECONDS, os.environ.get(ENV_POD_IP))
    calls = transport.calls.of(name)
    made = Transport(group, rank, len(members), transport.interrupt, transport.blocked, transport.secret, calls)
    transport.adopt(made)
    return made


def tell_all(transport: Transport, entry: T) -> list[T]:
    """Everybody's entry, by rank; a small one. Raises `Interrupted`."""
    data = dump(entry)
    assert len(data) <= _MESSAGE - _LENGTH.size
    message = torch.frombuffer(bytearray((_LENGTH.pack(len(data)) + data).ljust(_MESSAGE, b"\0")), dtype=torch.uint8)
    return [_told(each.numpy().data) for each in transport.all_gather(message)]


def _told(message: memoryview) -> Any:
    (length,) = _LENGTH.unpack_from(message)
    return load(message[_LENGTH.size : _LENGTH.size + length])
