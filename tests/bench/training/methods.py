"""Which ways to sum a tensor over the ranks are compared on slow links? A new one is a line here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import torch

from drivetrain.comm.transport import InFlight, Transport
from drivetrain.compress.codec import Codec
from drivetrain.compress.elementwise import Elementwise
from drivetrain.compress.method import Chunk, Rounds
from drivetrain.compress.methods import CODECS

Method = Callable[[Transport, torch.Tensor], None]
"""Leaves in the flat fp32 tensor the sum over all ranks, exact or not."""


def fp32(transport: Transport, tensor: torch.Tensor) -> None:
    """As it is."""
    transport.all_reduce(tensor).wait()


def bf16(transport: Transport, tensor: torch.Tensor) -> None:
    """Rounded, as `precision.reduce` does."""
    rounded = tensor.bfloat16()
    transport.all_reduce(rounded).wait()
    tensor.copy_(rounded)


def compressed(codec: Codec) -> Method:
    """In chunks of 4 MB, as `training.compression` does, error feedback included."""

    def method(transport: Transport, tensor: torch.Tensor) -> None:
        key = (len(tensor), id(codec))
        if key not in _summing:
            _summing[key] = Elementwise(codec, tensor)
        summing = _summing[key]
        running: deque[tuple[Rounds, InFlight]] = deque()
        for start in range(0, len(tensor), _CHUNK):
            stop = min(start + _CHUNK, len(tensor))
            rounds = summing.rounds(transport, Chunk(start, stop, tensor[start:stop]))
            running.append((rounds, next(rounds)))
        while running:
            rounds, awaited = running.popleft()
            awaited.wait()
            following = next(rounds, None)
            if following is not None:
                running.append((rounds, following))
        summing.commit()

    return method


_CHUNK: Final = 1 << 20
_summing: dict[tuple[int, int], Elementwise] = {}

METHODS: Final[dict[str, Method]] = {
    "fp32": fp32,
    "bf16": bf16,
    "int8": compressed(CODECS["int8"]),
    "int4": compressed(CODECS["int4"]),
}
"""fp32 is what the others are compared with; the figure of merit is int8's."""

STEPPED: Final = ["plain", "bf16-reduce", "int8"]
"""Modes whose whole steps are timed on the same links."""
