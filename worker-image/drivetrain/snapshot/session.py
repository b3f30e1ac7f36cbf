"""The snapshots of one process: where its run goes on from, what it writes, and what is said of that."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Final

import torch

from drivetrain import say
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import beginning
from drivetrain.snapshot.beginning import Pin
from drivetrain.snapshot.errors import Fenced, StorageError
from drivetrain.snapshot.found import Found, Point, begin_run, reach
from drivetrain.snapshot.names import RUNS, BaseName, SegmentName, run_number
from drivetrain.snapshot.prune import Pins, surplus
from drivetrain.snapshot.recorder import Recorder
from drivetrain.snapshot.restore import Restore
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.storage.place import storage_of
from drivetrain.state import TrainingState
from drivetrain.update import Record
from drivetrain.world.base import World
from drivetrain_api.messages import Snapshotted
from drivetrain_api.runtime import RuntimeSnapshots

_LOOK_SECONDS: Final = 0.5
_SAVED_SECONDS: Final = 5.0
"""That a membership waits at most to hear from the storage what it will most likely not need."""
_LOOK_PAUSE: Final = 20
"""Times as long as a look took: a list of many objects is slow."""


class Snapshots:
    """Implements `Recording`."""

    def __init__(
        self,
        settings: RuntimeSnapshots,
        strategy: Strategy,
        state: TrainingState,
        position: Position,
        world: World,
    ) -> None:
        self._storage = storage_of(settings)
        self._settings = settings
        self._strategy = strategy
        self._state = state
        self._position = position
        self._world = world
        self.recorder = Recorder(
            self._storage,
            settings,
            strategy,
            state,
            position,
            lambda: ((world.epoch.term, world.epoch.n), world.rank, world.size),
        )
        self.recorder.bases.on_complete = self._prune
        self.recorder.log.on_durable = self._look_at_all
        self._bases: list[tuple[BaseName, int]] = []
        """That this process has written the manifest of, as the speaker, and the step that each is whole from."""
        self._durable: int | None = None
        self._durable_since = 0.0
        self._restored: tuple[int, float] | None = None
        """Step that this process began with, and seconds that this took."""
        self._look_again = 0.0
        self._newer: str | None = None
        """Who has taken the job over."""
        self._pin: Pin | None = None
        """On what this job is a branch of, until it has a base of its own."""
        self._pins = Pins()
        self._looking: threading.Thread | None = None
        """Asks the storage for `saved_step`."""

    # --- where it goes on from ----------------------------------------------------------------------------------------

    def first_state(self, saved_step: int) -> bool:
        """Nobody has state: take that of the last durable step, unless a file has a later one; or another job's, if
        this one is a branch of it and has none of its own. Returns whether it did.

        Raises `StateMismatch` if it does not fit this script, `UsageError` if there is no such step, `StorageError`.
        """
        found = beginning.looked_at(self._storage)
        point = beginning.best(found, saved_step, math.inf, self._restore)
        branch = self._settings.restore_from
        origin = None
        if point is None and branch is not None and (not found.newest or saved_step < (branch.step or 0)):
            self._pin, origin = beginning.branched(branch, self._storage_at, str(self._storage), self._restore)
        elif point is None and found.newest and saved_step < 0:
            text = "no base is whole, or none verifies: training begins anew, and what is there stays"
            say.note(f"snapshots: {self._storage}: {text}", level="warning")
        epoch = self._world.epoch.term, self._world.epoch.n
        self._position.run = beginning.persistently(lambda: begin_run(found, point, epoch, origin))
        return point is not None or origin is not None

    def _storage_at(self, place: str) -> Storage:
        return storage_of(self._settings.model_copy(update={"storage": place}))

    def _restore(self, found: Found, point: Point) -> None:
        began = time.monotonic()
        Restore(self._strategy, self._state, self._position).to(found, point)
        self._position.begin()
        self._restored = point.step, time.monotonic() - began
        say.line(
            f"restored step {point.step} from {found.storage}: the base of step {point.base.step} and "
            f"{point.replayed} steps applied again, in {time.monotonic() - began:.1f} s"
        )

    # --- what is written ----------------------------------------------------------------------------------------------

    def rounded(self, record: Record) -> Record:
        return self.recorder.rounded(record)

    def applying(self, record: Record) -> None:
        self.recorder.applying(record)

    def applied(self, step: int) -> None:
        """It was; the script's share in it, and what it does until the next step, follow."""
        self.recorder.taken(step)
        if self._strategy.sharded is None:
            self.recorder.applied(step)

    def settled(self, step: int) -> None:
        """The same, where updated parts had to go to all ranks first."""
        if self._strategy.sharded is not None:
            self.recorder.applied(step)

    def entering(self, *, ends: bool = False) -> None:
        """The script has come to its next step, or `ends`."""
        if self._newer is not None:
            raise Fenced(f"{self._storage}: {self._newer}")
        with torch.no_grad():
            self.recorder.entering(ends=ends)

    def saved_step(self) -> int:
        """The step that all could go back to; -1: none. Looks into the storage: if that does not answer soon, there may
        well be one, and whoever starts anew will ask for longer. The other ranks wait for this answer."""
        if self._looking is not None and self._looking.is_alive():  # it hangs: one thread that does is enough
            return self._durable or 0
        steps: list[int] = []

        def look() -> None:
            with contextlib.suppress(StorageError):
                steps.append(max((point.step for point in Found.of(self._storage).points()), default=-1))

        self._looking = threading.Thread(target=look, name="drivetrain-saved-step", daemon=True)
        self._looking.start()
        self._looking.join(_SAVED_SECONDS)
        return steps[0] if steps else self._durable or 0

    def told(self) -> Snapshotted:
        """For the outside, by the rank that writes for all."""
        log, bases = self.recorder.log, self.recorder.bases
        defect = log.defect or bases.thread.defect
        failure = (
            log.failure
            or log.stalled
            or bases.failure
            or (None if defect is None else f"{type(defect).__name__}: {defect}")
        )
        return Snapshotted(
            durable=self._durable,
            age_seconds=time.monotonic() - self._durable_since if self._durable is not None else None,
            restored=self._restored[0] if self._restored is not None else None,
            restored_seconds=self._restored[1] if self._restored is not None else None,
            bytes_written=log.written_bytes + bases.written_bytes,
            backlog_bytes=log.waiting_bytes + bases.thread.waiting_bytes,
            dropped_steps=log.dropped,
            failure=failure,
            differs=self.recorder.differs,
        )

    def _look_at_all(self) -> None:
        """What all ranks have written: seen where it is, so that nobody has to be believed. In the log's thread."""
        seat = self.recorder.seat
        if seat is None or not seat.speaks or time.monotonic() < self._look_again:
            return
        self._forget_bases(lambda base: (base.run, base.epoch) != (seat.run, seat.epoch))
        if not self._bases:
            self._durable = None
            return
        began = time.monotonic()
        try:
            names = self._storage.list(SegmentName.folder(seat.run, seat.epoch))
            newest = max((run_number(name) or 0 for name in self._storage.list(RUNS)), default=0)
            if newest > seat.run:
                self._newer = f"run {newest} has begun, and this process is of run {seat.run}"
        except StorageError as error:
            self.recorder.log.failure = str(error)
            return
        finally:
            took = time.monotonic() - began
            self._look_again = time.monotonic() + max(_LOOK_SECONDS, _LOOK_PAUSE * took)
        segments = [found for name in names if (found := SegmentName.parse(name)) is not None]
        # A base counts when all is there that was applied while it was copied; until then the one before does.
        reached = [(reach(segments, base.step, seat.world), base, last) for base, last in self._bases]
        usable = [(step, base) for step, base, last in reached if step >= last]
        durable = max((step for step, _ in usable), default=None)
        if durable is not None:
            first = max(base for _, base in usable)
            self._forget_bases(lambda base: base < first)
        if durable != self._durable:
            self._durable, self._durable_since = durable, began

    def _forget_bases(self, is_old: Callable[[BaseName], bool]) -> None:
        for each in list(self._bases):  # another thread may add one meanwhile
            if is_old(each[0]):
                self._bases.remove(each)

    def hurry(self) -> None:
        """The end may come at any moment: each step is written by itself from now on. Called from another thread."""
        self.recorder.log.hurry()
        self.recorder.capture.hurries = True

    def flush(self, seconds: float) -> bool:
        """Have written what is complete. May be called from any thread."""
        return self.recorder.flush(seconds)

    def end(self, seconds: float) -> None:
        """The process ends."""
        self.recorder.end(seconds)

    def _prune(self, newest: BaseName) -> None:
        """A new base is there: what only older ones need goes."""
        self._bases.append((newest, self.recorder.bases.complete_from))
        found = Found.of(self._storage)
        if self._pin is not None and found.points():
            self._pin.off()
        if found.newest > newest.run:
            return  # somebody newer looks after it
        names = self._storage.list("")
        stale = self._pins.stale(names)
        gone = surplus(found, names.keys() - stale, self._settings.keep_bases)
        self._storage.delete([*stale, *gone])


__all__ = ["Snapshots", "storage_of"]
