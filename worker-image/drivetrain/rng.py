"""Which random numbers does a forward pass see? Those of (seed, step, stream), whoever computes it and how often.

So a step that is tried again draws the same dropout masks, and in deterministic mode a shard's numbers do not depend
on the rank that computes it. What the script draws outside of `run.step` is left alone. Reading a sample draws from
numbers of its own, so that it makes no difference where and when it is read.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch

from drivetrain.data.order import mix

_spare: Final[list[Any]] = []
"""Generators of numpy that nobody uses now."""


def seed(*numbers: int, cuda: bool = True) -> None:
    """Seed torch, `random` and numpy (where it is loaded)."""
    numpy = sys.modules.get("numpy")
    key = mix(*numbers)
    # Not torch.manual_seed: for every kind of device that is not there it notes a traceback, 1 ms in all.
    torch.default_generator.manual_seed(key)
    if cuda and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)
    random.seed(key)
    if numpy:
        numpy.random.seed(key & 0xFFFFFFFF)


@contextmanager
def stream(*numbers: int) -> Iterator[None]:
    """Seed them inside the block, and put their states back after it."""
    with apart():
        seed(*numbers)
        yield


@contextmanager
def apart() -> Iterator[None]:
    """Put their states back after the block, which must `seed` them before it draws.

    numpy makes normal numbers in pairs: what is left of one that was begun outside is dropped, because asking for it
    takes longer than all the rest.
    """
    of_torch, of_python = torch.default_generator.get_state(), random.getstate()
    numpy, generator = sys.modules.get("numpy"), None
    if numpy:
        # Another generator for a while: that is sooner done than setting the state of this one.
        generator = numpy.random.get_bit_generator()
        numpy.random.set_bit_generator(_spare.pop() if _spare else numpy.random.MT19937())
    with torch.random.fork_rng(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else nullcontext():
        try:
            yield
        finally:
            if numpy:
                _spare.append(numpy.random.get_bit_generator())
                numpy.random.set_bit_generator(generator)
            torch.default_generator.set_state(of_torch)
            random.setstate(of_python)


@contextmanager
def untouched() -> Iterator[None]:
    """Put their states back after the block, to the last bit. It takes 0.1 ms more than `apart`."""
    outside = _states()
    with torch.random.fork_rng(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else nullcontext():
        try:
            yield
        finally:
            _restore(outside)


class Carried:
    """Numbers that go on where they were left, in block after block: for what is produced bit by bit. CPU only.

    What is inside must `seed` them first.
    """

    def __init__(self) -> None:
        self._inside: tuple[Any, ...] | None = None

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Use them inside the block, and put the states outside back after it."""
        outside = _states()
        if self._inside is not None:
            _restore(self._inside)
        try:
            yield
        finally:
            self._inside = _states()
            _restore(outside)


def _states() -> tuple[Any, ...]:
    numpy = sys.modules.get("numpy")
    return torch.default_generator.get_state(), random.getstate(), numpy.random.get_state() if numpy else None


def _restore(states: tuple[Any, ...]) -> None:
    of_torch, of_python, of_numpy = states
    torch.default_generator.set_state(of_torch)
    random.setstate(of_python)
    numpy = sys.modules.get("numpy")
    if numpy and of_numpy is not None:  # else numpy has been loaded since
        numpy.random.set_state(of_numpy)
