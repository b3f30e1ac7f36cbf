"""How do two ranks of a membership get a TCP connection of their own?

For what gloo cannot do: point-to-point messages whose wait can be abandoned by the thread that waits. Addresses are
told over the membership's own group. Before anything else goes over a connection, both ends prove that they know the
membership's key (introduction.py, meeting.py).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, cast

from drivetrain.comm.introduction import SECRET_BYTES
from drivetrain.comm.meeting import Address, Meeting
from drivetrain.comm.subgroup import tell_all
from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault
from drivetrain_api.constants import ENV_POD_IP

_BACKLOG: Final = 1024


def connect(transport: Transport, peers: Iterable[int]) -> dict[int, socket.socket]:
    """Blocking sockets to these ranks, which do the same for this one. All ranks of `transport` call it.

    Raises `Interrupted`.
    """
    listener = _listen()
    share = secrets.token_bytes(SECRET_BYTES)
    try:
        # The shares make the key another one each time. They are told in the open: where ranks know no secret (under
        # torchrun), they keep out who does not listen to the ranks' traffic, and nobody else.
        told = tell_all(transport, (int(listener.family), listener.getsockname(), share))
        addresses, shares = _addresses(told)
    except BaseException:
        listener.close()
        raise
    key = hashlib.sha256(transport.secret + b"".join(shares)).digest()
    connected = transport.interrupt.call(
        lambda: Meeting(transport.rank, set(peers), listener, key, addresses).held(),
        None,
        "connecting to other stages",
    )
    return cast(dict[int, socket.socket], connected)


def _addresses(told: list[Any]) -> tuple[list[Address], list[bytes]]:
    """Raises `CommFault` for what is none."""
    try:
        addresses: list[Address] = [
            (socket.AddressFamily(family), (str(host), *rest)) for family, (host, *rest), _ in told
        ]
        for _, (host, *_) in addresses:
            ipaddress.ip_address(host)  # no name, which somebody would be asked for
        shares = [bytes(share) for _, _, share in told if type(share) is bytes and len(share) == SECRET_BYTES]
    except (TypeError, ValueError) as error:
        raise CommFault(f"what a peer said is no address: {error}") from error
    if len(shares) < len(told):
        raise CommFault("what a peer said is no share of a key")
    return addresses, shares


def _listen() -> socket.socket:
    """Where gloo listens: on the pod's address, or the first one of the host's name that works, or on loopback."""
    for host in (os.environ.get(ENV_POD_IP), socket.gethostname()):
        with suppress(OSError):
            for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM) if host else ():
                with suppress(OSError):
                    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    return socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
