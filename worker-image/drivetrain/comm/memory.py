"""Staging memory that is used again and again: fresh pages cost more than what is done with them."""

from __future__ import annotations

import torch


class StagingMemory:
    """Flat tensors for the collectives of one membership.

    What an interrupted collective may still write to must not be given back; nor is anything of it used again.
    """

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []

    def take(self, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A flat tensor of `size` elements; its content is whatever was there."""
        kind = [each for each in self._free if (each.dtype, each.device) == (dtype, device)]
        fitting = [each for each in kind if len(each) >= size]
        if kind:
            # One that is too small makes room for the new one, or the free ones would become more and more.
            taken = min(fitting, key=len) if fitting else max(kind, key=len)
            self._free = [each for each in self._free if each is not taken]
        return (taken if fitting else torch.empty(size, dtype=dtype, device=device))[:size]

    def give_back(self, *tensors: torch.Tensor) -> None:
        """They may be taken again: nothing reads or writes them any more."""
        self._free.extend(each if each._base is None else each._base for each in tensors)

    def forget(self) -> None:
        """The membership is over."""
        self._free.clear()
