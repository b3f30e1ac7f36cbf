"""What a pipeline schedule consists of."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """A part of the work on one micro-batch."""

    FORWARD = "F"
    BACKWARD = "B"
    """The gradients of input and parameters; if the list has `WEIGHT`s, of the input only."""
    WEIGHT = "W"
    """The gradients of the parameters."""


class Action(NamedTuple):
    """One piece of work of a stage. Its input is waited for, its output is sent on."""

    kind: Kind
    chunk: int
    """Which of the stage's chunks of blocks, from 0: that is chunk `chunk * stages + stage` of the model."""
    microbatch: int

    def __repr__(self) -> str:
        return f"{self.kind.value}{self.microbatch}" + (f"c{self.chunk}" if self.chunk else "")


class Shape(NamedTuple):
    """Of a pipeline."""

    stages: int
    chunks: int
    """Of each stage."""
    microbatches: int


Schedule = Callable[[Shape, int], list[Action]]
"""What stage number `int` does in a step, in order. A pure function: each stage computes its own list.

Every chunk must see every micro-batch once forward and once backward; all stages together must never wait in a circle,
given that nobody waits for what it sent to arrive. Micro-batches must begin forward in their order.
"""
