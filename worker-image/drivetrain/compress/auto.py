"""Which method is the cheapest on this link, with these gradients, within the error that the job allows?

Tried out, not computed: after the first step of each membership every candidate sums a part of that step's gradient,
twice. All ranks take the one whose slowest rank was the fastest, of those whose largest relative error is small enough.
A choice holds for one membership: a newcomer does not know what the others had chosen before it came.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import torch

from drivetrain.comm.transport import Transport
from drivetrain.compress.carried import Carried
from drivetrain.compress.codec import Codec
from drivetrain.compress.elementwise import Elementwise
from drivetrain.compress.method import Chunk, Dense, Method, Rounds
from drivetrain.device import settle

_SAMPLE: Final = 1 << 20
"""Elements that each candidate sums."""

_TRIALS: Final = 2
_DENSE: Final = "none"
_WORTHWHILE: Final = 0.9
"""A lossy method must take at most this part of the time that the dense sum takes."""


class Auto:
    """One of some codecs, or none of them."""

    by_chunks = True

    def __init__(self, codecs: Mapping[str, Codec], like: torch.Tensor, max_error: float) -> None:
        self._codecs = codecs
        self._max_error = max_error
        self._like = like
        self._residual = Carried(like)
        self.carried = [self._residual]
        self.shared: list[torch.Tensor] = []
        self.chosen: str
        self.reason: str
        self.forget()

    @property
    def warm_up(self) -> Method:
        return self

    def forget(self) -> None:
        """Another membership begins: its first step is summed as no newcomer can have it otherwise."""
        self.chosen = _DENSE
        self.reason = "not measured yet"

    def alone(self, chunk: Chunk) -> None:
        self._deliver(chunk)

    def commit(self) -> None:
        self._residual.commit()

    def rounds(self, transport: Transport, chunk: Chunk) -> Rounds:
        if self.chosen != _DENSE:
            method = Elementwise(self._codecs[self.chosen], self._like, self._residual)
            yield from method.rounds(transport, chunk)
            return
        self._deliver(chunk)
        yield from Dense().rounds(transport, chunk)

    def _deliver(self, chunk: Chunk) -> None:
        chunk.values.add_(self._residual.value[chunk.start : chunk.stop])
        self._residual.next[chunk.start : chunk.stop] = 0

    def choose(self, transport: Transport, gradient: torch.Tensor) -> None:
        """Measure, and decide for the membership. All ranks call this with the same vector. Raises `Interrupted`."""
        sample = gradient[:_SAMPLE]
        candidates: dict[str, Method] = {_DENSE: Dense()}
        candidates |= {name: Elementwise(codec, sample) for name, codec in self._codecs.items()}
        mine = torch.tensor([_measure(transport, method, sample) for method in candidates.values()])
        worst = torch.stack(transport.all_gather(mine)).amax(0).tolist()
        times = {name: seconds for name, (seconds, _) in zip(candidates, worst, strict=True)}
        errors = {name: error for name, (_, error) in zip(candidates, worst, strict=True)}
        allowed = [name for name in candidates if name == _DENSE or errors[name] <= self._max_error]
        best = min(allowed, key=lambda name: times[name])
        self.chosen = best if times[best] <= _WORTHWHILE * times[_DENSE] else _DENSE
        self.reason = f"{4 * len(sample) / 1e6:.1f} MB among {transport.world} ranks: " + ", ".join(
            f"{name} {1e3 * times[name]:.0f} ms" + (f" error {errors[name]:.2g}" if name != _DENSE else "")
            for name in candidates
        )


def _measure(transport: Transport, method: Method, sample: torch.Tensor) -> tuple[float, float]:
    """Seconds that a sum takes at best, and its relative error; every rank gives the same vector."""
    best, error = float("inf"), 0.0
    length = sample.norm() * transport.world
    for _ in range(_TRIALS):
        chunk = Chunk(0, len(sample), sample.clone())
        transport.barrier()
        began = time.perf_counter()
        for awaited in method.rounds(transport, chunk):
            awaited.wait()
        settle(sample.device)
        best = min(best, time.perf_counter() - began)
        if length > 0:
            error = float((chunk.values - sample * transport.world).norm() / length)
    return best, error
