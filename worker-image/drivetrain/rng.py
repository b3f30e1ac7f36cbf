"""Which random numbers does a forward pass see? Those of (seed, step, stream), whoever computes it and how often.

So a step that is tried again draws the same dropout masks, and in deterministic mode a shard's numbers do not depend
on the rank that computes it. What the script draws outside of `run.step` is left alone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from drivetrain.data.order import mix


@contextmanager
def stream(seed: int, step: int, number: int) -> Iterator[None]:
    """Seed torch, `random` and numpy (where it is loaded) inside the block, and put their states back after it."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    key = mix(seed, step, number)
    on_cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        # Not torch.manual_seed: for every kind of device that is not there it notes a traceback, 1 ms in all.
        torch.default_generator.manual_seed(key)
        if on_cuda:
            torch.cuda.manual_seed_all(key)
        random.seed(key)
        if numpy:
            numpy.random.seed(key & 0xFFFFFFFF)
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy:
                numpy.random.set_state(numpy_state)
