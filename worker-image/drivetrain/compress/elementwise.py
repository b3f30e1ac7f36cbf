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

_PIECE: Final = 1 << 17
"""Elements that are worked on at a time: 512 kB of float32."""


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

        length = len(chunk.values)
        part = -(-length // world)
        pieces = _pieces(part)
        sizes = [codec.size(piece.stop - piece.start) for piece in pieces]
        size = sum(sizes)
        # What is to be sent becomes what was left out: in the same memory.
        left_out = self._residual.next[chunk.start : chunk.stop]
        carried = self._residual.value[chunk.start : chunk.stop]
        fits = part * world == length
        mine = left_out if fits else memory.take(part * world, left_out.dtype, left_out.device)
        mine[length:] = 0

        def add_carried(each: int, piece: slice) -> None:
            """To a piece of the slice that rank `each` sums."""
            at = slice(each * part + piece.start, min(each * part + piece.stop, length))
            if at.start < at.stop:
                torch.add(chunk.values[at], carried[at], out=mine[at])

        slices = mine.view(world, part)
        outgoing, incoming = take((world - 1) * size), take((world - 1) * size)
        others = [(each, outgoing[at * size :][:size].split(sizes)) for at, each in enumerate(_all_but(rank, world))]
        for each, packed in others:
            for piece, bytes_ in zip(pieces, packed, strict=True):
                add_carried(each, piece)  # The rest happens while the processor has it in its cache.
                codec.encode(slices[each : each + 1, piece], bytes_[None])
        counts = [size if each != rank else 0 for each in range(world)]
        scattering = transport.all_to_all(incoming, outgoing, counts, counts)
        for piece in pieces:
            add_carried(rank, piece)
        yield scattering

        own = slices[rank : rank + 1]
        written, gathered = take(size), take(world * size)
        arrived = [each.split(sizes) for each in incoming.split(size)]
        for number, (piece, bytes_) in enumerate(zip(pieces, written.split(sizes), strict=True)):
            for packed in arrived:
                codec.add(packed[number][None], own[:, piece])
            codec.encode(own[:, piece], bytes_[None])
        gathering = transport.all_gather_into(gathered, written)
        if not fits:
            left_out.copy_(mine[:length])
        yield gathering

        sums = chunk.values.view(world, part) if fits else slices
        for each, packed in enumerate(gathered.split(size)):
            for piece, bytes_ in zip(pieces, packed.split(sizes), strict=True):
                codec.decode(bytes_[None], sums[each : each + 1, piece])
        if not fits:
            chunk.values.copy_(mine[:length])
            memory.give_back(mine)
        memory.give_back(outgoing, incoming, written, gathered)


def _pieces(length: int) -> list[slice]:
    return [slice(start, min(start + _PIECE, length)) for start in range(0, length, _PIECE)]


def _all_but(rank: int, world: int) -> list[int]:
    return [each for each in range(world) if each != rank]
