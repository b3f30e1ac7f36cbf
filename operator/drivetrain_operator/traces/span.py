"""A piece of a job's life, as OpenTelemetry has it. All ids follow from the job's uid, so that whoever leads next goes
on with the same trace, and what is told twice is one span."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

Value = str | int | float | bool
_UUID: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Span:
    """One span that has ended."""

    trace: bytes
    """16 bytes."""
    id: bytes
    """8 bytes."""
    parent: bytes | None
    name: str
    start: datetime
    end: datetime
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str | None = None
    """Why it did not go well; None: nothing says so."""


def trace_id(uid: str) -> bytes:
    """The uid itself: whoever knows the job finds its trace."""
    plain = uid.replace("-", "")
    if _UUID.fullmatch(plain):
        return bytes.fromhex(plain)
    return hashlib.blake2b(uid.encode(), digest_size=16).digest()


def span_id(uid: str, *what: object) -> bytes:
    """Of one piece of the life of a job."""
    return hashlib.blake2b("/".join(map(str, (uid, *what))).encode(), digest_size=8).digest()
