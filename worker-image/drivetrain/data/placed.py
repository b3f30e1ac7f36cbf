"""Samples on the model's device, so that a script says nothing of devices and runs with and without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from drivetrain.data.source import Source


class Placed:
    """What a source reads, brought to a device."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source = source
        self._device = device
        self.batch = source.batch

    @property
    def mark(self) -> int | None:
        """See `Source`."""
        return self._source.mark

    def expect(self, step: int, parts: Sequence[range]) -> None:
        """See `Source`."""
        self._source.expect(step, parts)

    def read(self, step: int, part: range) -> Any:
        """See `Source`."""
        return brought(self._source.read(step, part), self._device)


def brought(value: Any, device: torch.device) -> Any:
    """The same with all tensors on the device, in tuples, lists and dicts; what has a `to` of its own (a packed
    sequence, a tokenizer's batch) decides itself what it brings."""
    if callable(getattr(value, "to", None)):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)({name: brought(each, device) for name, each in value.items()})
    if isinstance(value, (list, tuple)):
        values = [brought(each, device) for each in value]
        return value._make(values) if hasattr(value, "_make") else type(value)(values)
    return value
