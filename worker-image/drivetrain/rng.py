"""Which random numbers does a forward pass see? Those of (seed, step, stream), whoever computes it and how often.

So a step that is tried again draws the same dropout masks, and in deterministic mode a shard's numbers do not depend
on the rank that computes it. What the script draws outside of `run.step` is left alone. Reading a sample draws from
numbers of its own, so that it makes no difference where and when it is read.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from drivetrain.data.order import mix


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
    on_cuda = torch.cuda.is_initialized()
    states = _states()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        seed(*numbers)
        try:
            yield
        finally:
            _restore(states)


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
    if numpy and of_numpy is not None:
        numpy.random.set_state(of_numpy)
