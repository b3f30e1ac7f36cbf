"""Which loopback addresses belong to this plane? One number k, claimed by listening; everything follows from it.

Several planes (and parallel tests) share a machine without talking to each other: plane k has its API server on
127.96.k.1:6443, its Services in 127.96.k.0/24 and the pods of its node i in 127.(100+i).k.0/24.
"""

from __future__ import annotations

import errno
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

API_PORT = 6443
MAX_NODES = 64
_PLANES = range(1, 251)
RESERVED_HOSTS = 9
"""Addresses at the start of the Service range that no Service gets: the API server's, and those of `up --run`."""


@dataclass(frozen=True)
class Plane:
    """The addresses of plane k."""

    k: int

    @property
    def api_host(self) -> str:
        return f"127.96.{self.k}.1"

    @property
    def service_cidr(self) -> str:
        return f"127.96.{self.k}.0/24"

    def command_host(self, index: int) -> str:
        """The address of the index-th extra command (the operator): where it may listen."""
        if not 0 <= index < RESERVED_HOSTS - 1:
            raise ValueError(f"at most {RESERVED_HOSTS - 1} extra commands")
        return f"127.96.{self.k}.{2 + index}"

    def pod_cidr(self, node: int) -> str:
        if not 0 <= node < MAX_NODES:
            raise ValueError(f"at most {MAX_NODES} nodes")
        return f"127.{100 + node}.{self.k}.0/24"

    @staticmethod
    def of_host(host: str) -> Plane:
        """The plane whose API server listens at 127.96.k.1."""
        return Plane(int(host.split(".")[2]))


def candidates(state: Path | None = None) -> Iterator[Plane]:
    """Planes to try: for a state directory always in the same order, so that its URL stays; else at random."""
    seed = random.randrange(len(_PLANES)) if state is None else zlib.crc32(str(state.resolve()).encode())
    for offset in range(len(_PLANES)):
        yield Plane(_PLANES[(seed + offset) % len(_PLANES)])


def is_taken(error: OSError) -> bool:
    """Whether a failed listen means: another plane has this number."""
    return error.errno == errno.EADDRINUSE
