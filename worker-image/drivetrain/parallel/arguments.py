"""Are the optimizer's hyper-parameters the same on all ranks? Rates, decays and the like, as each step begins: when the
script has set them, and those that a peer's state brought are there.
"""

from __future__ import annotations

import zlib
from numbers import Number
from typing import Any, Final

import torch

_PLAIN: Final = frozenset((float, int, bool, str, type(None)))
_NOT_COMPARED: Final = frozenset(("params", "param_names"))


class Arguments:
    """Those of one optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._sizes: list[int] = []
        """How many arguments each group had."""
        self._values: dict[str, list[Any]] = {}
        """By argument, in all groups, as of the last call; nothing of one whose values may change in place."""
        self._digests: dict[str, int] = {}

    def digests(self) -> dict[str, int]:
        """By hyper-parameter, sorted: 32 bits that tell its values in all groups from others. Computed again only of
        what has changed since the last call."""
        groups = self._optimizer.param_groups
        sizes = [len(group) for group in groups]
        if sizes != self._sizes:
            keys = sorted({key for group in groups for key in group} - _NOT_COMPARED)
            self._sizes, self._values, self._digests = sizes, {key: [] for key in keys}, dict.fromkeys(keys, 0)
        for key, before in self._values.items():
            values = [group.get(key) for group in groups]
            if before and values == before:
                continue
            self._values[key] = values if all(_is_fixed(each) for each in values) else []
            self._digests[key] = zlib.crc32(repr([_written(_plain(each)) for each in values]).encode())
        return self._digests


def _is_fixed(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(type(each) in _PLAIN for each in value))


def _plain(value: Any) -> Any:
    """What can be compared; tensors only where that waits for no device."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_plain(each) for each in value)
    if isinstance(value, torch.Tensor):
        return tuple(value.flatten().tolist()) if value.device.type == "cpu" and value.numel() <= 16 else None
    return value.item() if isinstance(value, Number) and hasattr(value, "item") else type(value).__name__


def _written(value: Any) -> Any:
    """The same for equal numbers, whatever type they are of."""
    if isinstance(value, tuple):
        return tuple(_written(each) for each in value)
    return float(value) if isinstance(value, (bool, int, float)) and abs(value) < 2**53 else value
