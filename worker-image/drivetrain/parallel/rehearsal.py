"""A spare runs the script's forward and backward before it is needed, so that its first step is no slower than others.

It runs what a rank of the expected world would really get: that many samples, cut into the same micro-batches. Nothing
is left of it, in the model or in what the script registered. And nothing follows from its failure but that this process
is not warm: what is wrong with the script comes again in a real step, where it has a place and all ranks hear of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch

from drivetrain import rng, say
from drivetrain.closing import text_of
from drivetrain.data.batch import Batch
from drivetrain.digest import digest_of_skeleton
from drivetrain.parallel.loss import Forward, returned
from drivetrain.parallel.strategy import Strategy
from drivetrain.state import Stateful, flatten
from drivetrain.stranded import ends_the_process
from drivetrain.undisturbed import undisturbed

_STEP: Final = 0
_TIMES: Final = 3
"""More than once, because the allocator keeps memory only after it has been freed for the first time."""
_TEXT: Final = 300


def _run(strategy: Strategy, world: int, forward: Sequence[Forward]) -> None:
    """Forward and backward of the largest micro-batch of the largest share."""
    share = strategy.shares.largest(max(1, world // strategy.division.row))
    with ExitStack() as after:
        after.callback(strategy.exchange.abandon)  # what it began must not be found by a step
        strategy.exchange.begin(None, _STEP)
        strategy.exchange.warm_up(world)
        after.enter_context(undisturbed(strategy.model))
        for _ in range(_TIMES):
            for parameter in strategy.model.parameters():
                parameter.grad = None
            samples = strategy.source.read(_STEP, share.parts[-1])
            rng.seed(strategy.training.seed, _STEP, 0, 0)
            for each in forward:
                returned(each(strategy.model, samples), 1, "forward:").value.backward()


def rehearse(
    batch: Batch,
    strategy: Strategy,
    world: int,
    forward: Sequence[Forward],
    registered: Sequence[Stateful],
) -> None:
    """Warm up, before this process is a member of a job of `world` ranks. What is `registered` by the script is as
    before, too, if forward changes it. Says in one line if it failed."""
    batch.rehearsing = True
    try:
        with _kept(registered):
            _run(strategy, world, forward)
    except BaseException as error:
        if ends_the_process(error):
            raise
        text = " ".join(f"{type(error).__name__}: {text_of(error)}".split())[:_TEXT]
        say.note(f"not warm: the rehearsal of a step failed: {text}", level="warning")
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
