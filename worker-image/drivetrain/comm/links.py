"""How do two ranks of a membership get a TCP connection of their own?

For what gloo cannot do: point-to-point messages whose wait can be abandoned by the thread that waits. Addresses and the
words that callers are known by are told over the membership's own group.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, cast

from drivetrain.comm.subgroup import tell_all
from drivetrain.comm.transport import WAIT_SECONDS, Transport
from drivetrain_api.constants import ENV_POD_IP

_SECONDS: Final = 30.0
"""For all connections of a rank."""
_INTRODUCTION: Final = 5.0
"""For a caller to say who it is: a stranger that says nothing must not keep the others waiting."""
_WORD: Final = 16
"""Bytes; whoever calls says it first, and then its rank."""


def connect(transport: Transport, peers: Iterable[int]) -> dict[int, socket.socket]:
    """Blocking sockets to these ranks, which do the same for this one. All ranks of `transport` call it.

    Raises `Interrupted`.
    """
    listener = _listen()
    word = secrets.token_bytes(_WORD)
    try:
        told = tell_all(transport, (listener.family, listener.getsockname(), word))
    except BaseException:
        listener.close()
        raise
    connected = transport.interrupt.call(
        lambda: _connect(transport.rank, set(peers), listener, word, told), None, "connecting to other stages"
    )
    return cast(dict[int, socket.socket], connected)


def _listen() -> socket.socket:
    """Where gloo listens: on the pod's address, or the first one of the host's name that works, or on loopback."""
    for host in (os.environ.get(ENV_POD_IP), socket.gethostname()):
        with suppress(OSError):
            for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM) if host else ():
                with suppress(OSError):
                    return socket.create_server(address[:2], family=family)
    return socket.create_server(("127.0.0.1", 0))


def _connect(
    rank: int, peers: set[int], listener: socket.socket, word: bytes, told: list[Any]
) -> dict[int, socket.socket]:
    deadline = time.monotonic() + _SECONDS
    made: dict[int, socket.socket] = {}
    with listener:
        try:
            for peer in sorted(each for each in peers if each > rank):
                family, address, its_word = told[peer]
                made[peer] = socket.socket(family)
                made[peer].settimeout(_left(deadline))
                made[peer].connect(address)
                made[peer].sendall(its_word + struct.pack("!I", rank))
            while missing := {each for each in peers if each < rank} - made.keys():
                listener.settimeout(_left(deadline))
                caller, _ = listener.accept()
                caller.settimeout(min(_INTRODUCTION, _left(deadline)))
                introduced = _introduced(caller, word)
                if introduced in missing:
                    made[introduced] = caller
                else:
                    caller.close()
        except BaseException:
            for each in made.values():
                each.close()
            raise
    for each in made.values():
        each.settimeout(None)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(WAIT_SECONDS), 0))
    return made


def _introduced(caller: socket.socket, word: bytes) -> int | None:
    """Whose rank this is; None for somebody else."""
    said = b""
    with suppress(OSError):
        said = caller.recv(_WORD + 4, socket.MSG_WAITALL)
    if len(said) < _WORD + 4 or not hmac.compare_digest(said[:_WORD], word):
        return None
    rank: int = struct.unpack("!I", said[_WORD:])[0]
    return rank


def _left(deadline: float) -> float:
    """Seconds; raises `TimeoutError` if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"not connected after {_SECONDS:.0f} s")
    return left
