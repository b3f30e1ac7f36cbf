"""A job whose joules are counted by the real parts: its coordinators' sums, one after the other, and what the operator
writes of them, through what the API server stores. Its launchers, and who lives when, are the test's."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from drivetrain.energy.meter import EnergyMeter
from drivetrain_api.energy import EnergyTold
from drivetrain_api.energy_status import UsedEnergy
from drivetrain_api.messages import LauncherState
from drivetrain_api.report import Report
from drivetrain_api.status import Membership, TrainingJobStatus
from drivetrain_coordinator.membership.energy import Drawn
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.policies.energy_used import energy_used
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import JobView, ReportView, Supply, View
from unit.plan.builders import NOW, report, worker


class Launcher(Protocol):
    """A life of a worker's launcher."""

    boot: str
    seq: int
    asked: bool
    meter: EnergyMeter


class Seat(Protocol):
    """A worker of the job, where its launchers live one after the other."""

    @property
    def pod(self) -> str: ...
    @property
    def launcher(self) -> Launcher | None: ...


S = TypeVar("S", bound=Seat)


class Counted(Generic[S]):
    """`now` is in seconds since `NOW`."""

    def __init__(self, of: JobView, seats: Sequence[S]) -> None:
        self._of = of
        self.seats = seats
        self.term = 0
        self.coordinator: Drawn | None = None
        self.coordinator_at = 0.0
        self.status = TrainingJobStatus()
        self.heard: tuple[float, EnergyTold, int] | None = None
        self.last: dict[str, dict[str, float]] = {}

    def used(self) -> UsedEnergy:
        """What is written of it."""
        assert self.status.energy is not None
        assert self.status.energy.used is not None
        return self.status.energy.used

    def seen(self) -> JobView:
        """As the operator has it."""
        return replace(self._of, status=self.status)

    def coordinate(self, now: float) -> None:
        """A tick of its coordinator, of a new term if the one before is dead."""
        if self.coordinator is None:
            if now < self.coordinator_at:
                return
            # What the operator's roster says to a coordinator of a new term.
            self.term, self.coordinator = self.term + 1, Drawn(began=now)
            self.status = self.status.model_copy(update={"membership": Membership(term=self.term)})
            self.coordinator.counts_from(roster(self._view(now, None, Supply())).energy)
            for seat in self.seats:
                if seat.launcher is not None:
                    seat.launcher.asked = False
        for seat in self.seats:
            if (launcher := seat.launcher) is None:
                continue
            launcher.seq += 1
            if not launcher.asked:
                launcher.meter.asked(self.term, self.coordinator.asked(now))
                launcher.asked = True
            metered = launcher.meter.told(whole=False)
            state = LauncherState(seq=launcher.seq, processes=[], energy=metered)
            if (said := LauncherState.model_validate_json(state.model_dump_json()).energy) is not None:
                self.coordinator.hear(seat.pod, launcher.boot, said, now)
        if (told := self.coordinator.told()) is not None:
            self.heard = (now, told, self.term)

    def reconcile(self, now: float, skew: float, supply: Supply, *, hears: bool, written: bool = True) -> None:
        """A pass of an operator whose clock is wrong by `skew`."""
        found = None
        if hears and self.heard is not None:
            at, told, term = self.heard
            base = report().report.model_copy(update={"energy": told, "term": term})
            found = ReportView(Report.model_validate_json(base.model_dump_json()), now - at)
        # As when something else is written in every other pass.
        message = str(now) if random.Random(now).random() < 0.5 else self.status.message
        view = self._view(now + skew, found, supply)
        decided = energy_used(view, self.status.model_copy(update={"message": message})).status
        if not written:
            return
        self.status = TrainingJobStatus.model_validate_json(json.dumps(status_json(decided)))
        if self.status.energy is not None:
            now_joules = self.used().joules
            for component, by_source in self.last.items():
                for source, value in by_source.items():
                    assert now_joules[component][source] >= value, "nothing is taken back"
            self.last = now_joules

    def _view(self, now: float, found: ReportView | None, supply: Supply) -> View:
        pods = tuple(worker(n) for n in range(len(self.seats)))
        return View(job=self.seen(), now=NOW + timedelta(seconds=now), pods=pods, report=found, supply=supply)


__all__ = ["Counted", "Launcher", "Seat"]
