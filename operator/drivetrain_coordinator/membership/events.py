"""What can happen to the membership machine, and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain_api.messages import (
    Complete,
    Form,
    Hello,
    Inspect,
    Kill,
    LauncherState,
    Put,
    Reject,
    Released,
    Stop,
    Table,
)
from drivetrain_api.places import Seen
from drivetrain_api.report import Roster
from drivetrain_coordinator.membership.waits import Seat


@dataclass(frozen=True, slots=True)
class Connected:
    """A launcher was admitted (see `admission`) and told `welcome`."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A launcher's connection ended. Says nothing about its processes."""

    pod_uid: str
    boot: str


@dataclass(frozen=True, slots=True)
class Said:
    """A launcher's full state."""

    pod_uid: str
    boot: str
    state: LauncherState


@dataclass(frozen=True, slots=True)
class PutKey:
    """A rank set a rendezvous key."""

    pod_uid: str
    boot: str
    put: Put


@dataclass(frozen=True, slots=True)
class RosterCame:
    """The operator's word."""

    roster: Roster


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened but time."""


Event = Connected | Disconnected | Said | PutKey | RosterCame | Tick
Order = Form | Table | Kill | Inspect | Released | Complete | Stop


@dataclass(frozen=True, slots=True)
class Send:
    """A message for the launcher of a pod, if it is connected."""

    pod_uid: str
    message: Order


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End a launcher's connection after this message."""

    pod_uid: str
    reject: Reject


@dataclass(frozen=True, slots=True)
class Retire:
    """This coordinator's time is over (a higher term exists): close all connections and never form again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """A launcher has told where a rank is that holds the others up: something for the log."""

    seat: Seat
    message: str
    seen: Seen


Output = Send | Dismiss | Retire | Looked
