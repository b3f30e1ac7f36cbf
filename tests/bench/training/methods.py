"""Which ways to sum a tensor over the ranks are compared on slow links? A new one is a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from drivetrain.comm.transport import Transport

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


METHODS: Final[dict[str, Method]] = {"fp32": fp32, "bf16": bf16}
"""fp32 is what the others are compared with; the figure of merit is int8's."""

STEPPED: Final = ["plain", "bf16-reduce"]
"""Modes whose whole steps are timed on the same links."""
