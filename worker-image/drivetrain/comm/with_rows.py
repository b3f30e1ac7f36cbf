"""An exchange of dense gradients, and beside it that of the rows of tables that a step touches (sparse.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from drivetrain.comm.sparse import SparseSum
from drivetrain.comm.transport import Transport
from drivetrain.parallel.exchange import Exchange, TailOf
from drivetrain.state import Stateful


class WithRows(Exchange):
    """Any exchange, for a model that has tables with sparse gradients."""

    def __init__(self, dense: Exchange) -> None:
        super().__init__(dense.layout)
        self._dense = dense
        self._sum = SparseSum(dense.layout.sparse)
        self._transport: Transport | None = None
        self.needs_all_alike = dense.needs_all_alike

    def begin(self, transport: Transport | None, step: int) -> None:
        self._transport = transport
        self._dense.begin(transport, step)
        self._sum.begin()

    def begin_microbatch(self, *, last: bool) -> None:
        self._dense.begin_microbatch(last=last)

    def end_forward(self) -> None:
        self._dense.end_forward()

    def end_backward(self) -> None:
        self._dense.end_backward()

    def end_share(self) -> None:
        self._sum.collect()
        self._dense.end_share()

    def collect(self, tail_of: TailOf) -> None:
        self._dense.collect(tail_of)

    def finish(self) -> torch.Tensor:
        total = self._dense.finish()
        self._sum.finish(self._transport)
        return total

    def abandon(self) -> None:
        self._sum.abandon()
        self._dense.abandon()

    def close(self) -> None:
        self._dense.close()

    @property
    def held(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        return self._dense.held

    @property
    def copied(self) -> Sequence[torch.Tensor]:
        return self._dense.copied

    @property
    def rows(self) -> Sequence[nn.Parameter]:
        return self.layout.sparse

    @property
    def vectors(self) -> list[torch.Tensor] | None:
        return self._dense.vectors

    def sum_over_parts(self, mine: torch.Tensor) -> None:
        self._dense.sum_over_parts(mine)

    def updating(self) -> AbstractContextManager[None]:
        return self._dense.updating()

    def committed(self, *, skipped: bool) -> None:
        self._dense.committed(skipped=skipped)

    def hand_over(self, transport: Transport) -> None:
        self._dense.hand_over(transport)

    def whole_parameters(self, transport: Transport | None) -> AbstractContextManager[None]:
        return self._dense.whole_parameters(transport)

    def warm_up(self, world: int) -> None:
        self._dense.warm_up(world)

    @property
    def states(self) -> Mapping[str, Stateful]:
        return self._dense.states

    @property
    def chosen(self) -> tuple[str, str] | None:
        return self._dense.chosen
