"""A replica that several ranks have between them: by layers that are cut (tensor/), by stages (pipeline/), or both.

These ranks are a row of the mesh (mesh.py). They have the same samples, so their numbers count once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.data.shares import Share
from drivetrain.parallel.agreement import Reduced, agree
from drivetrain.parallel.divided import Divided
from drivetrain.parallel.division import Place, Seat, WhileWhole, among, as_it_is
from drivetrain.parallel.exchange import DuringBackward, Exchange
from drivetrain.parallel.loss import Forward
from drivetrain.parallel.mesh import Mesh, mesh_of, refuse_too_few
from drivetrain.parallel.norm import squares
from drivetrain.parallel.pipeline.stage import Pipeline
from drivetrain.parallel.pipeline.work import StageWork
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.parallel.work import Work
from drivetrain.parallel.zero.parted import Parted


class Rows(Parted):
    """Rows of ranks, each with one replica."""

    needs_all_alike = True

    def __init__(
        self,
        work: Work,
        divided: Divided,
        tensor: TensorParallel | None,
        pipeline: Pipeline | None,
        stage_work: StageWork | None,
        relayout: Callable[[Callable[[nn.Parameter], bool]], None],
    ) -> None:
        """`relayout(wanted)`: from now on only these parameters' gradients are exchanged."""
        super().__init__(work, divided)
        self.tensor = tensor
        self.pipeline = pipeline
        self._stage_work = stage_work
        self._relayout = relayout
        self.row = divided.row

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.tensor.degree if self.tensor else 1, self.pipeline.stage_count if self.pipeline else 1

    def enter(self, transport: Transport | None, step: int, forward: Forward, whole: WhileWhole) -> Place:
        if transport is None:
            refuse_too_few(1, *self._sizes)
            raise AssertionError("a row of one rank is no row")
        self._transport = transport
        if self.mesh is None or self.mesh.world is not transport:
            self.mesh = mesh_of(transport, *self._sizes)
        mesh = self.mesh
        begins = self._divided.is_whole  # the membership begins with this step
        if begins and self._stage_work is not None:
            self._stage_work.place(mesh, step, forward)
            if self.pipeline is not None and not mesh.idle:
                self._relayout(self.pipeline.is_here)
        whole(mesh.data_size)
        if begins:
            self._divided.meet(mesh)
            self._divided.cut(mesh)
        if self.tensor is not None:
            self.tensor.begin(mesh.tensor, check=begins)
        return Place(mesh.data, mesh.idle)

    def run(self, share: Share, exchange: Exchange, forward: Forward, step: int) -> None:
        if self._stage_work is None:
            super().run(share, exchange, forward, step)
        else:
            assert isinstance(exchange, DuringBackward)
            self._stage_work.run(exchange.arrivals, forward, step, share.parts, share.stream)
        if self.tensor is not None:
            self.tensor.end(self._work.tally.loss)

    def complete(self, tail: torch.Tensor) -> None:
        if self._stage_work is not None and self.mesh is not None:
            self._stage_work.add_up(self.mesh, tail)

    def agree(
        self, reduced: Reduced, exchange: Exchange, used: Sequence[bool], change_pending: bool, *, needs_norm: bool
    ) -> Reduced:
        assert self.mesh is not None
        given = None
        if needs_norm and (self.pipeline is not None or any(used)):
            given = squares(exchange, self._is_divided, self._is_staged)
        return agree(self.mesh, reduced, change_pending, given, self._work.tally.loss)

    def hear(self, change_pending: bool) -> Reduced:
        assert self.mesh is not None
        nothing = Reduced(0.0, 0.0, [], change_pending=False, norm=None)
        return agree(self.mesh, nothing, change_pending, None)

    def abandon(self) -> None:
        if self.tensor is not None:
            self.tensor.abandon()
        if self.pipeline is not None:
            self.pipeline.abandon()

    def _is_divided(self, parameter: nn.Parameter) -> bool:
        return self.tensor is not None and parameter in self.tensor.divided

    def _is_staged(self, parameter: nn.Parameter) -> bool:
        return self.pipeline is not None and not self.pipeline.is_everywhere(parameter)

    def sum_over_parts(self, parameters: Sequence[nn.Parameter], numbers: torch.Tensor) -> None:
        if self.mesh is None or self.mesh.tensor is None:
            return
        divided = torch.tensor([self._is_divided(each) for each in parameters])
        parts = numbers[divided]
        self.mesh.tensor.all_reduce(parts).wait()
        numbers[divided] = parts

    @contextmanager
    def evaluating(self, transport: Transport | None, live: Sequence[int], exchange: Exchange) -> Iterator[Seat]:
        mesh = self.mesh if self.mesh is not None and self.mesh.world is transport else None
        if mesh is None or self._divided.is_whole:
            with exchange.whole_parameters(transport):
                yield among(live, transport)
            return
        with nullcontext() if mesh.idle else exchange.whole_parameters(mesh.data):
            yield from self._seated(mesh)

    def _seated(self, mesh: Mesh) -> Iterator[Seat]:
        seat = functools.partial(Seat, mesh.data_size, None if mesh.idle else mesh.data_rank, mesh.speaks)
        if mesh.idle:
            yield seat(as_it_is)
            return
        if self.tensor is not None:
            self.tensor.begin(mesh.tensor)
        if self.pipeline is None:
            yield seat(as_it_is)
        else:
            yield seat(self.pipeline.passing)
            self.pipeline.settle()
        if self.tensor is not None:
            self.tensor.end()
