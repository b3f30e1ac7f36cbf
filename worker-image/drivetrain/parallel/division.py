"""How is one replica of the model divided over ranks? What every way has to answer; `Whole` is that of no division.

A division knows which ranks have the same samples and which have the same part of the model, runs forward and backward
of a share through this rank's part, and brings what its ranks found out to one result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.data.shares import Share
from drivetrain.parallel.agreement import Reduced
from drivetrain.parallel.exchange import Exchange
from drivetrain.parallel.loss import Forward, Output
from drivetrain.parallel.mesh import Mesh, mesh_of
from drivetrain.parallel.norm import norm_of
from drivetrain.parallel.work import Work
from drivetrain.world.reunion import Sharded


@dataclass(frozen=True, slots=True)
class Place:
    """Where this rank is in a membership."""

    data: Transport | None
    """The ranks that have the same part of the model and other samples; None for one alone."""
    idle: bool = False
    """It has no part in steps until the membership changes."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What an evaluation asks of this rank."""

    parts: int
    """In how many parts pieces of data are shared out."""
    part: int | None
    """Which is this rank's; None: none."""
    counts: bool
    """Whether its sums do, or another rank has the same."""
    through: Callable[[Forward], Callable[[nn.Module, Any], Output | None]]
    """Makes a forward function one that can be called now: None where another rank has the result."""


WhileWhole = Callable[[int], None]
"""Called while each rank still has the whole model, and it is known in how many replicas a step will be cut."""


def as_it_is(forward: Forward) -> Forward:
    """For a `Seat` on which nothing is in the way."""
    return forward


class Division:
    """One way, for one model."""

    row = 1
    """Ranks that share a replica."""
    mesh: Mesh | None = None
    """Of the membership; None alone."""
    needs_all_alike = False
    """Whether ranks talk while forward runs, so that all must run it equally often."""

    def enter(self, transport: Transport | None, step: int, forward: Forward, whole: WhileWhole) -> Place:
        """Find this rank's place and call `whole`; if the membership begins with this step, keep then only this rank's
        part of the state. Raises `Interrupted`, or `UsageError` if there are too few ranks."""
        raise NotImplementedError

    def run(self, share: Share, exchange: Exchange, forward: Forward, step: int) -> None:
        """Forward and backward of all micro-batches of a share. Raises `Interrupted`."""
        raise NotImplementedError

    def complete(self, tail: torch.Tensor) -> None:
        """Put into the sum of the replicas' tails what other parts of the model know. Raises `Interrupted`."""

    def agree(
        self, reduced: Reduced, exchange: Exchange, used: Sequence[bool], change_pending: bool, *, needs_norm: bool
    ) -> Reduced:
        """What all ranks know: the same, with the gradient's norm if it is needed. `used`: by slot, whether any rank
        has a gradient. Raises `Interrupted`."""
        raise NotImplementedError

    def hear(self, change_pending: bool) -> Reduced:
        """The same on a rank that is idle. Raises `Interrupted`."""
        raise NotImplementedError

    def trains(self, parameters: list[nn.Parameter] | None, phase: int) -> None:
        """In this phase of a step backward makes gradients of these alone; None: of all."""
        raise NotImplementedError

    def of_script(self, forward: Forward) -> Forward:
        """The script's function, which must not use what is elsewhere."""
        return forward

    def abandon(self) -> None:
        """The attempt was interrupted, or it failed."""

    def sum_over_parts(self, parameters: Sequence[nn.Parameter], numbers: torch.Tensor) -> None:
        """Add up numbers of these parameters (its first dimension), in place, where ranks have other parts of them.
        Raises `Interrupted`."""

    @property
    def sharded(self) -> Sharded | None:
        """State of which each rank has but a part, because of this."""
        return None

    def evaluating(
        self, transport: Transport | None, live: Sequence[int], exchange: Exchange
    ) -> AbstractContextManager[Seat]:
        """The model can be called meanwhile, on all ranks alike. All ranks call this. `live`: those whose scripts take
        part. Raises `Interrupted`."""
        raise NotImplementedError


class Whole(Division):
    """Each rank has a replica of its own."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._transport: Transport | None = None

    def enter(self, transport: Transport | None, step: int, forward: Forward, whole: WhileWhole) -> Place:
        if transport is None or self.mesh is None or self.mesh.world is not transport:
            self.mesh = mesh_of(transport, 1) if transport is not None else None
        self._transport = transport
        whole(transport.world if transport is not None else 1)
        return Place(transport)

    def run(self, share: Share, exchange: Exchange, forward: Forward, step: int) -> None:
        for number, part in enumerate(share.parts):
            if self._transport is not None:
                self._transport.interrupt.check()
            exchange.begin_microbatch(last=number == len(share.parts) - 1)
            loss = self._work.forward(forward, step, part, share.stream, number)
            exchange.end_forward()
            self._work.backward(loss)
            exchange.end_backward()

    def trains(self, parameters: list[nn.Parameter] | None, phase: int) -> None:
        self._work.inputs, self._work.phase = parameters, (phase,) if phase else ()

    def agree(
        self, reduced: Reduced, exchange: Exchange, used: Sequence[bool], change_pending: bool, *, needs_norm: bool
    ) -> Reduced:
        return dataclasses.replace(reduced, norm=norm_of(exchange, used)) if needs_norm else reduced

    @contextmanager
    def evaluating(self, transport: Transport | None, live: Sequence[int], exchange: Exchange) -> Iterator[Seat]:
        with exchange.whole_parameters(transport):
            yield among(live, transport)


def among(live: Sequence[int], transport: Transport | None) -> Seat:
    """A seat in an evaluation in which each rank has the whole model."""
    rank = transport.rank if transport is not None else 0
    return Seat(len(live), live.index(rank) if rank in live else None, True, as_it_is)
