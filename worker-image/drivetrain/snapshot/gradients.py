"""What of a step's gradients does this rank write? Its slice of them, in memory of its own.

Where the optimizer leaves gradients as they are, they are copied by another thread while it uses them: the step waits
for nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from drivetrain.parallel.strategy import Strategy
from drivetrain.snapshot.copying import Copying
from drivetrain.snapshot.keys import Key
from drivetrain.snapshot.log import Rows
from drivetrain.snapshot.parts import Range, held_by, shared_out
from drivetrain.snapshot.tensors import dtype_name, flat_bytes
from drivetrain.update import Gradients, Record

_UPPER_HALF: Final = slice(1, None, 2)
"""Of float32's two halves in memory: what bfloat16 has of it."""


class Slicer:
    """Of one process. One step at a time: `take`, then `taken`."""

    def __init__(self, strategy: Strategy, copying: Copying, *, rounded: bool, used_up: bool) -> None:
        """`rounded`: what is written is bf16, and the gradients were rounded to that. `used_up`: the optimizer changes
        gradients."""
        self._strategy = strategy
        self._copying = copying
        self._rounded = rounded
        self.used_up = used_up
        """So they are copied before it has them."""
        self._ranges: tuple[tuple[object, ...], list[Range], tuple[Key, ...]] | None = None
        self._buffers: list[torch.Tensor] = []
        """To copy into: what the log has done with."""
        self._read: list[torch.Tensor] = []
        """What is copied while the optimizer has it."""
        self._versions: list[int] = []

    def take(self, record: Record, rank: int, world: int, epoch: object) -> tuple[tuple[Key, ...], torch.Tensor]:
        """This rank's slice of the dense gradients there are: keys, and memory that they will be in, one after another.
        The gradients stay as they are until `taken`, but for what the optimizer does."""
        ranges, keys = self._ranges_of(record, rank, world, epoch)
        views = [each.of(_given(record.gradients[each.held.place])) for each in ranges]
        buffer = self._buffer(views)
        in_front = self.used_up or _has_hooks(self._strategy.optimizer) or not _are_plain(views, buffer.dtype)
        if in_front:
            _copy_now(views, buffer)
        else:
            self._read, self._versions = views, [each._version for each in views]
            self._copying.begin(lambda: _copy(views, buffer))
        return keys, buffer

    def taken(self) -> bool:
        """The optimizer has made its update. Waits until the slice is there; False if it may be wrong, because the
        gradients were changed meanwhile. That is found out once."""
        self._copying.wait()
        read, self._read = self._read, []
        if [each._version for each in read] == self._versions[: len(read)]:
            return True
        self.used_up = True
        return False

    def give_back(self, buffer: torch.Tensor) -> None:
        """It is not needed any more. Called from another thread."""
        self._buffers.append(buffer)

    def rows(self, record: Record, rank: int, world: int) -> list[Rows]:
        """Of sparse gradients, which all ranks have alike: each writes some of the tables."""
        found: list[Rows] = []
        if not any(each is not None and each.is_sparse for each in record.gradients):
            return found
        for each in held_by(self._strategy, rank, world):
            gradient = record.gradients[each.place] if each.place >= 0 else None
            if gradient is None or not gradient.is_sparse or each.place % world != rank:
                continue
            indices, values = gradient._indices(), gradient._values()
            if self._rounded:
                values = values.to(torch.bfloat16)
            found.append(
                Rows(
                    each.name,
                    tuple(gradient.shape),
                    flat_bytes(indices.clone()),
                    indices.shape[0],
                    indices.shape[1],
                    flat_bytes(values.clone()),
                    dtype_name(values.dtype),
                    gradient.is_coalesced(),
                )
            )
        return found

    def _ranges_of(self, record: Record, rank: int, world: int, epoch: object) -> tuple[list[Range], tuple[Key, ...]]:
        used = [each is not None and not each.is_sparse for each in record.gradients]
        known = (rank, world, epoch, self._strategy.trained.digest, used)
        if self._ranges is None or self._ranges[0] != known:
            held = held_by(self._strategy, rank, world)
            ranges = shared_out([each for each in held if each.place >= 0 and used[each.place]])
            self._ranges = (known, ranges, tuple(each.key for each in ranges))
        return self._ranges[1:]

    def _buffer(self, views: list[torch.Tensor]) -> torch.Tensor:
        size = sum(each.numel() for each in views)
        dtype = torch.bfloat16 if self._rounded else (views[0].dtype if views else torch.float32)
        buffer = self._buffers.pop() if self._buffers else torch.empty(0, dtype=dtype)
        same = buffer.numel() == size and buffer.dtype == dtype
        return buffer if same else torch.empty(size, dtype=dtype)


def round_to_bf16(gradients: Gradients, factor: float) -> None:
    """Multiply in place, and leave of each number what bf16 has of it."""
    for each in gradients:
        if each is not None:
            values = each._values() if each.is_sparse else each
            if factor != 1.0:
                values.mul_(factor)
            values.copy_(values.to(torch.bfloat16))


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """The script's, before or after an update: they may do anything to gradients."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    )


def _are_plain(views: list[torch.Tensor], dtype: torch.dtype) -> bool:
    """Whether their bytes are those to be written, or half of them."""
    return all(
        each.device.type == "cpu"
        and each.is_contiguous()
        and (each.dtype == dtype or (each.dtype is torch.float32 and dtype is torch.bfloat16))
        for each in views
    )


def _copy(views: list[torch.Tensor], buffer: torch.Tensor) -> None:
    """Their bytes, or of float32 what bfloat16 has of it."""
    target, at = flat_bytes(buffer), 0
    for each in views:
        last = at + each.numel() * buffer.element_size()
        source = flat_bytes(each)
        if each.dtype == buffer.dtype:
            np.copyto(target[at:last], source)
        else:
            np.copyto(target[at:last].view(np.uint16), source.view(np.uint16)[_UPPER_HALF])
        at = last


def _copy_now(views: list[torch.Tensor], buffer: torch.Tensor) -> None:
    at = 0
    if views and views[0].dtype == buffer.dtype and views[0].device == buffer.device:
        torch.cat(views, out=buffer)
        return
    for each in views:
        buffer[at : at + each.numel()].copy_(each)
        at += each.numel()


def _given(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient
