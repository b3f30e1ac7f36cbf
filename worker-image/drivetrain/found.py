"""What did members find in an evaluation? Each its sums, which add up to everybody's.

They are journalled like the results of other reductions (position.py), as a list of numbers: so names are numbers, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from drivetrain.parallel.loss import Returned


@dataclass(slots=True)
class Found:
    """Of one member, or of all."""

    weight: float = 0.0
    loss: float = 0.0
    """The weighted sum."""
    fewest: float = math.inf
    most: float = -math.inf
    """How many samples members find in an iterable dataset, of which each reads all; infinite if that is plain."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted sums by name. What a piece does not give counts 0 there."""

    def add(self, result: Returned) -> None:
        """Of one piece of data."""
        self._add(result.weight, result.loss, result.metrics)

    def _add(self, weight: float, loss: float, metrics: dict[str, float]) -> None:
        self.weight += weight
        self.loss += loss
        for name, value in metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value

    def packed(self) -> list[float]:
        """As numbers."""
        names = sorted(self.metrics)
        values = [self.metrics[name] for name in names]
        text = json.dumps(names).encode()
        return [self.weight, self.loss, self.fewest, self.most, float(len(names)), *values, *map(float, text)]

    @classmethod
    def unpacked(cls, numbers: Sequence[float]) -> Found:
        """The inverse of `packed`."""
        weight, loss, fewest, most, count, *rest = numbers
        names = json.loads(bytes(map(int, rest[int(count) :])))
        return cls(weight, loss, fewest, most, dict(zip(names, rest, strict=False)))


def together(members: Iterable[Sequence[float]]) -> list[float]:
    """What all members found, packed like each."""
    total = Found()
    for each in map(Found.unpacked, members):
        total._add(each.weight, each.loss, each.metrics)
        total.fewest, total.most = min(total.fewest, each.fewest), max(total.most, each.most)
    return total.packed()
