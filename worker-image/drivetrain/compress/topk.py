"""Top-k: of each step's gradient only the largest elements, the others when they have grown.

Lin et al. 2018, "Deep Gradient Compression" (arXiv 1712.01887), algorithm 4: momentum is applied before elements are
chosen ("momentum correction"), because it would otherwise act on what was sent in bursts; what is sent takes its
momentum along ("momentum factor masking"). So the optimizer must be SGD without momentum of its own.
"""

from __future__ import annotations

import torch

from drivetrain.comm.transport import Transport
from drivetrain.compress.carried import Carried
from drivetrain.compress.method import Chunk, Method, Rounds


class TopK:
    """Sums of the largest elements."""

    by_chunks = True

    def __init__(self, like: torch.Tensor, density: float, momentum: float) -> None:
        """`density`: the part of the elements that is sent, at least one of a chunk."""
        self._density = density
        self._momentum = momentum
        self._velocity = Carried(like)
        self._waiting = Carried(like)
        self.carried = [self._velocity, self._waiting]
        self.shared: list[torch.Tensor] = []

    @property
    def warm_up(self) -> Method:
        return DenseMomentum(self._velocity, self._momentum)

    def alone(self, chunk: Chunk) -> None:
        here = slice(chunk.start, chunk.stop)
        velocity = self._velocity.next[here]
        torch.add(chunk.values, self._velocity.value[here], alpha=self._momentum, out=velocity)
        torch.add(velocity, self._waiting.value[here], out=chunk.values)
        self._waiting.next[here] = 0

    def commit(self) -> None:
        self._velocity.commit()
        self._waiting.commit()

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        here = slice(chunk.start, chunk.stop)
        count = max(1, round(self._density * len(chunk.values)))
        velocity, waiting = self._velocity.next[here], self._waiting.next[here]
        torch.add(chunk.values, self._velocity.value[here], alpha=self._momentum, out=velocity)
        torch.add(self._waiting.value[here], velocity, out=waiting)
        places = waiting.abs().topk(count, sorted=False).indices
        # Numbers and their places in one message: places as the bits of an int32.
        outgoing = torch.cat([waiting[places].float(), places.to(torch.int32).view(torch.float32)])
        gathered = outgoing.new_empty(transport.world * len(outgoing))
        gathering = transport.all_gather_into(gathered, outgoing)
        waiting[places] = 0
        velocity[places] = 0
        yield gathering

        chunk.values.zero_()
        for message in gathered.view(transport.world, 2, count):
            chunk.values.index_add_(0, message[1].view(torch.int32), message[0].to(chunk.values.dtype))


class DenseMomentum:
    """All elements, with the same momentum."""

    by_chunks = True

    def __init__(self, velocity: Carried, momentum: float) -> None:
        self._velocity = velocity
        self._momentum = momentum
        self.carried = [velocity]
        self.shared: list[torch.Tensor] = []

    @property
    def warm_up(self) -> Method:
        return self

    def alone(self, chunk: Chunk) -> None:
        self._advance(chunk)
        chunk.values.copy_(self._velocity.next[chunk.start : chunk.stop])

    def commit(self) -> None:
        self._velocity.commit()

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        self._advance(chunk)
        staged = self._velocity.next[chunk.start : chunk.stop].clone()
        yield transport.all_reduce(staged)
        chunk.values.copy_(staged)

    def _advance(self, chunk: Chunk) -> None:
        here = slice(chunk.start, chunk.stop)
        torch.add(chunk.values, self._velocity.value[here], alpha=self._momentum, out=self._velocity.next[here])
