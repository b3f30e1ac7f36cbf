"""What does nobody need any more? All that came before the oldest base that is kept. Knows nothing of torch.

Whoever reads sets a pin, from which on nothing goes. Readers die, too: a pin that one pruner has seen for hours counts
no more. It is seen by this process's own clock; nothing is compared with another machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.names import BaseName, SegmentName, pinned

PIN_SECONDS: Final = 6 * 3600.0


class Pins:
    """Those that one process has seen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}

    def stale(self, names: Iterable[str]) -> list[str]:
        """Which of these names are pins that were there for too long."""
        now = self._clock()
        self._seen = {name: self._seen.get(name, now) for name in names if pinned(name) is not None}
        return [name for name, since in self._seen.items() if now - since > PIN_SECONDS]


def surplus(found: Found, names: Iterable[str], keep: int) -> list[str]:
    """Names of objects that go, of all these. The `keep` newest bases stay that training can go on from, and all that
    was written since the oldest of them, or since the first step that one of the pins is on. Runs stay: they say what
    belongs to what."""
    names = list(names)
    points = {point.base for point in found.points()}
    bases = sorted((each for each in points), key=lambda each: (each.run, each.step, each.epoch))[-max(1, keep) :]
    if not bases:
        return []
    newest = bases[-1]
    pins = [each for name in names if (each := pinned(name)) is not None]
    first = min([(bases[0].run, bases[0].step), *pins])
    lineage = {span.run for span in found.lineage}
    gone = []
    for name in names:
        base, segment = BaseName.parse(name), SegmentName.parse(name)
        if (base.run if base is not None else segment.run if segment is not None else -1) not in lineage:
            continue  # what another run has left that this one does not go on from: nobody knows who wants it
        if base is not None:
            is_old = (base.run, base.step) < first
            is_unfinished = base not in found.bases and (base.run, base.step) < (newest.run, newest.step)
            if is_old or is_unfinished:
                gone.append(name)
        elif segment is not None and (segment.run, segment.last) < first:
            gone.append(name)
    # A manifest first: without it there is no base, however much of it is left by whoever dies half-way.
    return sorted(gone, key=lambda name: not name.endswith("manifest.json"))
