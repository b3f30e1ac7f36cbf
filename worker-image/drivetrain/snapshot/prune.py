"""What does nobody need any more? All that came before the oldest base that is kept. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Iterable

from drivetrain.snapshot.found import Found
from drivetrain.snapshot.names import BaseName, SegmentName


def surplus(found: Found, names: Iterable[str], keep: int) -> list[str]:
    """Names of objects that go. The `keep` newest bases stay that training can go on from, and all that was written
    since the oldest of them. Runs stay: they say what belongs to what."""
    points = {point.base for point in found.points()}
    bases = sorted((each for each in points), key=lambda each: (each.run, each.step, each.epoch))[-max(1, keep) :]
    if not bases:
        return []
    oldest, newest = bases[0], bases[-1]
    lineage = {span.run for span in found.lineage}
    gone = []
    for name in names:
        base, segment = BaseName.parse(name), SegmentName.parse(name)
        if (base.run if base is not None else segment.run if segment is not None else -1) not in lineage:
            continue  # what another run has left that this one does not go on from: nobody knows who wants it
        if base is not None:
            is_old = (base.run, base.step) < (oldest.run, oldest.step)
            is_unfinished = base not in found.bases and (base.run, base.step) < (newest.run, newest.step)
            if is_old or is_unfinished:
                gone.append(name)
        elif segment is not None and (segment.run, segment.last) < (oldest.run, oldest.step):
            gone.append(name)
    # A manifest first: without it there is no base, however much of it is left by whoever dies half-way.
    return sorted(gone, key=lambda name: not name.endswith("manifest.json"))
