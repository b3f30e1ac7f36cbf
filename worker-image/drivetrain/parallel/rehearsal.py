"""How does a spare warm up? It runs forward and backward on a few samples and forgets the result."""

from __future__ import annotations

from typing import Final

from drivetrain import rng
from drivetrain.parallel.loss import Forward, Loss
from drivetrain.parallel.strategy import Strategy

_REHEARSALS: Final = 3
"""More than one, because the allocator keeps memory only after it has been freed for the first time."""


def rehearse(strategy: Strategy, world: int, forward: Forward) -> None:
    """Run the first step's first samples. `world`: of how many ranks the job will be."""
    training, batch = strategy.training, strategy.source.batch
    strategy.exchange.begin(None, 0)
    strategy.exchange.warm_up(world)
    part = range(max(1, batch // max(1, training.virtual_shards)))
    with strategy.buffers.untouched():
        for _ in range(_REHEARSALS):
            with rng.stream(training.seed, 0, 0):
                loss = forward(strategy.model, strategy.source.read(0, part))
                (loss.sum if isinstance(loss, Loss) else loss).backward()
            for parameter in strategy.model.parameters():
                parameter.grad = None
