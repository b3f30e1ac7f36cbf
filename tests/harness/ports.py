"""Ports and addresses of this machine that one test has for itself, also while nobody listens on them yet.

A port that was free a moment ago may be another's when a rank at last binds it: another worker of pytest asked at the
same time, or the kernel gave it to somebody's outgoing connection. So ports come from below those that the kernel gives
away, and are reserved by a name that the kernel keeps for us until we give it back or die, for all checkouts alike.
"""

from __future__ import annotations

import atexit
import itertools
import random
import socket
from pathlib import Path

_LOWEST, _COUNT = 12_000, 12_000
_NETWORKS = [f"127.{second}.{third}" for second in range(2, 90) for third in range(256)]
"""Below 127.96: the embedded planes have addresses there."""


class Reserved:
    """One name that nobody else has as long as this is not released."""

    def __init__(self, kind: str, value: str) -> None:
        """Raises OSError where another has it."""
        self.value = value
        self._name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._name.bind(f"\0drivetrain-tests-{kind}-{value}")  # of the abstract kind: it leaves no file
        except OSError:
            self._name.close()
            raise

    def release(self) -> None:
        """Somebody else may have it."""
        self._name.close()


def reserve_port() -> Reserved:
    """A TCP port on which nobody listens, and which no other test gets."""
    highest = min(_LOWEST + _COUNT, _given_away_from())
    start = random.SystemRandom().randrange(_LOWEST, highest)
    for number in itertools.chain(range(start, highest), range(_LOWEST, start)):
        try:
            found = Reserved("port", str(number))
        except OSError:
            continue
        if _is_free(number):
            return found
        found.release()
    raise OSError(f"no TCP port from {_LOWEST} to {highest} is free")


def free_port() -> int:
    """The same, kept until this process ends."""
    kept = reserve_port()
    atexit.register(kept.release)
    return int(kept.value)


def reserve_network() -> Reserved:
    """The first three numbers of 254 loopback addresses that no other test uses."""
    for value in random.SystemRandom().sample(_NETWORKS, len(_NETWORKS)):
        try:
            return Reserved("network", value)
        except OSError:
            continue
    raise OSError("no loopback network is left")


def _given_away_from() -> int:
    """The kernel gives ports from here on to whoever does not ask for one."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return lowest if lowest > _LOWEST + 1000 else 65_536


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: connections that ended do not count
        try:
            probe.bind(("0.0.0.0", number))
        except OSError:
            return False
    return True
