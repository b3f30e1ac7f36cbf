"""What of each step is written, and when does a base begin? The trainer's side: copies, hands over, and goes on.

A step is recorded where it is applied, and is complete when the script comes to the next one: until then its lines may
change what is registered. All ranks of a membership come to the same conclusion about where a base begins, because they
look at what they have in common: a new membership, and the number of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from drivetrain import wire
from drivetrain.errors import UsageError
from drivetrain.parallel.coupled import refuse_unless_elementwise
from drivetrain.parallel.partition import is_like
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import small
from drivetrain.snapshot.base import Bases, Unit, Values
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.log import Log, Rows, Slices, Written
from drivetrain.snapshot.names import BaseName
from drivetrain.snapshot.parts import Range, held_by, shared_out
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.tensors import dtype_name, flat_bytes
from drivetrain.snapshot.watch import Watch
from drivetrain.state import TrainingState
from drivetrain.update import Record, parameters_of
from drivetrain_api.runtime import RuntimeSnapshots

UNIT_ELEMENTS: Final = 1 << 18
STEP_BYTES: Final = 2 << 20
"""Of a base, that are copied before a step at least: about half a millisecond. More where it would not be whole
half-way to the next one."""
_LOG_BYTES: Final = 512 << 20
_BASE_BYTES: Final = 256 << 20
_LONGEST_STALL: Final = 300.0
_OURS: Final = ("model", "optimizer")


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


@dataclass(slots=True)
class _Capture:
    """A base that is being handed over."""

    name: BaseName
    units: Iterator[Range]
    seat: Seat
    sizes: dict[str, int]
    spread: bool
    pace: int
    """Bytes before each step."""


class Recorder:
    """That of one process."""

    def __init__(
        self,
        storage: Storage,
        settings: RuntimeSnapshots,
        strategy: Strategy,
        state: TrainingState,
        position: Position,
        where: Callable[[], tuple[tuple[int, int], int, int]],
    ) -> None:
        """`where()`: the membership, this process's rank in it and its size."""
        self.storage = storage
        self.settings = settings
        self._strategy = strategy
        self._state = state
        self._position = position
        self._where = where
        wait = _LONGEST_STALL if settings.when_slow == "wait" else 0.0
        self.log = Log(storage, settings.commit_seconds, _LOG_BYTES, wait)
        self.bases = Bases(storage, _BASE_BYTES)
        self.blocked_seconds = 0.0
        """By which training was held up, all in all."""
        self._pieces = small.Pieces()
        self._pending: _Pending | None = None
        self._capture: _Capture | None = None
        self.seat: Seat | None = None
        self._base_due = False
        self._watch = Watch()
        self._watch_buffers = Watch()
        self._touched = False
        self.scripted = False
        """The script changes parameters between the steps: they are written, too."""
        self._buffers_scripted = False
        """The same of buffers; or the model has state that is neither."""
        self._has_buffers = False
        self._trained: int | None = None
        """Digest of what was trained when that was written last."""
        self._ranges: tuple[tuple[object, ...], list[Range], tuple[Key, ...]] | None = None
        self._elementwise: bool | None = None
        self._buffers: list[torch.Tensor] = []
        """To copy slices into: what the log has done with."""

    # --- a step is applied --------------------------------------------------------------------------------------------

    def rounded(self, record: Record) -> Record:
        """With the gradient as it is written, and so applied: called on all ranks alike."""
        if self.settings.precision == "bf16":
            for each in record.gradients:
                if each is not None:
                    values = each._values() if each.is_sparse else each
                    values.copy_(values.to(torch.bfloat16))
        return record

    def applying(self, record: Record) -> None:
        """A step is about to be applied here: keep this rank's slice of it."""
        began = time.perf_counter()
        epoch, rank, world = self._where()
        seat = Seat(self._position.run, epoch, rank, world)
        if seat != self.seat:
            self.seat, self._base_due = seat, True
            self._pieces.forget()
            self._capture, self._trained = None, None
            self._watch.forget()
            self._watch_buffers.forget()
        self._base_due |= (record.step + 1) % self.settings.base_every_steps == 0
        ranges, keys = self._ranges_of(record, rank, world)
        views = [each.of(_given(record.gradients[each.held.place])) for each in ranges]
        self._pending = _Pending(
            seat,
            record.step,
            keys,
            self._copied(views),
            self._rows(record, rank, world),
            {
                "step": record.step,
                "norm": record.norm,
                "factor": record.factor,
                "rate": record.rate,
                "skipped": record.skipped,
                "buffers": dict(record.buffers),
            },
            self._pieces.changed(self._before()) if seat.speaks else {},
        )
        self.blocked_seconds += time.perf_counter() - began

    def _ranges_of(self, record: Record, rank: int, world: int) -> tuple[list[Range], tuple[Key, ...]]:
        """Of the dense gradients that there are."""
        used = [each is not None and not each.is_sparse for each in record.gradients]
        known = (rank, world, self._where()[0], self._strategy.trained.digest, used)
        if self._ranges is None or self._ranges[0] != known:
            held = held_by(self._strategy, rank, world)
            ranges = shared_out([each for each in held if each.place >= 0 and used[each.place]])
            self._ranges = (known, ranges, tuple(each.key for each in ranges))
        return self._ranges[1:]

    def _copied(self, views: list[torch.Tensor]) -> torch.Tensor:
        """In memory of their own, one after another."""
        size = sum(each.numel() for each in views)
        dtype = torch.bfloat16 if self.settings.precision == "bf16" else (views[0].dtype if views else torch.float32)
        buffer = self._buffers.pop() if self._buffers else torch.empty(0, dtype=dtype)
        if buffer.numel() != size or buffer.dtype != dtype:
            buffer = torch.empty(size, dtype=dtype)
        at = 0
        if views and views[0].dtype == dtype and views[0].device == buffer.device:
            torch.cat(views, out=buffer)
        else:
            for each in views:
                buffer[at : at + each.numel()].copy_(each)
                at += each.numel()
        return buffer

    def _rows(self, record: Record, rank: int, world: int) -> list[Rows]:
        """Of sparse gradients, which all ranks have alike: each writes some of the tables."""
        found: list[Rows] = []
        if not any(each is not None and each.is_sparse for each in record.gradients):
            return found
        for each in held_by(self._strategy, rank, world):
            gradient = record.gradients[each.place] if each.place >= 0 else None
            if gradient is None or not gradient.is_sparse or each.place % world != rank:
                continue
            indices, values = gradient._indices(), gradient._values()
            if self.settings.precision == "bf16":
                values = values.to(torch.bfloat16)
            found.append(
                Rows(
                    each.name,
                    tuple(gradient.shape),
                    flat_bytes(indices.clone()),
                    indices.shape[0],
                    indices.shape[1],
                    flat_bytes(values.clone()),
                    dtype_name(values.dtype),
                    gradient.is_coalesced(),
                )
            )
        return found

    def _groups(self) -> list[dict[str, Any]]:
        groups = self._strategy.optimizer.param_groups
        return [{name: each for name, each in group.items() if name != "params"} for group in groups]

    def applied(self, step: int) -> None:
        """It was."""
        if not self.scripted and self._pending is not None:
            self._touched = False
            self._watch.after(step, [*self._strategy.trained.every, *parameters_of(self._strategy.optimizer)])
        if not self._buffers_scripted and self._has_buffers:
            self._watch_buffers.after(step, list(self._strategy.model.buffers()))

    def look_away(self) -> None:
        """What happens to parameters from now on (they are put together for a file) is not the script's doing."""
        self._touched |= self._watch.changed()
        self._buffers_scripted |= self._buffers_changed()

    def look_again(self) -> None:
        """From now on it is."""
        self._watch.again()
        self._watch_buffers.again()

    def _buffers_changed(self) -> bool:
        if not self._has_buffers:
            return False
        return self._watch_buffers.changed() or not self._watch_buffers.are(list(self._strategy.model.buffers()))

    # --- the script has come to the next one --------------------------------------------------------------------------

    def entering(self) -> None:
        """A step is about to begin here, or the script has ended: what came before it is complete."""
        began = time.perf_counter()
        self._complete()
        if self._base_due and self.seat is not None:
            self._begin_base(self.seat)
        if self._capture is not None:
            self._hand_over(self._capture)
        self.blocked_seconds += time.perf_counter() - began

    def _complete(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        same = self._where()[0] == pending.seat.epoch  # else they may be what a peer has
        if same and not self.scripted and (self._touched or self._watch.changed()):
            self.scripted = True
            self._base_due |= self._strategy.sharded is None  # else other ranks may find out at other steps
            print("drivetrain: snapshots: the script changes parameters between steps; they are written with each step")
        told = b""
        if pending.seat.speaks:
            self._buffers_scripted = self._buffers_scripted or (same and self._buffers_changed())
            after = self._pieces.changed(self._after())
            # An optimizer that looks at whole tensors had these sums of all ranks; added up otherwise, bits differ.
            sums = self._strategy.sums_over_parts
            told = small.dump({**pending.record, "sums": sums}, pending.before, after)
        data = pending.data
        values = self._values(pending) if self.scripted else ()
        slices = Slices(
            pending.step, pending.keys, flat_bytes(data), dtype_name(data.dtype), pending.rows, told, values
        )
        put = self.log.put(pending.seat, slices, lambda: self._buffers.append(data))
        if not put:
            self._pieces.forget()
            self._trained = None

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

    def _before(self) -> Mapping[str, Callable[[], Any]]:
        """Pieces that decide how a step is applied."""
        found: dict[str, Callable[[], Any]] = {small.GROUPS: self._groups}
        if self._trained != self._strategy.trained.digest:
            self._trained = self._strategy.trained.digest
            found[f"{small.STATE}trained"] = _reader(self._state, "trained")
        return found

    def _after(self, *, every: bool = False) -> Mapping[str, Callable[[], Any]]:
        """Pieces of the state, as they are now."""
        found: dict[str, Callable[[], Any]] = {small.GROUPS: self._groups, small.POSITION: self._position.dump}
        found[small.REST] = lambda: _without_tensors(self._strategy.optimizer)
        for name in self._state.kept:
            if name not in _OURS and (name != "trained" or every or self._is_trained_otherwise()):
                found[small.STATE + name] = _reader(self._state, name)
        if self._buffers_scripted and not every:
            found[small.BUFFERS] = self._state.beside_parameters
        return found

    def _is_trained_otherwise(self) -> bool:
        """Than was written last: a long list, and the same in nearly every step."""
        trained, before = self._strategy.trained, self._trained
        self._trained = trained.digest if trained.change() is None else None
        return self._trained is None or self._trained != before

    # --- a base -------------------------------------------------------------------------------------------------------

    def _begin_base(self, seat: Seat) -> None:
        step = self._position.step
        self._base_due = False
        held = held_by(self._strategy, seat.rank, seat.world)
        told = b""
        sizes: dict[str, int] = {}
        if seat.speaks:
            every = small.Pieces().changed(self._after(every=True))
            buffers, model = self._state.beside_parameters(), self._described()
            told = wire.dump({"pieces": every, "buffers": buffers, "optimizer": self._optimizer_name, "model": model})
            sizes = {name: torch.Size(shape).numel() for name, (shape, _) in model.items()}
        name = BaseName(seat.run, step, seat.epoch)
        if self._capture is not None:  # storage is so slow that the one before is not handed over yet
            self.bases.skip(name, seat)
            return
        self._has_buffers = next(self._strategy.model.buffers(), None) is not None
        self._buffers_scripted |= self._state.has_extra
        self.bases.begin(name, seat, told)
        share = shared_out(held)
        size = sum((each.last - each.first) * each.held.tensor.element_size() * self._copies(each) for each in share)
        pace = max(STEP_BYTES, 2 * size // self.settings.base_every_steps)
        units = (
            Range(each.held, first, min(first + UNIT_ELEMENTS, each.last))
            for each in share
            for first in (range(each.first, each.last, UNIT_ELEMENTS) or (each.first,))  # also of one without elements
        )
        self._capture = _Capture(name, units, seat, sizes, self._may_spread(), pace)

    def _copies(self, range_: Range) -> int:
        """Of a parameter: itself, and what the optimizer has of each element."""
        state = self._strategy.optimizer.state.get(range_.held.tensor, {}) if range_.held.place >= 0 else {}
        return 1 + sum(1 for name, value in state.items() if is_like(name, value, range_.held.tensor))

    @property
    def _optimizer_name(self) -> str:
        kind = type(self._strategy.optimizer)
        return f"{kind.__module__}.{kind.__qualname__}"

    def _described(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each parameter, whole."""
        sharded = self._strategy.sharded
        whole = sharded is None or sharded.mesh is None
        return {
            name: (tuple(each.shape if whole else sharded.where(name).shape), dtype_name(each.dtype))  # type: ignore[union-attr]
            for name, each in self._strategy.model.named_parameters()
        }

    def _may_spread(self) -> bool:
        """Whether the replay of a part is right while others are not there yet."""
        if self.scripted:
            return False
        if self._elementwise is None:
            try:
                refuse_unless_elementwise(self._strategy.optimizer, "snapshots")
                self._elementwise = True
            except UsageError:
                self._elementwise = False
        return self._elementwise

    def _hand_over(self, capture: _Capture) -> None:
        """Copy some of it, or all of it at once."""
        left = capture.pace
        for each in capture.units:
            unit = self._unit(each)
            self.bases.add(unit)
            left -= unit.bytes
            if capture.spread and (left <= 0 or not self.bases.room(STEP_BYTES)):
                return
        self._capture = None
        self.bases.finish(capture.sizes, self._position.step)

    def _unit(self, range_: Range) -> Unit:
        held, inside = range_.held, slice(range_.first, range_.last)
        values = _values(held.flat(held.tensor.detach())[inside])
        state: dict[str, Values] = {}
        rest: dict[str, Any] = {}
        names = self._strategy.optimizer.state.get(held.tensor, {}) if held.place >= 0 else {}
        if names:
            for name, value in names.items():
                if is_like(name, value, held.tensor):
                    state[name] = _values(held.flat(value)[inside])
                else:
                    rest[name] = value
        return Unit(range_.key, self._position.step, values, state, wire.dump(rest), tuple(names))

    # --- the end ------------------------------------------------------------------------------------------------------

    def flush(self, seconds: float) -> bool:
        """Have all that is complete written; whether it is, after at most so long."""
        return self.log.flush(seconds)

    def end(self, seconds: float) -> bool:
        """The process ends: the same, and the threads end."""
        done = self.log.end(seconds)
        self.bases.thread.end(0.5)
        return done


def _given(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient


def _values(tensor: torch.Tensor) -> Values:
    """A copy."""
    return Values(flat_bytes(tensor.detach().to("cpu", copy=True)), dtype_name(tensor.dtype))


def _reader(state: TrainingState, name: str) -> Callable[[], Any]:
    return lambda: state.collect_whole(name)


def _without_tensors(optimizer: torch.optim.Optimizer) -> dict[Any, Any]:
    """What it keeps that belongs to no parameter."""
    return {key: value for key, value in optimizer.state.items() if not isinstance(key, torch.Tensor)}
