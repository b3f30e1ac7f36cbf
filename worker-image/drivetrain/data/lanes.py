"""In which order are a sharded dataset's records read, so that a rank stays in a few parts and a batch sees many?

The parts of a pass, shuffled, form one sequence of records, which is cut into lanes of equal length. Every batch takes
the next few records of every lane, lane by lane. A rank's share of a batch is a stretch of it, so it is a few lanes:
step after step it reads on in the parts where it was, and other ranks are in others. The number of lanes does not
depend on the world, and so neither does what a step trains on. (MosaicML's StreamingDataset has "canonical nodes" for
this.)
"""

from __future__ import annotations

import torch

from drivetrain.data.order import mix, permute, permute_groups, share

_PARTS = 0x9A27
_RECORDS = 0x4EC0


def places_in_lanes(positions: torch.Tensor, size: int, batch: int, lanes: int) -> torch.Tensor:
    """Positions in a pass to places in its sequence of records, int64, one to one over [0, size).

    Whole batches go lane by lane; what is left of the pass, less than a batch, is the end of the sequence.
    """
    lanes = min(lanes, batch)
    starts = torch.tensor([share(batch, lanes, lane).start for lane in range(lanes + 1)])
    whole = size // batch
    number, within = positions // batch, positions % batch
    lane = torch.searchsorted(starts, within, right=True) - 1
    width = starts[lane + 1] - starts[lane]
    places = whole * starts[lane] + number * width + within - starts[lane]
    return torch.where(number < whole, places, positions)


class Shuffle:
    """The sequence of records of one pass: parts in an order of its own, and records within each part likewise."""

    def __init__(self, records: torch.Tensor, seed: int, number: int) -> None:
        """`records`: how many each part has, int64."""
        self._records = records
        self._first = records.cumsum(0) - records
        self._key = seed, number
        parts = len(records)
        self._order = permute(torch.arange(parts), parts, mix(seed, _PARTS, number))
        self._ends = records[self._order].cumsum(0)

    def indices(self, places: torch.Tensor) -> torch.Tensor:
        """Places in the sequence to numbers of records."""
        at = torch.searchsorted(self._ends, places, right=True)
        parts = self._order[at]
        within = places - (self._ends[at] - self._records[parts])
        here, group = parts.unique(return_inverse=True)
        keys = [mix(*self._key, _RECORDS, part) for part in here.tolist()]
        within = permute_groups(within, group, self._records[here], keys)
        return self._first[parts] + within
