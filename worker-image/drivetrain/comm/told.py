"""What each rank has to say to all: few words, now and then, of any length."""

from __future__ import annotations

import json
from typing import Any

import torch

from drivetrain.comm.transport import Transport


def told_by_all(transport: Transport | None, value: Any) -> list[Any]:
    """Everybody's value, by rank: what JSON can say, floats to the last bit, nan and inf too. All ranks call this.
    Raises `Interrupted`."""
    if transport is None:
        return [value]
    data = json.dumps(value).encode()
    sizes = [int(each) for each in transport.all_gather(torch.tensor([len(data)]))]
    message = torch.zeros(max(sizes), dtype=torch.uint8)
    message[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    table = transport.all_gather(message)
    return [json.loads(each[:size].numpy().tobytes()) for each, size in zip(table, sizes, strict=True)]
