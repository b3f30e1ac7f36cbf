"""Does the script change parameters between the steps? Then gradients alone do not say what they become.

torch counts what is done to a tensor in place, but not what is done through `.data`. So beside the counts a part of the
numbers is added up after each step and once more before the next: another part each time, all of them in some steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

_PARTS: Final = 16
_SMALL: Final = 4096
"""Elements; of so few all are added up each time."""


class Watch:
    """Over the parameters that a rank has."""

    def __init__(self) -> None:
        self._tensors: Sequence[torch.Tensor] = ()
        self._versions: list[int] = []
        self._sum = 0
        self._step = -1

    def after(self, step: int, tensors: Sequence[torch.Tensor]) -> None:
        """A step has been applied: this is how they are."""
        self._tensors, self._step = tensors, step
        self.again()

    def again(self) -> None:
        """This is how they are now, and that is right."""
        self._versions = [each._version for each in self._tensors]
        self._sum = self._added_up()

    def changed(self) -> bool:
        """Whether something has happened to them since."""
        tensors = self._tensors
        if not tensors:
            return False
        return [each._version for each in tensors] != self._versions or self._added_up() != self._sum

    def are(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the ones that are looked at."""
        return list(map(id, tensors)) == list(map(id, self._tensors)) or not self._tensors

    def forget(self) -> None:
        """Others will be looked at."""
        self._tensors = ()

    def _added_up(self) -> int:
        part, found = self._step % _PARTS, 0
        for each in self._tensors:
            flat = each.detach()
            flat = flat.reshape(-1) if flat.is_contiguous() else flat.flatten()
            size = flat.numel()
            words = flat if size <= _SMALL else flat[size * part // _PARTS : size * (part + 1) // _PARTS]
            if words.numel():
                size = words.element_size()
                words = torch.view_as_real(words) if words.is_complex() else words
                found += int(words.view(_WORDS[min(size, words.element_size())]).sum())
        return found


_WORDS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
