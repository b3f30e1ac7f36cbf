"""Memory that outlives a script: two slots, made by its keeper, which every fork of it inherits (ADR 0050).

Files without a name, so nothing is left behind when the keeper ends, and nothing else can reach them. A copy is written
beside the one before it; its number is written last, so a script that is killed meanwhile leaves the one before.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ENV_KEPT: Final = "DRIVETRAIN_KEPT"
"""Descriptors of both slots."""
_NAME: Final = "drivetrain-kept"
_HEAD: Final = struct.Struct("<qq")
"""Step and bytes; a step of 0 is none."""
_PIECE: Final = 1 << 26


@dataclass(frozen=True)
class Copy:
    """The newest whole one."""

    step: int
    payload: bytes


class Kept:
    """Both slots."""

    def __init__(self, slots: tuple[int, int]) -> None:
        self._slots = slots

    @classmethod
    def make(cls) -> Kept:
        """In the keeper. They are empty, and cost nothing until something is put there."""
        return cls((os.memfd_create(_NAME, os.MFD_CLOEXEC), os.memfd_create(_NAME, os.MFD_CLOEXEC)))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Kept | None:
        """In the script; None where there are none, as in a process that the script started."""
        try:
            first, second = (int(each) for each in environ.get(ENV_KEPT, "").split(","))
            names = [os.readlink(f"/proc/self/fd/{each}") for each in (first, second)]
        except (OSError, ValueError):
            return None
        return cls((first, second)) if all(name.startswith(f"/memfd:{_NAME}") for name in names) else None

    @property
    def environment(self) -> dict[str, str]:
        """What a script must know of them."""
        return {ENV_KEPT: ",".join(str(slot) for slot in self._slots)}

    def newest(self) -> Copy | None:
        """Of the highest step."""
        step, slot = max((self._step(slot), slot) for slot in self._slots)
        if not step:
            return None
        size = _HEAD.unpack(os.pread(slot, _HEAD.size, 0))[1]
        payload = bytearray()
        while len(payload) < size:
            piece = os.pread(slot, min(_PIECE, size - len(payload)), _HEAD.size + len(payload))
            if not piece:
                return None
            payload += piece
        return Copy(step, bytes(payload))

    def put(self, step: int, payload: bytes | memoryview) -> None:
        """In the place of the older one."""
        slot = min(self._slots, key=self._step)
        os.ftruncate(slot, 0)
        rest, at = memoryview(payload), _HEAD.size
        size = len(rest)
        while rest:
            written = os.pwrite(slot, rest[:_PIECE], at)
            rest, at = rest[written:], at + written
        os.pwrite(slot, _HEAD.pack(step, size), 0)

    def _step(self, slot: int) -> int:
        head = os.pread(slot, _HEAD.size, 0)
        return int(_HEAD.unpack(head)[0]) if len(head) == _HEAD.size else 0
