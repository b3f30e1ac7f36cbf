"""PURE: what does a keeper do next? Told what happens, with the time; answers with orders for the process around it.

A keeper belongs to a membership as soon as it hears of it, tells its address once its script of the last one has ended,
and starts the script when it has heard all others' addresses. So no two memberships' scripts run side by side.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain_api.messages import LOST, Boundary, EpochId, Form, ProcessPhase

CAUSE_SECONDS: Final = 0.5
"""A script that fails because a pod is lost does so within this time of hearing of another membership."""
YOUNG_SECONDS: Final = 10.0
"""A script that fails sooner, after restarts, is not started again at once: ..."""
BACKOFF_LIMIT_SECONDS: Final = 30.0
"""... after 1 s, doubling with each restart, up to this."""
SAVE_MARGIN_SECONDS: Final = 5.0
"""Of a pod's grace, what is left for everything else after its script has saved."""
SAVE_LIMIT_SECONDS: Final = 50.0
"""A membership that is held up for longer is given up by the coordinator."""
BROKEN_SAVE_SECONDS: Final = 5.0
"""To save in, once somebody has died: who waits for the dead waits in vain."""
LEAVING: Final = "leaving/"
"""Begins the key by which a member says that its pod was told to go."""
FAILED: Final = "failed/"
"""Begins the key by which a member says that its script has failed."""
_FIRST_HAND: Final = frozenset(
    -number for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)
"""Ends that no error of another rank brings about. SIGABRT may be one: of NCCL's watchdog."""


def save_seconds(grace_seconds: float) -> float:
    """How long a script may take from SIGTERM to its end, in a pod with this grace."""
    return min(SAVE_LIMIT_SECONDS, max(1.0, grace_seconds - SAVE_MARGIN_SECONDS))


@dataclass(frozen=True, slots=True)
class Tell:
    """To the coordinator: where this process is."""

    phase: ProcessPhase
    epoch: EpochId | None
    formed: bool = False
    has_state: bool = False
    fault: str | None = None
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """To the other members: this process is ready for `form`."""

    form: Form
    done: bool
    leaving: bool


@dataclass(frozen=True, slots=True)
class Say:
    """To the other members: this pod was told to go (`LEAVING`), or its script has failed (`FAILED`)."""

    epoch: EpochId
    what: str


@dataclass(frozen=True, slots=True)
class Send:
    """This signal to the script, and to all that it started."""

    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Run:
    """Start the script for this membership, in which members offered this."""

    form: Form
    offers: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class End:
    """End as the script did: its exit code, or less than 0 for a signal."""

    code: int


Order = Tell | Offer | Say | Send | Run | End


class Course:
    """One keeper's mind. `wake`: when to call `tick` at the latest; None: when something happens."""

    def __init__(self, process: str, grace_seconds: float) -> None:
        self.wake: float | None = None
        self._process = process
        self._save_seconds = save_seconds(grace_seconds)
        self._heard: EpochId | None = None
        """The highest membership that was named."""
        self._form: Form | None = None
        """The membership that this process belongs to; None if the highest one has no seat for it."""
        self._offers: dict[str, Mapping[str, object]] = {}
        self._offered = False
        self._begun: EpochId | None = None
        """For which membership the script was started last."""
        self._running = False
        self._since = 0.0
        self._terminated: float | None = None
        """When the script must have ended that was told to."""
        self._done = False
        self._leaving = False
        self._others_leave = False
        self._others_failed = False
        self._failed: tuple[int, float] | None = None
        """How the script ended, and when this process ends so, too."""
        self._ending: float | None = None
        self._last: EpochId | None = None
        """The last membership that this process belonged to."""
        self._holds = False

    # --- what happens ----------------------------------------------------------------------------------------------

    def ready(self) -> list[Order]:
        """All is imported."""
        return [self._tell(ProcessPhase.READY)] if self._form is None else []

    def formed(self, form: Form, now: float) -> list[Order]:
        """A membership is called."""
        if (self._heard is not None and form.epoch <= self._heard) or self._ending is not None:
            return []
        self._heard = form.epoch
        self._failed = None  # somebody else's end was the cause
        seated = any(member.process == self._process for member in form.members)
        before = self._form
        self._form = form if seated else None
        self._offers, self._offered, self._others_leave, self._others_failed = {}, False, False, False
        orders: list[Order] = []
        if seated:
            orders.append(self._tell(ProcessPhase.MEMBER))
        if self._running:
            orders += self._make_end(form.boundary, now)
        elif seated:
            orders += self._offer()
        elif before is not None:
            orders.append(self._tell(ProcessPhase.READY))
        return self._timed(orders)

    def tabled(self, epoch: EpochId, entries: Mapping[str, bytes], now: float) -> list[Order]:
        """What members told so far."""
        if self._form is None or epoch != self._form.epoch:
            return []
        for key, value in entries.items():
            if key.startswith(LEAVING):
                self._others_leave = True
            elif key.startswith(FAILED):
                self._others_failed = True  # its own may be among them: then this is settled
            elif key.startswith(LOST):
                self._others_failed, self._failed = True, None
            else:
                self._offers[key] = json.loads(value)
        if self._running and self._begun == epoch:
            return self._timed(self._terminate(now) if self._others_leave else [])
        return self._timed(self._begin(now))

    def hurry(self, now: float) -> list[Order]:
        """The pod was told to go."""
        if self._leaving:
            return []
        self._leaving = True
        orders: list[Order] = [Say(self._form.epoch, LEAVING)] if self._form is not None else []
        return self._timed([*orders, *self._terminate(now)])

    def stop(self, now: float) -> list[Order]:
        """The job is over for this process. Its script may save: perhaps it was suspended."""
        if not self._running:
            return [End(0)]
        if self._ending is None:
            self._ending = now + self._save_seconds
        return self._timed(self._terminate(now))

    def finish(self, now: float) -> list[Order]:
        """All members are done."""
        return self.stop(now)

    def ended(self, code: int, now: float) -> list[Order]:
        """The script, with this exit code, or less than 0 for a signal."""
        self._running = False
        told, self._terminated = self._terminated is not None, None
        if self._ending is not None:
            return [End(0)]
        if self._form is None:
            return self._timed([self._tell(ProcessPhase.READY)])
        if self._begun != self._form.epoch:
            return self._timed(self._offer())
        if told:
            return self._timed([])  # it has saved, and another membership comes
        if code == 0:
            self._done = True
            return self._timed([self._tell(ProcessPhase.DONE)])
        return self._failed_with(code, now)

    def tick(self, now: float) -> list[Order]:
        """Time passes."""
        if self._ending is not None and now >= self._ending:
            return [End(0)]
        if self._failed is not None and now >= self._failed[1]:
            return [End(self._failed[0])]
        if self._terminated is not None and now >= self._terminated and self._superseded:
            return self._timed([Send(signal.SIGKILL)])
        return self._timed([])

    # --- what follows ----------------------------------------------------------------------------------------------

    @property
    def _superseded(self) -> bool:
        """Another membership waits for the script to end."""
        return self._running and (self._form is None or self._begun != self._form.epoch)

    def _timed(self, orders: list[Order]) -> list[Order]:
        times = [self._ending, self._failed[1] if self._failed is not None else None]
        times.append(self._terminated if self._superseded else None)
        self.wake = min((time for time in times if time is not None), default=None)
        return orders

    def _make_end(self, boundary: Boundary, now: float) -> list[Order]:
        """The script of the last membership has to make place. Where nobody died it gets time to save."""
        if boundary is Boundary.STEP:
            return self._terminate(now)
        if self._terminated is None:
            return [Send(signal.SIGKILL)]
        self._terminated = min(self._terminated, now + BROKEN_SAVE_SECONDS)
        return []

    def _terminate(self, now: float) -> list[Order]:
        if not self._running or self._terminated is not None:
            return []
        self._terminated = now + self._save_seconds
        return [Send(signal.SIGTERM)]

    def _offer(self) -> list[Order]:
        assert self._form is not None
        self._offered = True
        return [
            Offer(self._form, done=self._done, leaving=self._leaving),
            self._tell(ProcessPhase.MEMBER, waiting=True),
        ]

    def _begin(self, now: float) -> list[Order]:
        """Start the script, once all members have offered."""
        form = self._form
        assert form is not None
        if not self._offered or self._begun == form.epoch:
            return []
        offers = [self._offers.get(member.process) for member in form.members]
        if any(offer is None for offer in offers):
            return []
        if all(offer is not None and offer["done"] for offer in offers):
            return [self._tell(ProcessPhase.DONE)]
        if self._leaving or self._others_leave or any(offer is not None and offer["leaving"] for offer in offers):
            return [self._tell(ProcessPhase.MEMBER, formed=True)]  # the next membership is without it
        self._begun, self._running, self._since, self._done = form.epoch, True, now, False
        return [Run(form, dict(self._offers)), self._tell(ProcessPhase.MEMBER, formed=True)]

    def _failed_with(self, code: int, now: float) -> list[Order]:
        form = self._form
        assert form is not None
        if self._others_failed:
            return self._timed([])  # theirs was the cause, and their end brings the next membership
        alone = len(form.members) == 1
        wait = 0.0 if alone or code in _FIRST_HAND else CAUSE_SECONDS
        if now - self._since < YOUNG_SECONDS and form.recoveries > 0:
            wait = max(wait, min(BACKOFF_LIMIT_SECONDS, 2.0 ** min(form.recoveries - 1, 10)))
        said: list[Order] = [] if alone else [Say(form.epoch, FAILED)]
        if wait == 0.0:
            return [*said, End(code)]
        self._failed = (code, now + wait)
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        # A fault calls for another membership, with this process in it: not where it is to wait.
        fault = f"the script ended with {how}" if wait == CAUSE_SECONDS else None
        return self._timed([*said, self._tell(ProcessPhase.MEMBER, formed=True, fault=fault)])

    def _tell(
        self, phase: ProcessPhase, *, formed: bool = False, fault: str | None = None, waiting: bool = False
    ) -> Tell:
        """A keeper holds what there is of a state from when it first belongs to a membership: it is what goes on."""
        epoch = self._form.epoch if self._form is not None else self._last
        self._last = epoch
        stands = formed or phase is ProcessPhase.DONE
        self._holds = self._holds or stands
        return Tell(phase, epoch, stands, self._holds, fault, waiting)
