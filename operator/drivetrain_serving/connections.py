"""PURE: who is connected, who may stay, and who gives way to whom?

A connection is *pending* until its caller has shown a token (or, on a port without tokens, has asked for something);
then it is *admitted*, in the name of somebody. Both have a bound. Callers that have said nothing yet compete for few
places: whoever holds most of them, and longest, gives way, so that a crowd of one stranger cannot keep others out.

A peer is an address, in a network: IPv6 gives a host a whole one, and Kubernetes gives one to each node. So a network
that holds most gives way to others, and within it the address that does.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Final

GRACE_SECONDS: Final = 3.0
"""So long a pending connection may take before it gives way to one of a peer with as many. Long, because slow callers
that pushed one another out would never get in."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections of one port."""

    pending: int = 512
    admitted: int = 16384
    each: int = 16
    """Admitted ones in the name of one holder."""
    pending_seconds: float = 5.0
    """From being accepted until being admitted."""


@dataclass(eq=False, slots=True)
class Connection:
    """One that was accepted."""

    peer: str
    network: str
    since: float
    holder: str | None = None
    """In whose name it was admitted."""


class Connections:
    """The connections of one port."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending: dict[Connection, None] = {}  # oldest first
        self._peers: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self._admitted: set[Connection] = set()
        self._holders: Counter[str] = Counter()

    @property
    def pending(self) -> int:
        """Those that have not shown who they are."""
        return len(self._pending)

    @property
    def admitted(self) -> int:
        """Those that have."""
        return len(self._admitted)

    def arrive(self, address: str, now: float) -> tuple[Connection | None, Connection | None]:
        """A caller from `address`: its connection, or None if there is no place; and one that is closed for it."""
        peer, network = peer_of(address), network_of(address)
        loser = None
        if len(self._pending) >= self._limits.pending:
            loser = self._gives_way(peer, network, now)
            if loser is None:
                return None, None
            self.leave(loser)
        new = Connection(peer, network, now)
        self._pending[new] = None
        self._peers[peer] += 1
        self._networks[network] += 1
        return new, loser

    def admit(self, connection: Connection, holder: str) -> bool:
        """It speaks for `holder`. False if that one has too many, or all together have."""
        if connection in self._admitted:
            return connection.holder == holder  # a caller speaks for one
        if connection not in self._pending:
            return False  # it was closed
        if len(self._admitted) >= self._limits.admitted or self._holders[holder] >= self._limits.each:
            return False
        self.leave(connection)
        connection.holder = holder
        self._admitted.add(connection)
        self._holders[holder] += 1
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed. Does nothing if that was said before."""
        if connection in self._pending:
            del self._pending[connection]
            _less(self._peers, connection.peer)
            _less(self._networks, connection.network)
        elif connection in self._admitted:
            self._admitted.remove(connection)
            assert connection.holder is not None
            _less(self._holders, connection.holder)

    def _gives_way(self, peer: str, network: str, now: float) -> Connection | None:
        crowd, count = self._networks.most_common(1)[0]
        if count > self._networks[network] + 1:
            return self._oldest_of_most(crowd)
        own = [each for each in self._pending if each.network == network]
        if own and max(self._peers[each.peer] for each in own) > self._peers[peer] + 1:
            return self._oldest_of_most(network)
        oldest = next((each for each in self._pending if self._networks[each.network] == count), None)
        return oldest if oldest is not None and now - oldest.since >= GRACE_SECONDS else None

    def _oldest_of_most(self, network: str) -> Connection:
        """Of the address that holds most in a network."""
        own = [each for each in self._pending if each.network == network]
        return max(own, key=lambda each: self._peers[each.peer])  # the first of them is the oldest


def peer_of(address: str) -> str:
    """An address, in one way of writing it."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed) if parsed is not None else address


def network_of(address: str) -> str:
    """What one host may have to itself: an IPv4 address, or a network of IPv6."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return peer_of(address)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _less(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
