"""PowerSGD: a gradient matrix M as the product of two thin ones, found by one step of the power method.

Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization" (arXiv
1905.13727), algorithm 1, with error feedback (algorithm 2) and a warm start from the step before. A parameter is taken
as a matrix of its first dimension by all others; vectors, and matrices that would not become smaller, travel as they
are. An n by m matrix becomes rank * (n + m) numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drivetrain.comm.transport import Transport
from drivetrain.compress.carried import Carried
from drivetrain.compress.method import Chunk, Dense, Method, Rounds


class PowerSgd:
    """Sums by low-rank approximation."""

    by_chunks = False

    def __init__(self, shapes: Sequence[torch.Size], like: torch.Tensor, rank: int) -> None:
        """`shapes` of the tensors that the vector consists of, in its order."""
        self._residual = Carried(like)
        self.carried = [self._residual]
        self._thin: list[tuple[slice, int, int]] = []
        """The matrices: where in the vector, rows, columns."""
        self._whole: list[slice] = []
        """What travels as it is."""
        generator = torch.Generator().manual_seed(0)
        self.shared: list[torch.Tensor] = []
        """By matrix: Q, (columns, rank)."""
        self._next: list[torch.Tensor] = []
        self._rank = rank
        at = 0
        for shape in shapes:
            rows = shape[0] if len(shape) > 1 else 1
            columns = shape[1:].numel() if len(shape) > 1 else shape.numel()
            place = slice(at, at + shape.numel())
            at = place.stop
            if rank * (rows + columns) < rows * columns and rank <= min(rows, columns):
                self._thin.append((place, rows, columns))
                self.shared.append(torch.randn(columns, rank, generator=generator, dtype=like.dtype).to(like.device))
            else:
                self._whole.append(place)

    @property
    def elements(self) -> int:
        """Numbers that travel instead of the vector's."""
        thin = sum(self._rank * (rows + columns) for _, rows, columns in self._thin)
        whole: int = sum(place.stop - place.start for place in self._whole)
        return thin + whole

    @property
    def warm_up(self) -> Method:
        return Dense()

    def alone(self, chunk: Chunk) -> None:
        chunk.values.add_(self._residual.value[chunk.start : chunk.stop])
        self._residual.next[chunk.start : chunk.stop] = 0

    def commit(self) -> None:
        self._residual.commit()
        for old, new in zip(self.shared, self._next, strict=False):  # none yet if it was alone
            old.copy_(new)

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        mine = chunk.values + self._residual.value
        left = [mine[place].view(rows, columns) @ q for (place, rows, columns), q in self._matrices()]
        staged = torch.cat([*(each.view(-1) for each in left), *(mine[place] for place in self._whole)])
        yield transport.all_reduce(staged)

        parts = staged.split([*(each.numel() for each in left), *(place.stop - place.start for place in self._whole)])
        bases = [_orthogonal(part.view(each.shape)) for part, each in zip(parts, left, strict=False)]
        for place, part in zip(self._whole, parts[len(left) :], strict=True):
            chunk.values[place] = part
        own = [
            mine[place].view(rows, columns).T @ base
            for ((place, rows, columns), _), base in zip(self._matrices(), bases, strict=True)
        ]
        staged = torch.cat([each.reshape(-1) for each in own]) if own else mine.new_zeros(1)
        summing = transport.all_reduce(staged)
        self._residual.next.copy_(mine)
        for place in self._whole:
            self._residual.next[place] = 0
        mine_delivered = [base @ each.T for base, each in zip(bases, own, strict=True)]
        for (place, _, _), delivered in zip(self._thin, mine_delivered, strict=True):
            self._residual.next[place] -= delivered.view(-1)
        yield summing

        self._next = [
            part.view(each.shape)
            for part, each in zip(staged.split([each.numel() for each in own]) if own else (), own, strict=True)
        ]
        for (place, _, _), base, q in zip(self._thin, bases, self._next, strict=True):
            chunk.values[place] = (base @ q.T).view(-1)

    def _matrices(self) -> list[tuple[tuple[slice, int, int], torch.Tensor]]:
        return list(zip(self._thin, self.shared, strict=True))


def _orthogonal(columns: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of what the columns span, by QR; the same on all ranks, which have the same columns."""
    basis: torch.Tensor = torch.linalg.qr(columns)[0]
    return basis
