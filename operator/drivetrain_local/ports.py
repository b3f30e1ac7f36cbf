"""Who may reach a port of the plane? Programs on this machine, and of those the ones that have the token.

Loopback is shared by everybody who is logged in here, and by every page in a browser: the address alone keeps nobody
out. Connections that have not shown the token are few and short, see `drivetrain_serving`.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final

from drivetrain_serving.connections import Limits

LIMITS: Final = Limits(pending=256, admitted=8192, each=8192, pending_seconds=10.0)
"""One token speaks for all: operator, nodes, and whoever watches."""


def loopback(host: str) -> str:
    """The address itself. Raises ValueError for one that other machines could reach."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the embedded plane listens on loopback addresses only, not on {host}")
    return host


def same(given: str, secret: str) -> bool:
    """In a time that tells nothing; whatever bytes a caller sends."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())
