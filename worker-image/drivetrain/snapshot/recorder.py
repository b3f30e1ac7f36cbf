"""What of each step is written, and when does a base begin? The trainer's side: copies, hands over, and goes on.

A step is recorded where it is applied, and is complete when the script comes to the next one: until then its lines may
change what is registered. All ranks of a membership come to the same conclusion about where a base begins, because they
look at what they have in common: a new membership, and the number of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from drivetrain import say
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import small
from drivetrain.snapshot.base import Bases
from drivetrain.snapshot.beside import Beside
from drivetrain.snapshot.capture import Capture, unit_of
from drivetrain.snapshot.copying import Copying
from drivetrain.snapshot.gradients import Slicer, round_to_bf16
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.log import Log, Rows, Slices, Written
from drivetrain.snapshot.parts import Range, held_by, shared_out
from drivetrain.snapshot.replays import tried
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.tensors import dtype_name, flat_bytes
from drivetrain.snapshot.units import Unit
from drivetrain.snapshot.watch import States, Watch
from drivetrain.state import TrainingState
from drivetrain.update import Record, parameters_of
from drivetrain_api.runtime import RuntimeSnapshots

_LOG_BYTES: Final = 512 << 20
_BASE_BYTES: Final = 256 << 20
_LONGEST_STALL: Final = 300.0


Place = tuple[tuple[int, int], int, int]
"""A membership, this process's rank in it and its size."""


@dataclass(slots=True)
class _Pending:
    """A step that was applied and is not complete."""

    seat: Seat
    step: int
    keys: tuple[Key, ...]
    data: torch.Tensor
    rows: list[Rows]
    record: dict[str, Any]
    before: dict[str, bytes]


class Recorder:
    """That of one process."""

    def __init__(
        self,
        storage: Storage,
        settings: RuntimeSnapshots,
        strategy: Strategy,
        state: TrainingState,
        position: Position,
        where: Callable[[], Place],
    ) -> None:
        """`where()`: the membership, this process's rank in it and its size."""
        self.storage = storage
        self.settings = settings
        self._strategy = strategy
        self._state = state
        self._position = position
        self._where = where
        self._place: Place = (0, 0), 0, 1
        """Where the record about to be applied came about."""
        wait = _LONGEST_STALL if settings.when_slow == "wait" else 0.0
        self.log = Log(storage, settings.commit_seconds, _LOG_BYTES, wait)
        self.bases = Bases(storage, _BASE_BYTES)
        self._busy_seconds = 0.0
        found = tried(strategy.optimizer)
        self.differs = found.differs
        """Why the optimizer's state is written with each step instead of gradients; None: it is not."""
        if self.differs is not None:
            say.note(f"snapshots: {self.differs}: each step writes the state that it has made")
        self._pieces = small.Pieces()
        self._beside = Beside(strategy, state, position)
        self._copying = Copying()
        self._slicer = Slicer(
            strategy, self._copying, rounded=settings.precision == "bf16", used_up=found.changes_gradients
        )
        self.capture = Capture(
            self.bases, strategy, state, position, self._beside, self._copying, settings.base_every_steps
        )
        self._pending: _Pending | None = None
        self.seat: Seat | None = None
        self._base_due = False
        self._watch = Watch()
        self._watch_buffers = Watch()
        self._states = States()
        self._touched = False
        self._remade = False
        """The script has changed what the optimizer keeps, or replaced parameters, since the last step."""
        self.scripted = False
        """The script changes parameters between the steps: they are written, too."""
        self._buffers_scripted = False
        """The same of buffers; or the model has state that is neither."""
        self._has_buffers = False

    @property
    def blocked_seconds(self) -> float:
        """By which training was held up, all in all."""
        return self._busy_seconds + self._copying.waited_seconds

    # --- a step is applied --------------------------------------------------------------------------------------------

    def rounded(self, record: Record) -> Record:
        """With the gradient as it is written, and so applied: called on all ranks alike, in the membership in which it
        came about."""
        self._place = self._where()
        if self.settings.precision != "bf16":
            return record
        # After clipping, because what is written is what the optimizer gets. What is skipped may be infinite.
        factor = 1.0 if record.skipped else record.factor
        round_to_bf16(record.gradients, factor)
        return record if record.skipped else replace(record, factor=1.0)

    def applying(self, record: Record) -> None:
        """A step is about to be applied here: keep this rank's slice of it."""
        began = time.perf_counter()
        epoch, rank, world = self._place
        seat = Seat(self._position.run, epoch, rank, world)
        if seat != self.seat:
            self.seat, self._base_due = seat, True
            self._pieces.forget()
            self._beside.forget()
            self.capture.give_up()
            self._watch.forget()
            self._watch_buffers.forget()
            self._states.forget()
        self._base_due |= (record.step + 1) % self.settings.base_every_steps == 0
        whole = self.differs is not None
        keys, data = self._slicer.take(record, rank, world, epoch) if not whole else ((), torch.empty(0))
        self._pending = _Pending(
            seat,
            record.step,
            keys,
            data,
            self._slicer.rows(record, rank, world) if not whole else [],
            {
                "step": record.step,
                "norm": record.norm,
                "factor": record.factor,
                "rate": record.rate,
                "skipped": record.skipped,
                "whole": whole,
                "buffers": dict(record.buffers),
            },
            self._pieces.changed(self._beside.before()) if seat.speaks else {},
        )
        self._busy_seconds += time.perf_counter() - began

    def taken(self, step: int) -> None:
        """The optimizer has done its part; its gradients may be used for something else."""
        if self._slicer.taken():
            return
        self._leave_out()
        who = type(self._strategy.optimizer).__name__
        text = (
            f"{who} changed gradients: step {step} is not written, and from now on they are copied before it has them"
        )
        say.note(f"snapshots: {text}", level="warning")

    def _leave_out(self) -> None:
        """The log has a gap, which the next base ends."""
        self._pending = None
        self._pieces.forget()
        self._beside.forget()

    def applied(self, step: int) -> None:
        """It was."""
        began = time.perf_counter()
        self._remade = False
        self._states.after(self._strategy.optimizer)
        if not self.scripted and self._pending is not None:
            self._touched = False
            self._watch.after(step, [*self._strategy.trained.every, *parameters_of(self._strategy.optimizer)])
        if not self._buffers_scripted and self._has_buffers:
            self._watch_buffers.after(step, list(self._strategy.model.buffers()))
        self._busy_seconds += time.perf_counter() - began

    def look_away(self) -> None:
        """What happens to parameters from now on (they are put together for a file) is not the script's doing."""
        self._touched |= self._watch.changed()
        self._remade |= self._states.changed(self._strategy.optimizer)
        self._buffers_scripted |= self._buffers_changed()

    def look_again(self) -> None:
        """From now on it is."""
        self._watch.again()
        self._watch_buffers.again()
        self._states.after(self._strategy.optimizer)

    def begin_again(self) -> None:
        """The ranks' state differed, and does not any more: what was copied of a base so far may be of either."""
        self.capture.give_up()
        self.bases.abandon()
        self._base_due = True
        # What one rank took for the script's doing may have been a bit that flipped there; else all find it again.
        self.scripted = False

    def _buffers_changed(self) -> bool:
        if not self._has_buffers:
            return False
        return self._watch_buffers.changed() or not self._watch_buffers.are(list(self._strategy.model.buffers()))

    # --- the script has come to the next one --------------------------------------------------------------------------

    def entering(self, *, ends: bool = False) -> None:
        """A step is about to begin here, or the script `ends`: what came before it is complete."""
        began = time.perf_counter()
        self._complete()
        if ends:
            return  # a base that begins now, or one with a share left, would not be whole in time
        if self._base_due and self.seat is not None:
            self._begin_base(self.seat)
        self.capture.go_on()
        self._busy_seconds += time.perf_counter() - began

    def _begin_base(self, seat: Seat) -> None:
        self._base_due = False
        self._has_buffers = next(self._strategy.model.buffers(), None) is not None
        self._buffers_scripted |= self._state.has_extra
        self.capture.begin(seat, spread=not self.scripted)

    def _complete(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        same = self._where()[0] == pending.seat.epoch  # else they may be what a peer has
        if not same and (self.scripted or self.differs is not None):
            return  # what was made of them is not known here; the new membership's base is due
        if same and not self.scripted and self.differs is None and (self._touched or self._watch.changed()):
            self.scripted = True
            self._base_due |= self._strategy.sharded is None  # else other ranks may find out at other steps
            say.note("snapshots: the script changes parameters between steps; they are written with each step")
        remade = same and (self._remade or self._states.changed(self._strategy.optimizer) or self._are_others)
        told = b""
        if pending.seat.speaks:
            self._buffers_scripted = self._buffers_scripted or (same and self._buffers_changed())
            after = self._pieces.changed(self._beside.after(buffers=self._buffers_scripted))
            # An optimizer that looks at whole tensors had these sums of all ranks; added up otherwise, bits differ.
            sums = self._strategy.sums_over_parts
            told = small.dump({**pending.record, "sums": sums}, pending.before, after)
        data = pending.data
        slices = Slices(
            pending.step,
            pending.keys,
            flat_bytes(data),
            dtype_name(data.dtype),
            pending.rows,
            told,
            self._values(pending) if self.scripted else (),
            self._units(pending) if self.differs is not None or remade else (),
        )
        put = self.log.put(pending.seat, slices, lambda: self._slicer.give_back(data))
        if not put:
            self._leave_out()

    @property
    def _are_others(self) -> bool:
        """The model has other parameters than when the step began."""
        trained = self._strategy.trained
        if self._strategy.sharded is not None or trained.change() is None:
            return False
        return list(map(id, self._strategy.model.parameters())) != list(map(id, trained.every))

    def _units(self, pending: _Pending) -> list[Unit]:
        """This rank's share of all state."""
        share = shared_out(held_by(self._strategy, pending.seat.rank, pending.seat.world))
        return [unit_of(self._strategy.optimizer.state, each, pending.step + 1) for each in share]

    def _values(self, pending: _Pending) -> list[Written]:
        """This rank's share of all parameters, as the script has left them."""
        by_type: dict[torch.dtype, list[Range]] = {}
        for each in shared_out(held_by(self._strategy, pending.seat.rank, pending.seat.world)):
            by_type.setdefault(each.held.tensor.dtype, []).append(each)
        return [
            Written(
                tuple(each.key for each in ranges),
                flat_bytes(torch.cat([each.of(each.held.tensor.detach()).cpu() for each in ranges])),
                dtype_name(dtype),
            )
            for dtype, ranges in by_type.items()
        ]

    # --- the end ------------------------------------------------------------------------------------------------------

    def flush(self, seconds: float) -> bool:
        """Have all that is complete written; whether it is, after at most so long."""
        return self.log.flush(seconds)

    def end(self, seconds: float) -> bool:
        """The process ends: the same, and the threads end."""
        done = self.log.end(seconds)
        self.bases.thread.end(0.5)
        self._copying.end()
        return done
