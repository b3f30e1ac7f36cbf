"""A spare runs the script's forward and backward before it is needed, so that its first step is no slower than others.

It runs what a rank of the expected world would really get: that many samples, cut into the same micro-batches. Nothing
is left of it, in the model or in what the script registered. And nothing follows from its failure but that this process
is not warm: what is wrong with the script comes again in a real step, where it has a place and all ranks hear of it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from torch import nn

from drivetrain import rng
from drivetrain.comm.ordered import OrderedSum
from drivetrain.data.batch import Batch
from drivetrain.data.order import parts_of, share
from drivetrain.data.source import Source
from drivetrain.digest import digest
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.settings import Settings
from drivetrain.state import Registry, Stateful
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


def rehearse(batch: Batch, rehearsal: Rehearsal, registry: Registry) -> None:
    """Warm up, before this process is a member. Says in one line if that failed."""
    batch.rehearsing = True
    try:
        with _kept(registry, rehearsal.model):
            rehearsal.run()
    except Exception as error:  # noqa: BLE001  Of the script's, whatever it is: see above.
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_TEXT]
        print(f"drivetrain: not warm: the rehearsal of a step failed: {text}", file=sys.stderr, flush=True)
    finally:
        batch.rehearsing = False


@contextmanager
def _kept(registry: Registry, model: nn.Module) -> Iterator[None]:
    """What else is registered is as before, also if forward changes it."""
    before: list[tuple[Stateful, dict[str, Any], str]] = []
    for part in registry.parts.values():
        if part is not model:
            state = part.state_dict()
            before.append((part, copy.deepcopy(state), digest(state)))
    try:
        yield
    finally:
        for part, state, was in before:
            if digest(part.state_dict()) != was:
                part.load_state_dict(state)
