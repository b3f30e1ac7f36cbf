"""What was measured: one `Outcome` per fault, one `Totals` per mode."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One fault and what followed."""

    kind: str
    at: float
    done: float | None
    """When all members had finished a step; None: training did not go on within the limit."""
    membership: tuple[int, int] = (0, 0)
    """The one that finished it."""
    step_seconds: float = 0.0
    """Its median step."""

    @property
    def raw(self) -> float | None:
        """From the fault to that step, in seconds."""
        return None if self.done is None else self.done - self.at

    @property
    def seconds(self) -> float | None:
        """Time lost: nothing when it went on within a step."""
        return None if self.raw is None else max(0.0, self.raw - self.step_seconds)


@dataclass
class Totals:
    """Everything measured in one mode."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """What the ledger says against the samples that were applied."""
    expected_hash: str = ""
    """Of the uninterrupted run."""
    peak_mb: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    hashes: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    equal_members: int = 0
    jobs: int = 0
    survivors: int = 0
    survivors_changed: int = 0

    @property
    def bitwise(self) -> int:
        """Jobs that ended as the uninterrupted run did."""
        return sum(each == self.expected_hash for each in self.hashes)
