"""Records of how a job moves: when each rank did last, how long steps take, and that nothing moves any more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from drivetrain_api.messages import ProcessState
from drivetrain_coordinator.membership.waits import Seat

KEPT_STEPS = 31


@dataclass(frozen=True, slots=True)
class Track:
    """Where a rank was when it moved last, and when this coordinator heard of it."""

    step: int
    number: int
    """Of its place (see `Place.number`); -1 from images that tell none."""
    since: float

    @classmethod
    def of(cls, process: ProcessState, now: float) -> Track:
        """It is there since now."""
        return cls(process.step, process.place.number if process.place is not None else -1, now)


@dataclass(slots=True)
class Pace:
    """How long steps took lately: the last ones, without the first of each membership."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))

    def took(self, seconds: float, steps: int) -> None:
        """So many steps took so long altogether: reports of fast steps come bundled."""
        self.recent.append(seconds / steps)

    @property
    def usual(self) -> float | None:
        """The median, which a few slow ones do not move; None before there is any."""
        return median(self.recent) if self.recent else None


@dataclass(frozen=True, slots=True)
class Still:
    """A membership that has not moved for a while."""

    seats: tuple[Seat, ...]
    since: float
    told_at: float
    """From when on people are told."""
    ends_at: float
    """From when on it is a failure."""


@dataclass(frozen=True, slots=True)
class Told:
    """What people were told of a standstill. It stays as it is until the next milestone, or until something moves."""

    since: float
    milestone: int
    message: str
    seats: tuple[Seat, ...]
    answers: int = 0
    """Of those that hold the others up: of how many it is known where exactly they are."""
