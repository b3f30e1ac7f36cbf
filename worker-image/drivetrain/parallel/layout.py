"""Where does each gradient lie in the flat vector that ranks exchange, and what else travels with it?

The vector is all dense gradients, in reverse order of registration because backward produces them so (or block by
block, the last one first), then a tail: a few numbers that every step must share anyway (the weight of the samples, the
loss, a pending membership change, which parameters were used, batch-norm statistics). They cost no message of their
own. A gradient's elements are in the order in which its parameter's lie in memory. The layout is a pure function of the
model and of what the optimizer updates, so that a newcomer's equals a survivor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from drivetrain.comm.sparse import sparse_parameters
from drivetrain.errors import UsageError
from drivetrain.memory_format import flat_in, order_of, shaped_in
from drivetrain.parallel.blocks import Block

FLAG: Final = 0
"""Above 0: a membership change is pending; all members see it in the same step."""
WEIGHT: Final = 1
LOSS: Final = 2
NORMALISE: Final = 3
"""Above 0: the script returned so many times `Loss(sum, weight)`; divide by the total weight."""
DIRTY: Final = 4
"""Above 0: buffers other than normalisation statistics changed in forward."""
STREAM: Final = 5
"""Sum of the marks of an iterable dataset (see data/source.py), and of how many: all must be equal."""
STREAMS: Final = 6
ERROR: Final = 7
"""Above 0: so many ranks have failed; nothing else of the step means anything."""
MEANS: Final = 8
"""So many times a scalar; not in the same step."""
NAMES: Final = 9
"""Above 0: so many ranks have metrics whose names have no slots yet (see metrics.py)."""
METRIC_SLOTS: Final = 16
METRICS: Final = 10
"""Weighted sums by slot, then by slot how many shares have it at all."""
NUMBERS: Final = METRICS + 2 * METRIC_SLOTS
"""How many of the tail are single numbers, at its beginning."""

_TYPES: Final = frozenset({torch.float32, torch.bfloat16, torch.float64})


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter's place: elements [start, stop) of the flat vector."""

    parameter: nn.Parameter
    start: int
    stop: int
    index: int
    order: tuple[int, ...] | None = None
    """Of its dimensions in memory, if not torch's usual one."""
    converted: bool = False
    """The vector is of another type than the parameter, and so than its gradient."""

    def flat(self, gradient: torch.Tensor) -> torch.Tensor:
        """A tensor of the parameter's shape as it lies in the vector, shape (stop - start,)."""
        return flat_in(self.order, gradient)

    def gradient(self, summed: torch.Tensor) -> torch.Tensor:
        """What the parameter gets of a view of the vector: itself, or a copy of its own type."""
        return summed.to(self.parameter.dtype) if self.converted else summed

    def shaped(self, flat: torch.Tensor, shape: torch.Size | None = None) -> torch.Tensor:
        """The inverse: a view of the parameter's shape, and of its strides. `shape`: if it has no elements now."""
        return shaped_in(self.order, flat, self.parameter.shape if shape is None else shape)


class Layout:
    """The flat vector of one model. All sizes in elements of `dtype`."""

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[Block] = (),
        divided: Mapping[nn.Parameter, int] | None = None,
        trained: Sequence[nn.Parameter] | None = None,
        statistics: int = 0,
    ) -> None:
        """`blocks`: all that the model consists of, if the vector is to have them one after the other. `divided`:
        parameters of which each rank will have one of so many parts. `trained`: whose gradients they are, in the
        model's order; None: of all that require one.
        `statistics`: how many numbers of normalisation layers travel in the tail."""
        parameters = list(trained if trained is not None else (e for e in model.parameters() if e.requires_grad))
        self.dtype, self.device = _type_and_device(parameters)
        self.converts = [each for each in parameters if each.dtype != self.dtype]
        """Parameters whose gradients are of another type than the vector."""
        for name, module in model.named_modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
                raise UsageError(
                    f"prepare(model=...): {name or 'the model'} has max_norm, so its forward changes parameters, "
                    "on each rank others; clip them in an optimizer instead"
                )
        wanted = {id(each) for each in parameters}
        self.sparse = [each for each in sparse_parameters(model) if id(each) in wanted]
        """Their gradients are no part of the vector: see comm/sparse.py."""
        wanted -= {id(each) for each in self.sparse}
        groups = [block.parameters for block in blocks] or [tuple(parameters)]
        ordered = [each for group in reversed(groups) for each in reversed(group) if id(each) in wanted]
        self.slots: list[Slot] = []
        start = 0
        for index, parameter in enumerate(ordered):
            size = parameter.numel() // (divided or {}).get(parameter, 1)
            converted = parameter.dtype != self.dtype
            self.slots.append(Slot(parameter, start, start + size, index, order_of(parameter), converted))
            start += size
        self.gradients = start
        self.model = model
        self._used = NUMBERS
        self._statistics = NUMBERS + len(self.slots)
        self.tail = self._statistics + statistics
        self.total = self.gradients + self.tail

    def cut(self, bucket_bytes: int) -> list[list[Slot]]:
        """Consecutive slots in buckets of at most so many bytes; a larger parameter is one of its own."""
        limit = max(1, bucket_bytes // self.dtype.itemsize)
        buckets: list[list[Slot]] = [[]]
        for slot in self.slots:
            if buckets[-1] and slot.stop - buckets[-1][0].start > limit:
                buckets.append([])
            buckets[-1].append(slot)
        return buckets

    def by_block(self, blocks: Sequence[Block]) -> list[list[Slot]]:
        """The slots of each block, in the order of the vector: the last block first."""
        block_of = {id(each): number for number, block in enumerate(blocks) for each in block.parameters}
        buckets: list[list[Slot]] = [[] for _ in blocks]
        for slot in self.slots:
            buckets[len(blocks) - 1 - block_of[id(slot.parameter)]].append(slot)
        return buckets

    def write_used(self, tail: torch.Tensor, used: list[int]) -> None:
        """Mark which parameters (by slot index) got a gradient here."""
        if len(used) == len(self.slots):
            tail[self._used : self._statistics] = 1.0
        elif used:
            tail[torch.tensor(used) + self._used] = 1.0

    def read_used(self, tail: torch.Tensor) -> list[bool]:
        """Which parameters got a gradient anywhere, by slot index."""
        flags: list[bool] = (tail[self._used : self._statistics] > 0).tolist()
        return flags

    def statistics(self, tail: torch.Tensor) -> torch.Tensor:
        """The numbers of normalisation layers in a tail."""
        return tail[self._statistics :]


def _type_and_device(parameters: Sequence[nn.Parameter]) -> tuple[torch.dtype, torch.device]:
    """Of a vector for the gradients of all these: of a type in which sums of many ranks keep their bits, and which all
    others can be converted to and back. Raises `UsageError`."""
    kinds = {(each.dtype, each.device) for each in parameters}
    types = {dtype for dtype, _ in kinds}
    if not types <= _TYPES or len({device for _, device in kinds}) != 1:
        hint = "; float16 is what training.precision.compute is for" if torch.float16 in types else ""
        raise UsageError(
            "prepare(model=...): trainable parameters must be float32, bfloat16 or float64, all on one device; "
            f"found {sorted(str(dtype) + ' on ' + str(device) for dtype, device in kinds)}{hint}"
        )
    return torch.float64 if torch.float64 in types else torch.float32, next(iter(kinds))[1]
