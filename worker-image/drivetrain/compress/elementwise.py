"""A reduce-scatter and an all-gather of what a codec has written, with error feedback for both.

Every rank writes down the others' slices of its vector and keeps its own as it is; the owner of a slice adds up, writes
down the sum, and all read that. What writing left out of a slice stays with whoever wrote it: of the others' slices
this rank's contribution, of its own the sum. (DoubleSqueeze, Tang et al. 2019, arXiv 1905.05957, with every rank the
server of its slice.) Over all ranks 2 (N-1) vectors travel, as in a ring, each as long as the codec makes it.
"""

from __future__ import annotations

import torch

from drivetrain.comm.transport import Transport
from drivetrain.compress.carried import Carried
from drivetrain.compress.codec import Codec
from drivetrain.compress.method import Chunk, Dense, Method, Rounds


class Elementwise:
    """Sums by a codec."""

    by_chunks = True

    def __init__(self, codec: Codec, like: torch.Tensor, residual: Carried | None = None) -> None:
        """`like`: a vector as long as the gradient. `residual`: somebody else's to go on with."""
        self.codec = codec
        self._residual = residual or Carried(like)
        self.carried = [self._residual]
        self.shared: list[torch.Tensor] = []

    @property
    def warm_up(self) -> Method:
        return Dense()

    def alone(self, chunk: Chunk) -> None:
        chunk.values.add_(self._residual.value[chunk.start : chunk.stop])
        self._residual.next[chunk.start : chunk.stop] = 0

    def commit(self) -> None:
        self._residual.commit()

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        codec, rank, world = self.codec, transport.rank, transport.world
        length = len(chunk.values)
        part = -(-length // world)
        size = codec.size(part)
        mine = chunk.values.new_empty(world, part)
        mine.view(-1)[length:] = 0
        torch.add(chunk.values, self._residual.value[chunk.start : chunk.stop], out=mine.view(-1)[:length])

        others = [each for each in (slice(0, rank), slice(rank + 1, world)) if each.start < each.stop]
        outgoing = torch.cat([codec.encode(mine[each]) for each in others])
        incoming = torch.empty_like(outgoing)
        sizes = [size if each != rank else 0 for each in range(world)]
        scattering = transport.all_to_all(incoming.view(-1), outgoing.view(-1), sizes, sizes)
        delivered = mine.new_empty(world - 1, part)
        codec.decode(outgoing, delivered)
        total = mine[rank].clone()
        left_out = mine
        left_out[:rank] -= delivered[:rank]
        left_out[rank + 1 :] -= delivered[rank:]
        yield scattering

        codec.decode(incoming, delivered)
        for other in delivered:
            total += other
        written = codec.encode(total[None])
        gathered = written.new_empty(world, size)
        gathering = transport.all_gather_into(gathered.view(-1), written.view(-1))
        torch.sub(total, _decoded(codec, written, total), out=left_out[rank])
        self._residual.next[chunk.start : chunk.stop] = left_out.view(-1)[:length]
        yield gathering

        sums = mine  # its memory is free again
        codec.decode(gathered, sums)
        chunk.values.copy_(sums.view(-1)[:length])


def _decoded(codec: Codec, written: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(like)
    codec.decode(written, out[None])
    return out
