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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import FrameType
from typing import Final

from drivetrain.alike import NOTHING
from drivetrain.errors import Deviation

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ARGUMENTS: Final = 20
"""So many hyper-parameters are told one by one; the last number is of all others."""
_NUMBERS: Final = struct.Struct(f"<8q{_ARGUMENTS}I")
_LINE_BYTES: Final = 72


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
    arguments: tuple[int, ...] = (0,) * _ARGUMENTS
    """Tell values of the optimizer's hyper-parameters apart."""
    sums: bytes = field(default=NOTHING, compare=False)
    """Of this rank's state, which travel with it (alike.py)."""

    def packed(self) -> bytes:
        """As a message, of the same size for all."""
        text = self.line.encode()[-_LINE_BYTES:]
        data = -1 if self.data is None else self.data
        numbers = (self.kind, self.step, self.index, self.size, self.trained, self.way, len(text), data)
        return _NUMBERS.pack(*numbers, *self.arguments) + text.ljust(_LINE_BYTES, b"\0") + self.sums

    @classmethod
    def unpacked(cls, message: bytes) -> Identity:
        """The inverse of `packed`."""
        kind, step, index, size, trained, way, length, data, *arguments = _NUMBERS.unpack_from(message)
        text = message[_NUMBERS.size : _NUMBERS.size + length].decode(errors="replace")
        known = None if data < 0 else data
        sums = message[_NUMBERS.size + _LINE_BYTES :]
        return cls(Kind(kind), step, index, size, trained, way, text, known, tuple(arguments), sums)

    def told(self, *, numbered: bool) -> str:
        """For people."""
        where = f" in {self.line}" if self.line else ""
        number = f" (step {self.step}, operation {self.index} after it)" if numbered else ""
        return f"{self.kind.told}{where}{number}"


def told_arguments(digests: Mapping[str, int]) -> tuple[int, ...]:
    """`Identity.arguments` of these hyper-parameters."""
    first, *values = zlib.crc32(repr(list(digests)).encode()), *digests.values()
    own, others = values[: _ARGUMENTS - 2], values[_ARGUMENTS - 2 :]
    told = (first, *own, *[0] * (_ARGUMENTS - 2 - len(own)))
    return (*told, zlib.crc32(repr(others).encode()) if others else 0)


def compare(messages: Sequence[bytes], arguments: Sequence[str] = ()) -> None:
    """Raises `Deviation` if these, by rank, are not all the same operation. `arguments`: names of hyper-parameters."""
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
    raise Deviation(f"the ranks' scripts have come apart: {', '.join(places)}{_difference(list(at), arguments)}")


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} is"
    return f"ranks {', '.join(map(str, ranks))} are"


def _difference(found: list[Identity], arguments: Sequence[str]) -> str:
    """What else to say where kind, line and number tell nothing."""
    plain = {replace(each, trained=0, way=0, size=0, data=None, arguments=()) for each in found}
    if len(plain) > 1:
        return ""
    if len(sizes := dict.fromkeys(each.data for each in found)) > 1:
        told = " and ".join("unknown" if size is None else str(size) for size in sizes)
        return f"; they have data of different length: {told}; give each all of it, they share it out"
    if len({each.trained for each in found}) > 1:
        return (
            "; they train different parameters (requires_grad, the optimizer's groups), or new ones that were not "
            "initialised alike, or have other normalisation layers"
        )
    if len({each.arguments for each in found}) > 1:
        return f"; their optimizers have different hyper-parameters ({_which(found, arguments)})"
    if len(sizes := dict.fromkeys(each.size for each in found)) > 1:
        if found[0].kind is Kind.EVALUATE:
            return f"; they evaluate in pieces of different size: batch={' and batch='.join(map(str, sizes))}"
        return "; they have different numbers of values"
    return "; they came there from different lines"


def _which(found: list[Identity], names: Sequence[str]) -> str:
    """Names of the hyper-parameters that differ."""
    differ = [len(set(each)) > 1 for each in zip(*(each.arguments for each in found), strict=True)]
    if differ[0]:
        return "some have others"
    own = [name for name, differs in zip(names, differ[1:-1], strict=False) if differs]
    return ", ".join(own + list(names[_ARGUMENTS - 2 :]) * differ[-1])


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
