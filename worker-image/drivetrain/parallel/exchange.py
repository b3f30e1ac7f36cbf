"""How do replicas come to one gradient? What every technique for it has to answer; each is a file of its own.

In a step: `begin`, then for each share of the batch its micro-batches and `collect`, then `finish`. On return `.grad`
of what the optimizer updates holds the sum over the global batch. Nothing here changes parameters: an attempt that is
interrupted leaves nothing but memory that must not be used again, which `abandon` gives up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from drivetrain.comm.arrivals import Arrivals
from drivetrain.comm.transport import Transport
from drivetrain.parallel.layout import Layout
from drivetrain.state import Stateful

TailOf = Callable[[list[int]], torch.Tensor]
"""Makes a share's tail (see layout.py) when told which slots got a gradient in it."""


class Exchange:
    """One technique, for one model. What it does not need is as here: nothing."""

    needs_all_alike = False
    """Whether the ranks talk while forward runs, so that all must run it equally often."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def begin(self, transport: Transport | None, step: int) -> None:
        """Start a step. None: one rank only."""
        raise NotImplementedError

    def begin_microbatch(self, *, last: bool) -> None:
        """Forward is about to be called; `last`: for the last time in this share."""

    def end_forward(self) -> None:
        """Backward is about to be called."""

    def end_backward(self) -> None:
        """It is over, for this micro-batch."""

    def end_share(self) -> None:
        """The last backward of a share is over, and went well."""

    def collect(self, tail_of: TailOf) -> None:
        """A share is computed."""
        raise NotImplementedError

    def finish(self) -> torch.Tensor:
        """Send what is left and wait for everything: the sum of all shares' tails, shape (layout.tail,). Raises
        `Interrupted`."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The membership ended in the middle of a step, or the attempt failed."""

    def close(self) -> None:
        """Another exchange takes over the model's gradients."""

    # --- what it leaves behind --------------------------------------------------------------------------------------

    @property
    def held(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """After `finish`: the model's parameters with dense gradients, each with what has its gradient here: itself, or
        this rank's piece of it."""
        return ((slot.parameter, slot.parameter) for slot in self.layout.slots)

    @property
    def copied(self) -> Sequence[torch.Tensor]:
        """After `finish`: gradients of another rank's part, of which this one has a copy."""
        return ()

    @property
    def rows(self) -> Sequence[nn.Parameter]:
        """Parameters with sparse gradients."""
        return ()

    @property
    def vectors(self) -> list[torch.Tensor] | None:
        """After `finish`: all dense gradients, and zeros, in few tensors; None if they lie one by one."""
        return None

    def sum_over_parts(self, mine: torch.Tensor) -> None:
        """Add up numbers of this rank's gradients, in place, if other ranks have the rest. Raises `Interrupted`."""

    # --- around a step ----------------------------------------------------------------------------------------------

    def updating(self) -> AbstractContextManager[None]:
        """Around the optimizer's step."""
        return contextlib.nullcontext()

    def committed(self, *, skipped: bool) -> None:
        """The update was made, or left out for an overflow."""

    def hand_over(self, transport: Transport) -> None:
        """Before members come or go, in their old group: give up what only this rank knows. Raises `Interrupted`."""

    def whole_parameters(self, transport: Transport | None) -> AbstractContextManager[None]:
        """All parameters are there meanwhile, on all ranks; all of them call this. Raises `Interrupted`."""
        return contextlib.nullcontext()

    def warm_up(self, world: int) -> None:
        """Take the memory that a step among so many ranks needs."""

    @property
    def states(self) -> Mapping[str, Stateful]:
        """What of it is part of the training state, by name."""
        return {}

    @property
    def chosen(self) -> tuple[str, str] | None:
        """What it chose by measuring, and why, if it had a choice."""
        return None


class DuringBackward(Exchange):
    """One that sends gradients while backward makes them. There is one share a rank."""

    arrivals: Arrivals

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._tail: torch.Tensor | None = None

    def begin_microbatch(self, *, last: bool) -> None:
        if last:
            self.arrivals.arm()

    def collect(self, tail_of: TailOf) -> None:
        self._tail = tail_of(self.arrivals.used).to(self.layout.device)

    def finish(self) -> torch.Tensor:
        assert self._tail is not None
        tail, self._tail = self._tail, None
        return self.finish_with(tail)

    def finish_with(self, tail: torch.Tensor) -> torch.Tensor:
        """As `finish`, with this rank's tail, shape (layout.tail,)."""
        raise NotImplementedError

    def close(self) -> None:
        self.arrivals.close()
