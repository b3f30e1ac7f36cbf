"""Does the script change parameters between the steps? Then gradients alone do not say what they become.

torch counts what is done to a tensor in place, but not what is done through `.data`. So beside the counts a part of the
numbers is added up after each step and once more before the next: another part each time, all of them in some steps.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import torch

from drivetrain.memory_format import flat_in, order_of

_PARTS: Final = 32
_SMALL: Final = 4096
"""Elements; of so few all are added up each time."""
_WORDS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Watch:
    """Over the parameters that a rank has."""

    def __init__(self) -> None:
        self._tensors: Sequence[torch.Tensor] = ()
        self._versions: list[int] = []
        self._sum = 0
        self._step = -1
        self._views: _Views | None = None

    def after(self, step: int, tensors: Sequence[torch.Tensor]) -> None:
        """A step has been applied: this is how they are. Some may be among them twice."""
        self._tensors, self._step = list({id(each): each for each in tensors}.values()), step
        self.again()

    def again(self) -> None:
        """This is how they are now, and that is right."""
        if self._views is None or not self._views.are_of(self._tensors):
            self._views = _Views(self._tensors)
        self._versions = [each._version for each in self._tensors]
        self._sum = self._views.added_up(self._step)

    def changed(self) -> bool:
        """Whether something has happened to them since."""
        views = self._views
        if not self._tensors or views is None:
            return False
        return (
            [each._version for each in self._tensors] != self._versions
            or not views.are_of(self._tensors)
            or views.added_up(self._step) != self._sum
        )

    def are(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the ones that are looked at."""
        return list(map(id, tensors)) == list(map(id, self._tensors)) or not self._tensors

    def forget(self) -> None:
        """Others will be looked at."""
        self._tensors, self._views = (), None


class States:
    """Does the script change what the optimizer keeps? By counts of torch, and by who they are."""

    def __init__(self) -> None:
        self._values: list[Any] | None = None
        """Themselves, so that no others get their ids."""
        self._ids: list[int] = []
        self._tensors: list[torch.Tensor] = []
        self._versions: list[int] = []

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """This is how they are now, and that is right."""
        values = _values_of(optimizer)
        ids = list(map(id, values))
        if self._values is None or ids != self._ids:
            self._values, self._ids = values, ids
            self._tensors = [each for each in values if isinstance(each, torch.Tensor)]
        self._versions = list(map(_version, self._tensors))

    def changed(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether something has happened to them since."""
        if self._values is None:
            return False
        return list(map(id, _values_of(optimizer))) != self._ids or list(map(_version, self._tensors)) != self._versions

    def forget(self) -> None:
        """Others will be looked at."""
        self._values = None


_version = operator.attrgetter("_version")


def _values_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    found: list[Any] = []
    for key, state in optimizer.state.items():
        if isinstance(key, torch.Tensor):
            found += state.values()
    return found


class _Views:
    """Their memory as whole numbers: to add up without looking at each of them in each step."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._where = _where(tensors)
        self._parts: list[list[torch.Tensor]] = [[] for _ in range(_PARTS)]
        small: dict[torch.dtype, list[torch.Tensor]] = {}
        self._odd: list[torch.Tensor] = []
        """With gaps in memory: there is no view of them."""
        large: list[torch.Tensor] = []
        for each in tensors:
            flat = _words(each)
            if flat.numel() == 0:
                continue
            if flat.data_ptr() != each.data_ptr():
                self._odd.append(each)
            elif flat.numel() <= _SMALL:
                small.setdefault(flat.dtype, []).append(flat)
            else:
                large.append(flat)
        self._small = list(small.values())
        total, at = sum(each.numel() for each in large), 0
        for flat in large:
            for number, part in enumerate(self._parts):
                first, last = (total * (number + more) // _PARTS - at for more in (0, 1))
                if (piece := flat[max(first, 0) : max(last, 0)]).numel():
                    part.append(piece)
            at += flat.numel()

    def are_of(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether their memory is still where it was."""
        return _where(tensors) == self._where

    def added_up(self, step: int) -> int:
        """Of all small ones, and of a part of the others, which is another one in each step."""
        found = sum(int(torch.cat(each).sum()) for each in self._small)
        found += sum(int(each.sum()) for each in self._parts[step % _PARTS])
        return found + sum(int(_words(each).sum()) for each in self._odd)


def _where(tensors: Sequence[torch.Tensor]) -> list[int]:
    return [each.data_ptr() for each in tensors]


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """A view where that is possible."""
    flat = flat_in(order_of(tensor), tensor.detach())
    size = flat.element_size()
    flat = torch.view_as_real(flat).view(-1) if flat.is_complex() else flat
    return flat.view(_WORDS[min(size, flat.element_size())])
