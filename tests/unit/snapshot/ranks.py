"""Writers of snapshots without torch, and what a restore would see of what they have written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drivetrain.snapshot.base import Bases
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.log import Durable, Log, Slices
from drivetrain.snapshot.names import BaseName
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.units import Unit, Values

SIZE = 12
"""Elements of the one parameter."""


def numbers(run: int, step: int) -> np.ndarray:
    """What the ranks apply: other numbers in each run."""
    return np.arange(SIZE, dtype=np.float32) + 1000 * run + step


class Rank:
    """A writer of one membership."""

    def __init__(self, storage: Storage, seat: Seat) -> None:
        self.seat = seat
        self.log = Log(storage, 0.0, 1 << 20, 0.0)
        self.bases = Bases(storage, 1 << 20)
        first, last = (SIZE * (seat.rank + more) // seat.world for more in (0, 1))
        self.key = Key("w", first, last)

    def step(self, step: int) -> None:
        data = numbers(self.seat.run, step)[self.key.first : self.key.last].view(np.uint8)
        small = str(step).encode() if self.seat.speaks else b""
        self.log.put(self.seat, Slices(step, (self.key,), data, "float32", (), small))

    def base(self, step: int) -> None:
        name = BaseName(self.seat.run, step, self.seat.epoch)
        self.bases.begin(name, self.seat, b"small" if self.seat.speaks else b"")
        data = numbers(self.seat.run, step)[self.key.first : self.key.last].view(np.uint8)
        self.bases.add(Unit(self.key, step, Values(data, "float32"), {}, b""))
        self.bases.finish({"w": SIZE} if self.seat.speaks else {}, step)

    def end(self) -> None:
        self.log._thread.end(5.0)
        self.bases.thread.end(5.0)


def last_durable(ranks: Sequence[Durable | None], base: int | None) -> int | None:
    """The last step that can be gone back to: of what all ranks have written since, from a base that was complete
    before step `base`. None if that is not known."""
    told = [each for each in ranks if each is not None]
    if base is None or not told or len(told) < len(ranks):
        return None
    since, last = max(each.since for each in told), min(each.last for each in told)
    return last if since <= base <= last + 1 else None


def content(found: Found, most: float = float("inf")) -> tuple[int, int, list[np.ndarray]] | None:
    """What a restore would see: the base's step, the step to go on with, and the numbers of the steps between."""
    point = found.verified(most)
    if point is None:
        return None
    steps = []
    for step in found.steps_of(point):
        whole = np.full(SIZE, np.nan, np.float32)
        for each in step.slices:
            (key,) = each.keys
            whole[key.first : key.last] = each.data.view(np.float32)
        assert step.small == str(step.step).encode()
        steps.append(whole)
    return point.base.step, point.step, steps
