"""Do ranks that should hold the same state hold the same bits? Every so many steps each tells a sum of its own.

The sums travel with what ranks tell each other at the beginning of a step anyway (identity.py), so a comparison costs a
pass over memory and no message. Whoever differs takes the state of one that is right, as newcomers do, before anything
of the step is computed; nobody else notices. This file says what is compared and who is right; healing.py acts on it.
"""

from __future__ import annotations

import hashlib
import platform
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from drivetrain.device import is_here
from drivetrain.memory_format import dense_part, order_of
from drivetrain.outline import is_hidden
from drivetrain.state import as_bytes

_TOLD: Final = struct.Struct("<qI")
TOLD_BYTES: Final = _TOLD.size
NOTHING: Final = bytes(TOLD_BYTES)
"""Of an operation that is not compared."""
_WORD: Final = 8
PARAMETER: Final = "parameter "
BUFFER: Final = "buffer "
OPTIMIZER: Final = "optimizer "
"""With which the names of what is compared begin."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the sums of all ranks come to, if they are not all the same."""

    right: int
    """The rank whose state is taken."""
    wrong: tuple[int, ...]
    """Ranks that take it."""
    known: bool
    """More ranks agree with `right` than with each other: else nothing says which of them is right."""


def judge(told: Sequence[bytes]) -> Difference | None:
    """By rank. None if all are alike, or are not to be compared: where a machine differs, bits may."""
    found = [_TOLD.unpack(each) for each in told]
    if len({kind for _, kind in found}) > 1 or found[0][1] == 0:
        return None
    groups: dict[int, list[int]] = defaultdict(list)
    for rank, (total, _) in enumerate(found):
        groups[total].append(rank)
    if len(groups) == 1:
        return None
    largest = max(groups.values(), key=lambda ranks: (len(ranks), -ranks[0]))
    rivals = sum(len(ranks) == len(largest) for ranks in groups.values())
    wrong = tuple(rank for rank in range(len(found)) if rank not in largest)
    return Difference(largest[0], wrong, known=rivals == 1)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one rank's state."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    """One of each tensor's bits. Any single bit that is another one changes it."""
    kind: int
    """32 bits, not 0, that tell other names, shapes, orders in memory and kinds of machine apart."""

    @classmethod
    def of(cls, tensors: Iterator[tuple[str, torch.Tensor]]) -> Sums:
        """A pass over their memory."""
        named = list(tensors)
        described = [(name, tuple(each.shape), order_of(dense_part(each)), str(each.dtype)) for name, each in named]
        kind = zlib.crc32(repr((_machine(), described)).encode()) or 1
        return cls(tuple(name for name, _ in named), tuple(_added_up([each for _, each in named])), kind)

    def told(self) -> bytes:
        """For the other ranks."""
        packed = struct.pack(f"<{len(self.values)}q", *self.values)
        total = int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little", signed=True)
        return _TOLD.pack(total, self.kind)


def compared(model: nn.Module, optimizer: torch.optim.Optimizer, *, whole: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """What replicas have alike: parameters, persistent buffers (others are caches, of which each may have its own),
    and, if the state is `whole`, the optimizer's tensors."""
    for name, parameter in model.named_parameters():
        yield PARAMETER + name, parameter.detach()
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not is_hidden(module, name):
                yield f"{BUFFER}{path}.{name}" if path else BUFFER + name, buffer
    if not whole:
        return
    names = {each: name for name, each in model.named_parameters()}
    for group in optimizer.param_groups:
        for each in group["params"]:
            for key, value in optimizer.state.get(each, {}).items():
                if isinstance(value, torch.Tensor) and not value.is_sparse:
                    yield f"{OPTIMIZER}{names.get(each, '?')} {key}", value


def differing(names: Sequence[str], right: Sequence[int], other: Sequence[int]) -> list[str]:
    """Names of the tensors whose sums differ."""
    return [name for name, one, two in zip(names, right, other, strict=True) if one != two]


def _added_up(tensors: Sequence[torch.Tensor]) -> Iterator[int]:
    """Of each its 8-byte words, wrapped around. One wait for each device, not for each tensor."""
    with torch.no_grad():
        sums = [_words(each).sum() for each in tensors]
        elsewhere = [each for each in sums if not is_here(each)]
        values = iter(torch.stack(elsewhere).tolist() if elsewhere else ())
        for each in sums:
            yield int(each) if is_here(each) else next(values)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """Its bits as int64, with zeros behind."""
    flat = as_bytes(tensor.resolve_conj().resolve_neg())
    size, start = flat.numel(), flat.storage_offset()
    if size % _WORD:
        padded = flat.new_zeros((size + _WORD - 1) // _WORD * _WORD)
        padded[:size].copy_(flat)
        flat = padded
    elif start % _WORD or flat.data_ptr() % _WORD:
        flat = flat.clone()
    return flat.view(torch.int64)


def _machine() -> tuple[object, ...]:
    """What may make other bits of the same numbers."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_initialized() else ""
    kernels = torch.backends.cpu.get_cpu_capability()
    return (torch.__version__, platform.machine(), kernels, torch.get_num_threads(), cuda)
