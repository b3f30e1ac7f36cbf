"""Are all members at the same operation? Who they are is what they exchange first, whatever operation it is.

An operation is known by its kind, its number and the lines of the script that asked for it. All ranks send that before
anything else, and nothing else leaves a rank before it has seen everybody's (`Transport.enter`); so two operations are
never paired that are not the same, and whoever deviates is named with its line.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from types import FrameType
from typing import Final

from drivetrain.errors import Deviation

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMBERS: Final = struct.Struct("<8q")
_LINE_BYTES: Final = 64
BYTES: Final = _NUMBERS.size + _LINE_BYTES
"""Of a message; the same for all."""


class Kind(IntEnum):
    """What a script can ask for that all members share."""

    STEP = 0
    SKIP = 1
    REDUCE = 2
    EVALUATE = 3
    SAVE = 4
    FINISH = 5
    GUEST = 6
    """Not yet at an operation of its own: takes part in that of the others."""

    @property
    def told(self) -> str:
        """As the script has it."""
        return "the end of the script" if self is Kind.FINISH else f"run.{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Identity:
    """One operation as one rank sees it."""

    kind: Kind
    step: int = 0
    """The next one to commit."""
    index: int = 0
    """How many other operations came since the last step."""
    size: int = 0
    """How many numbers are added up; of an evaluation, the samples of a piece."""
    trained: int = 0
    """Tells sets of trained parameters apart."""
    way: int = 0
    """Tells the script's ways to this operation apart."""
    line: str = ""
    """The script's, for people: `train.py:31`."""
    data: int | None = None
    """Samples of the dataset that it is about; None if there is none, or nobody knows how many."""

    def packed(self) -> bytes:
        """As a message of `BYTES`."""
        text = self.line.encode()[-_LINE_BYTES:]
        data = -1 if self.data is None else self.data
        numbers = _NUMBERS.pack(self.kind, self.step, self.index, self.size, self.trained, self.way, len(text), data)
        return numbers + text.ljust(_LINE_BYTES, b"\0")

    @classmethod
    def unpacked(cls, message: bytes) -> Identity:
        """The inverse of `packed`."""
        kind, step, index, size, trained, way, length, data = _NUMBERS.unpack_from(message)
        text = message[_NUMBERS.size : _NUMBERS.size + length].decode(errors="replace")
        return cls(Kind(kind), step, index, size, trained, way, text, None if data < 0 else data)

    def told(self, *, numbered: bool) -> str:
        """For people."""
        where = f" in {self.line}" if self.line else ""
        number = f" (step {self.step}, operation {self.index} after it)" if numbered else ""
        return f"{self.kind.told}{where}{number}"


def compare(messages: Sequence[bytes]) -> None:
    """Raises `Deviation` if these, by rank, are not all the same operation."""
    if all(each == messages[0] for each in messages):
        return
    by_rank = [Identity.unpacked(each) for each in messages]
    at: dict[Identity, list[int]] = defaultdict(list)
    for rank, each in enumerate(by_rank):
        if each.kind is not Kind.GUEST:
            at[each].append(rank)
    if len(at) < 2:
        return
    kinds = {(each.kind, each.line) for each in at}
    places = [f"{_ranks(ranks)} at {each.told(numbered=len(kinds) < len(at))}" for each, ranks in at.items()]
    raise Deviation(f"the ranks' scripts have come apart: {', '.join(places)}{_difference(list(at))}")


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} is"
    return f"ranks {', '.join(map(str, ranks))} are"


def _difference(found: list[Identity]) -> str:
    """What else to say where kind, line and number tell nothing."""
    plain = {replace(each, trained=0, way=0, size=0, data=None) for each in found}
    if len(plain) > 1:
        return ""
    if len(sizes := dict.fromkeys(each.data for each in found)) > 1:
        told = " and ".join("unknown" if size is None else str(size) for size in sizes)
        return f"; they have data of different length: {told}; give each all of it, they share it out"
    if len({each.trained for each in found}) > 1:
        return "; they train different parameters (requires_grad, or the optimizer's groups)"
    if len(sizes := dict.fromkeys(each.size for each in found)) > 1:
        if found[0].kind is Kind.EVALUATE:
            return f"; they evaluate in pieces of different size: batch={' and batch='.join(map(str, sizes))}"
        return "; they have different numbers of values"
    return "; they came there from different lines"


def here() -> tuple[str, int]:
    """Which line of the script has called us, and 32 bits that tell the way there from others; nothing at its end."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "", 0
    line = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
    way = 0
    while frame is not None:
        # Not by whole paths: each pod may have unpacked the script into a folder of its own.
        where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}:{frame.f_lineno}"
        way = zlib.crc32(where.encode(), way)
        frame = frame.f_back
    return line, way
