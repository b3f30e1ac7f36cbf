"""What is said of each reason of an Event, wherever it stands."""

from dataclasses import dataclass
from typing import Literal

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class EventReason:
    """One row. `reason` is what stands in `event.reason`, and where it names a condition or failure, there too."""

    reason: str
    type: EventType
    description: str
    advice: str
    """What the reader can do, in a sentence; it begins with `Nothing` where nothing is needed. `drivetrain why` says
    it, too."""
