"""Who is at the other end of a connection? Both ends prove that they know a key, without telling it.

The caller says its rank and a number that nobody has seen; the listener answers with one of its own and the HMAC of
both, of both ranks and of its role; the caller with that of its role. So what was said in one connection proves nothing
in another one, nor to the end that has said it (RFC 2104; the three passes are those of ISO/IEC 9798-4).

It keeps out who does not know the key, at the beginning. Whoever can change packets on the way can change them later:
against that helps only a network that encrypts.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Generator
from typing import Final, NamedTuple

SECRET_BYTES: Final = 16
_PROOF_BYTES: Final = 32
_RANK: Final = struct.Struct("!I")


class Proven(NamedTuple):
    """The end of an introduction."""

    rank: int
    """Of the other end."""
    say: bytes = b""
    """The last word, if it is this end's."""


Introduction = Generator[tuple[bytes, int], bytes, Proven]
"""Yields what to say and how many bytes to hear then, and is sent those. Raises `ConnectionRefusedError` for who is not
what it says."""


def calling(key: bytes, rank: int, peer: int) -> Introduction:
    """Of a rank that has called another one."""
    mine = secrets.token_bytes(SECRET_BYTES)
    heard = yield mine + _RANK.pack(rank), SECRET_BYTES + _PROOF_BYTES
    theirs, proof = heard[:SECRET_BYTES], heard[SECRET_BYTES:]
    _check(proof, _proof(key, b"listener", mine, theirs, rank, peer))
    return Proven(peer, _proof(key, b"caller", mine, theirs, rank, peer))


def called(key: bytes, rank: int) -> Introduction:
    """Of a rank that somebody calls."""
    heard = yield b"", SECRET_BYTES + _RANK.size
    theirs, peer = heard[:SECRET_BYTES], _RANK.unpack(heard[SECRET_BYTES:])[0]
    mine = secrets.token_bytes(SECRET_BYTES)
    proof = yield mine + _proof(key, b"listener", theirs, mine, peer, rank), _PROOF_BYTES
    _check(proof, _proof(key, b"caller", theirs, mine, peer, rank))
    return Proven(peer)


def _proof(key: bytes, role: bytes, callers: bytes, listeners: bytes, caller: int, listener: int) -> bytes:
    text = role + b"\0" + callers + listeners + _RANK.pack(caller) + _RANK.pack(listener)
    return hmac.digest(key, text, "sha256")


def _check(proof: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(proof, expected):
        raise ConnectionRefusedError("the other end is not the rank that it should be")
