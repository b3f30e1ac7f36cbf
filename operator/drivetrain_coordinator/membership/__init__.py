"""Who is a member of a job's training world: a pure state machine. See docs/protocol.md."""

from drivetrain_coordinator.membership.events import (
    Connected,
    Disconnected,
    Dismiss,
    Event,
    Looked,
    Output,
    PutKey,
    Retire,
    RosterCame,
    Said,
    Send,
    Tick,
)
from drivetrain_coordinator.membership.machine import Machine
from drivetrain_coordinator.membership.state import End, Identity, Membership
from drivetrain_coordinator.membership.timings import Timings

__all__ = [
    "Connected",
    "Disconnected",
    "Dismiss",
    "End",
    "Event",
    "Identity",
    "Looked",
    "Machine",
    "Membership",
    "Output",
    "PutKey",
    "Retire",
    "RosterCame",
    "Said",
    "Send",
    "Tick",
    "Timings",
]
