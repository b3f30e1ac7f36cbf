"""A spare runs the script's forward and backward before it is needed, so that its first step is no slower than others.

It runs what a rank of the expected world would really get: that many samples, cut into the same micro-batches. Nothing
is left of it, in the model or in what the script registered. And nothing follows from its failure but that this process
is not warm: what is wrong with the script comes again in a real step, where it has a place and all ranks hear of it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import nn

from drivetrain import rng
from drivetrain.comm.ordered import OrderedSum
from drivetrain.data.batch import Batch
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import Source
from drivetrain.digest import digest_of_skeleton
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.settings import Settings
from drivetrain.state import Stateful, flatten
from drivetrain.undisturbed import undisturbed

_STEP: Final = 0
_TIMES: Final = 3
"""More than once, because the allocator keeps memory only after it has been freed for the first time."""
_TEXT: Final = 300


class _Exchange(Protocol):
    def begin(self, transport: None, step: int) -> None: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What is run."""

    model: nn.Module
    source: Source
    settings: Settings
    forward: Forward
    row: int
    """Ranks that share a replica of the model."""
    exchange: _Exchange | None
    ordered: OrderedSum | None

    @property
    def part(self) -> range:
        """The largest micro-batch of the largest share, in the world that the job asked for."""
        training, batch = self.settings.training, self.source.batch
        world = max(1, self.settings.expected_world // self.row)
        cut = training.virtual_shards if training.deterministic else world
        return parts_of(share(batch, cut, cut - 1), training.microbatches)[-1]

    def run(self) -> None:
        """Forward and backward."""
        with ExitStack() as after:
            if self.exchange is not None:
                after.callback(self.exchange.abandon)  # what it began must not be found by a step
                self.exchange.begin(None, _STEP)
            if self.ordered is not None:
                self.ordered.warm_up(self.settings.expected_world)
            after.enter_context(undisturbed(self.model))
            for _ in range(_TIMES):
                for parameter in self.model.parameters():
                    parameter.grad = None
                samples = self.source.read(_STEP, self.part)
                rng.seed(self.settings.training.seed, _STEP, 0, 0)
                loss = self.forward(self.model, samples)
                (loss.sum if isinstance(loss, Loss) else loss).backward()


def rehearse(batch: Batch, rehearsal: Rehearsal, registered: Sequence[Stateful]) -> None:
    """Warm up, before this process is a member. `registered` by the script is as before, too, if forward changes it.

    Says in one line if it failed.
    """
    batch.rehearsing = True
    try:
        with _kept(registered):
            rehearsal.run()
    except Exception as error:  # noqa: BLE001  Of the script's, whatever it is: see above.
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_TEXT]
        print(f"drivetrain: not warm: the rehearsal of a step failed: {text}", file=sys.stderr, flush=True)
    finally:
        batch.rehearsing = False


@contextmanager
def _kept(registered: Sequence[Stateful]) -> Iterator[None]:
    before = [copy.deepcopy(part.state_dict()) for part in registered]
    try:
        yield
    finally:
        for part, state in zip(registered, before, strict=True):
            if not _equal(part.state_dict(), state):
                part.load_state_dict(state)


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Not by a digest of all bits: a moving average is as large as a model."""
    if digest_of_skeleton(one) != digest_of_skeleton(other):
        return False
    return all(torch.equal(mine, theirs) for mine, theirs in zip(flatten(one)[1], flatten(other)[1], strict=True))
