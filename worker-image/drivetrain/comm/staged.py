"""Collectives on tensors of another device than the processor: gloo works on copies in the processor's memory.

gloo has CUDA paths of its own for some operations, not for all, and they finish on streams that nobody waits for when a
membership ends. With copies, what is abandoned writes to copies only. Gradients that must be fast go by NCCL.
"""

from __future__ import annotations

from typing import Protocol

import torch

from drivetrain.comm.quarantine import Quarantine


class _InFlight(Protocol):
    @property
    def done(self) -> bool: ...

    def wait(self) -> None: ...

    def abandon(self, quarantine: Quarantine) -> None: ...


class Staged:
    """An operation in flight on copies; whoever waits for it puts its result where it belongs."""

    def __init__(self, pending: _InFlight, output: torch.Tensor, staged: torch.Tensor) -> None:
        self._pending = pending
        self._output = output
        self._staged = staged

    @property
    def done(self) -> bool:
        """Over, well or badly: gloo writes to the copies no more."""
        return self._pending.done

    def wait(self) -> None:
        """Wait until the result is in the tensor. Raises `MembershipOver` or `CommFault`."""
        self._pending.wait()
        self._output.copy_(self._staged)

    def abandon(self, quarantine: Quarantine) -> None:
        """Put the copies into quarantine, unless it is over."""
        self._pending.abandon(quarantine)


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Its content, for an operation that reads it."""
    return tensor.detach().contiguous().cpu()


def room_for(tensor: torch.Tensor) -> torch.Tensor:
    """As much memory, for one that only writes."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)
