"""What of a step's gradients does this rank write? Its slice of them, in memory of its own.

Where the optimizer leaves gradients as they are, they are copied by another thread while it uses them: the step waits
for nothing.
"""

from __future__ import annotations

import functools
import operator
from typing import Final

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from drivetrain import only_update
from drivetrain.optim.several import each_of
from drivetrain.parallel.strategy import Strategy
from drivetrain.snapshot.copying import Copying
from drivetrain.snapshot.keys import Key
from drivetrain.snapshot.log import Rows
from drivetrain.snapshot.parts import held_by, shared_out
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
        self._known: tuple[object, ...] = ()
        """Of what the next four are."""
        self._given: Gradients = ()
        self._keys: tuple[Key, ...] = ()
        self._views: list[torch.Tensor] = []
        self._plain = False
        self._come_and_go = False
        """Gradients are others in each step: what is known of the last ones would keep their memory."""
        self._buffers: list[torch.Tensor] = []
        """To copy into: what the log has done with."""
        self._read: list[torch.Tensor] = []
        """What is copied while the optimizer has it."""
        self._versions: list[int] = []

    def take(self, record: Record, rank: int, world: int, epoch: object) -> tuple[tuple[Key, ...], torch.Tensor]:
        """This rank's slice of the dense gradients there are: keys, and memory that they will be in, one after another.
        The gradients stay as they are until `taken`, but for what the optimizer does."""
        keys, views = self._views_of(record, rank, world, epoch)
        buffer = self._buffer(views)
        in_front = self.used_up or _has_hooks(self._strategy.optimizer) or not self._plain
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
        if self._come_and_go:
            self._known, self._given, self._views = (), (), []
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

    def _views_of(
        self, record: Record, rank: int, world: int, epoch: object
    ) -> tuple[tuple[Key, ...], list[torch.Tensor]]:
        """Of gradients: they are mostly the tensors that they were in the step before."""
        given, known = record.gradients, (rank, world, epoch, self._strategy.trained.digest)
        if known == self._known and len(given) == len(self._given) and all(map(operator.is_, given, self._given)):
            return self._keys, self._views
        self._come_and_go |= known == self._known and len(given) == len(self._given)
        used = [each is not None and not each.is_sparse for each in given]
        held = held_by(self._strategy, rank, world)
        ranges = shared_out([each for each in held if each.place >= 0 and used[each.place]])
        self._known, self._given, self._keys = known, given, tuple(each.key for each in ranges)
        self._views = [each.of(_given(given[each.held.place])) for each in ranges]
        self._plain = _are_plain(self._views, torch.bfloat16 if self._rounded else None)
        return self._keys, self._views

    def _buffer(self, views: list[torch.Tensor]) -> torch.Tensor:
        size = sum(each.numel() for each in views)
        dtype = torch.bfloat16 if self._rounded else _widest(views)
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


def _widest(views: list[torch.Tensor]) -> torch.dtype:
    """The type that keeps the bits of all of them."""
    return functools.reduce(torch.promote_types, {each.dtype for each in views}) if views else torch.float32


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """The script's, before or after an update: they may do anything to gradients. (Ours looks at whose step it is.)"""
    own = each_of(optimizer).values()
    hooks = (
        *(hook for each in own for hook in each._optimizer_step_pre_hooks.values()),
        *(hook for each in own for hook in each._optimizer_step_post_hooks.values()),
        *torch_optimizer._global_optimizer_pre_hooks.values(),
        *torch_optimizer._global_optimizer_post_hooks.values(),
    )
    return any(each.__module__ != only_update.__name__ for each in hooks)


def _are_plain(views: list[torch.Tensor], dtype: torch.dtype | None) -> bool:
    """Whether their bytes are those to be written, or half of them. `dtype`: what they become; None: what they are."""
    return all(
        each.device.type == "cpu"
        and each.is_contiguous()
        and (each.dtype == (dtype or views[0].dtype) or (each.dtype is torch.float32 and dtype is torch.bfloat16))
        for each in views
    )


def _copy(views: list[torch.Tensor], buffer: torch.Tensor) -> None:
    """Their bytes, or of float32 what bfloat16 has of it."""
    if torch.get_num_threads() == 1 and views and views[0].dtype == buffer.dtype:
        torch.cat(views, out=buffer)  # at once, so that the trainer need not wait for the interpreter's lock
        return
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
    if views and all(each.dtype == buffer.dtype for each in views) and views[0].device == buffer.device:
        torch.cat(views, out=buffer)
        return
    for each in views:
        buffer[at : at + each.numel()].copy_(each)
        at += each.numel()


def _given(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient
