"""Which samples make up step k? A pure function of (seed, step): no state, no memory, the same on every rank.

Steps draw from an endless sequence of passes; each pass visits every sample of the dataset exactly once, in an order of
its own. The order is a Feistel network over the index (Luby & Rackoff 1988) with cycle walking (Black & Rogaway 2002),
so a step costs time in proportion to its batch, not to the dataset, and needs no shuffled index in memory.
"""

from collections.abc import Callable
from typing import Any, Final

import torch

InOrder = Callable[[torch.Tensor, int, int, int], torch.Tensor]
"""(positions in a pass, number of the pass, seed, batch) to indices: see `MapDataset`."""

_ROUNDS: Final = 4
_MASK32: Final = 0xFFFFFFFF


def mix(*values: int) -> int:
    """Hash integers into 63 bits (splitmix64's finaliser, Steele et al. 2014): seeds for independent streams."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & 0x7FFFFFFFFFFFFFFF


def _round(value: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    value = (value ^ key) & _MASK32
    value = (value ^ (value >> 16)) * 0x45D9F3B & _MASK32
    value = (value ^ (value >> 16)) * 0x45D9F3B & _MASK32
    return value ^ (value >> 16)


def permute(index: torch.Tensor, size: int, key: int) -> torch.Tensor:
    """Map int64 indices in [0, size) to [0, size), one to one, in an order that `key` chooses."""
    sizes, keys = torch.tensor([size]), torch.tensor([[mix(key, number) & _MASK32 for number in range(_ROUNDS)]])
    return _walk(index, sizes.expand(len(index)), keys.expand(len(index), -1))


def permute_groups(index: torch.Tensor, group: torch.Tensor, sizes: torch.Tensor, keys: list[int]) -> torch.Tensor:
    """Many at once: index[i] is one of group[i], which has sizes[group[i]] and keys[group[i]]. Each as `permute`."""
    rounds = torch.tensor([[mix(key, number) & _MASK32 for number in range(_ROUNDS)] for key in keys])
    return _walk(index, sizes[group], rounds[group])


def _walk(index: torch.Tensor, size: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """`size`: shape of index; `keys`: another dimension for the rounds."""
    result = index.clone()
    # The network permutes [0, 4**half); walking until the value is inside keeps it one to one (< 4 tries on average).
    bit_length = torch.frexp((size - 1).double()).exponent.long()
    half = ((bit_length + 1) // 2).clamp(min=1)
    outside = torch.arange(len(index))
    while len(outside):
        bits, chosen = half[outside], keys[outside]
        mask = (1 << bits) - 1
        left, right = result[outside] >> bits, result[outside] & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_round(right, chosen[:, number]) & mask)
        found = (left << bits) | right
        result[outside] = found
        outside = outside[found >= size[outside]]
    return result


def in_order_of(dataset: Any) -> InOrder:
    """The dataset's own order, or a uniform shuffle of every pass."""
    size = len(dataset)
    order: InOrder | None = getattr(dataset, "in_order", None)
    return order or (lambda positions, number, seed, batch: permute(positions, size, mix(seed, 0xDA7A, number)))


def samples_of_step(step: int, batch: int, size: int, seed: int) -> torch.Tensor:
    """Indices of the `batch` samples of a step, int64, shape (batch,). Over a pass every index occurs exactly once."""
    return samples_of_steps(range(step, step + 1), batch, size, seed, in_order_of(range(size)))[0]


def samples_of_steps(steps: range, batch: int, size: int, seed: int, order: InOrder) -> torch.Tensor:
    """The same for consecutive steps at once, shape (len(steps), batch): many cost little more than one."""
    position = torch.arange(steps.start * batch, steps.stop * batch, dtype=torch.int64)
    number = position // size
    result = torch.empty_like(position)
    for each in range(int(number[0]), int(number[-1]) + 1):
        chosen = number == each
        result[chosen] = order(position[chosen] % size, each, seed, batch)
    return result.view(len(steps), batch)


def share(total: int, parts: int, part: int) -> range:
    """The contiguous share of `part` when `total` things are spread over `parts` as evenly as possible."""
    return range(part * total // parts, (part + 1) * total // parts)


def parts_of(whole: range, count: int) -> list[range]:
    """Cut positions into at most `count` non-empty consecutive parts."""
    cut = [share(len(whole), count, each) for each in range(count)]
    return [range(whole.start + each.start, whole.start + each.stop) for each in cut if len(each)]
