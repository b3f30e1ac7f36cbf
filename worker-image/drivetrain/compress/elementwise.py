"""A reduce-scatter and an all-gather of what a codec has written, with error feedback for both.

Every rank writes down the others' slices of its vector and keeps its own as it is; the owner of a slice adds up, writes
down the sum, and all read that. What writing left out of a slice stays with whoever wrote it: of the others' slices
this rank's contribution, of its own the sum. (DoubleSqueeze, Tang et al. 2019, arXiv 1905.05957, with every rank the
server of its slice.) Over all ranks 2 (N-1) vectors travel, as in a ring, each as long as the codec makes it.
"""

from __future__ import annotations

from typing import Final

import torch

from drivetrain.comm.memory import StagingMemory
from drivetrain.comm.transport import Transport
from drivetrain.compress.carried import Carried
from drivetrain.compress.codec import Codec
from drivetrain.compress.method import Chunk, Dense, Method, Rounds

_PIECE: Final = 1 << 18
"""Elements that are worked on at a time: 1 MB of float32."""


class Elementwise:
    """Sums by a codec."""

    by_chunks = True

    def __init__(self, codec: Codec, like: torch.Tensor, residual: Carried | None = None) -> None:
        """`like`: a vector as long as the gradient. `residual`: somebody else's to go on with."""
        self.codec = codec
        self._residual = residual or Carried(like)
        self._memory = StagingMemory()
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
        codec, rank, world, memory = self.codec, transport.rank, transport.world, self._memory

        def take(count: int) -> torch.Tensor:
            return memory.take(count, torch.uint8, chunk.values.device)

        carried = self._residual.value[chunk.start : chunk.stop]
        left_out = self._residual.next[chunk.start : chunk.stop]
        slices = _slices(len(chunk.values), world)
        pieces = [_pieces(each) for each in slices]
        packed = [[codec.size(piece.stop - piece.start) for piece in each] for each in pieces]
        sizes = [sum(each) for each in packed]

        def encode(each: int, out: torch.Tensor) -> None:
            """The slice that rank `each` sums."""
            for piece, bytes_ in zip(pieces[each], out.split(packed[each]), strict=True):
                codec.encode(chunk.values[piece], carried[piece], left_out[piece], bytes_)

        going = [size if each != rank else 0 for each, size in enumerate(sizes)]
        coming = [sizes[rank] if each != rank else 0 for each in range(world)]
        outgoing, incoming = take(sum(going)), take(sum(coming))
        for each, bytes_ in enumerate(outgoing.split(going)):
            if each != rank:
                encode(each, bytes_)
        yield transport.all_to_all(incoming, outgoing, coming, going)

        arrived = [bytes_.split(packed[rank]) for bytes_ in incoming.split(coming) if len(bytes_)]
        for number, piece in enumerate(pieces[rank]):
            for each in arrived:  # The processor has the piece in its cache.
                codec.add(each[number], chunk.values[piece])
        most = sizes[0]
        written, gathered = take(most), take(world * most)
        encode(rank, written[: sizes[rank]])
        yield transport.all_gather_into(gathered, written)

        for each, bytes_ in enumerate(gathered.split(most)):
            for piece, part in zip(pieces[each], bytes_[: sizes[each]].split(packed[each]), strict=True):
                codec.decode(part, chunk.values[piece])
        memory.give_back(outgoing, incoming, written, gathered)


def _slices(length: int, world: int) -> list[slice]:
    """As long as each other; the last ones are shorter, or empty."""
    part = -(-length // world)
    return [slice(min(each * part, length), min((each + 1) * part, length)) for each in range(world)]


def _pieces(whole: slice) -> list[slice]:
    return [slice(start, min(start + _PIECE, whole.stop)) for start in range(whole.start, whole.stop, _PIECE)]
