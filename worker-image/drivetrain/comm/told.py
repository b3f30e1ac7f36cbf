"""What each rank has to say to all: few words, now and then, of any length."""

from __future__ import annotations

import json
from typing import Any, Final

import torch

from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault, UsageError

MOST_BYTES: Final = 1 << 20
"""Of what one rank says."""


def told_by_all(transport: Transport | None, value: Any, what: str) -> list[Any]:
    """Everybody's value, by rank: what JSON can say, floats to the last bit, nan and inf too. All ranks call this.
    Raises `UsageError` on all for more than `MOST_BYTES` of `what`, in words for people, or `Interrupted`."""
    if transport is None:
        return [value]
    data = json.dumps(value).encode()
    sizes = [int(each) for each in transport.all_gather(torch.tensor([len(data)]))]
    if not all(0 <= size <= MOST_BYTES for size in sizes):
        raise UsageError(f"{what}: {max(sizes)} bytes on one rank; at most {MOST_BYTES} can be told")
    message = torch.zeros(max(sizes), dtype=torch.uint8)
    message[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    table = transport.all_gather(message)
    try:
        return [json.loads(each[:size].numpy().tobytes()) for each, size in zip(table, sizes, strict=True)]
    except (ValueError, RecursionError) as error:
        raise CommFault(f"{what}: what a rank said cannot be read") from error
