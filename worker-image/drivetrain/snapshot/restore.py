"""How does a run come back? The base's numbers are put in their places, and the steps since are applied again, by the
very function that applied them first (`update.apply`), so that the bits are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drivetrain.errors import StateMismatch
from drivetrain.memory_format import flat_in, shaped_in
from drivetrain.optim.layerwise import LayerWise
from drivetrain.optim.several import kind_of
from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import small
from drivetrain.snapshot.codec import decode, unpack
from drivetrain.snapshot.errors import Damaged
from drivetrain.snapshot.found import Found, Point, Step
from drivetrain.snapshot.keys import Key
from drivetrain.snapshot.log import Written
from drivetrain.snapshot.replays import set_attributes
from drivetrain.snapshot.tensors import dtype_name, from_bytes
from drivetrain.state import TrainingState
from drivetrain.update import Record, State, apply, parameters_of


@dataclass(frozen=True, slots=True)
class _Unit:
    key: Key
    step: int
    value: torch.Tensor
    state: dict[str, torch.Tensor]
    rest: dict[str, Any]
    order: tuple[str, ...]
    """Names of all of its state, as the optimizer has them."""


class Restore:
    """Of one process, whose model and optimizer are whole, and whose state counts for nothing yet."""

    def __init__(
        self,
        strategy: Strategy,
        state: TrainingState,
        position: Position,
    ) -> None:
        self._strategy = strategy
        self._state = state
        self._position = position
        self._known = state.vocabulary()
        self._parameters = dict(strategy.model.named_parameters())

    def to(self, found: Found, point: Point) -> None:
        """Make the state what it was before step `point.step`. Raises `StateMismatch` if that does not fit here."""
        units = _told_apart(sorted(self._units(found, point), key=lambda each: each.step), self._parameters)
        at = 0
        while at < len(units) and units[at].step <= point.base.step:
            self._put(units[at])
            at += 1
        for step in found.steps_of(point):
            while at < len(units) and units[at].step <= step.step:
                self._put(units[at])
                at += 1
            self._again(step)
        for each in units[at:]:
            self._put(each)
        for parameter in self._strategy.model.parameters():
            parameter.grad = None
        self._load_pieces()

    # --- the base -----------------------------------------------------------------------------------------------------

    def _units(self, found: Found, point: Point) -> Iterable[_Unit]:
        self._pieces: dict[str, bytes] = {}
        self._since: set[str] = set()
        buffers: dict[str, Any] = {}
        units: list[_Unit] = []
        for frame in found.base_of(point):
            kind = frame.header["kind"]
            if kind == "small":
                told = small.load(
                    unpack(frame.header["small"][0], frame.parts()[0], frame.header["small"][1]), self._known
                )
                self._refuse_other_optimizer(told["optimizer"])
                self._refuse_other_model(told["model"])
                self._refuse_other_pieces(told["pieces"])
                self._pieces, buffers = dict(told["pieces"]), told["buffers"]
            elif kind == "unit":
                units.append(self._unit(frame.header, frame.parts()))
        self._load_pieces(first=True)
        self._state.take_beside_parameters(buffers)
        return units

    def _refuse_other_optimizer(self, name: str) -> None:
        ours = kind_of(self._strategy.optimizer)
        if ours != name:
            raise StateMismatch(f"the snapshots were made with the optimizer {name}, and this script has {ours}")

    def _refuse_other_model(self, model: dict[str, tuple[tuple[int, ...], str]]) -> None:
        ours = {name: (tuple(each.shape), dtype_name(each.dtype)) for name, each in self._parameters.items()}
        for name in (*model, *ours):
            theirs, mine = model.get(name), ours.get(name)
            if theirs != mine:
                raise StateMismatch(
                    f"the parameter {name} is {_told(theirs)} in the snapshots and {_told(mine)} in this script's model"
                )

    def _refuse_other_pieces(self, pieces: dict[str, bytes]) -> None:
        theirs = {name.removeprefix(small.STATE) for name in pieces if name.startswith(small.STATE)}
        ours = {name for name in self._state.kept if name not in ("model", "optimizer")}
        if theirs != ours:
            raise StateMismatch(
                f"the snapshots have {sorted(theirs)} beside model and optimizer, and this script {sorted(ours)}"
            )

    def _unit(self, header: Mapping[str, Any], parts: Sequence[memoryview]) -> _Unit:
        key = Key.read(header["key"])
        at = len(header["planes"])
        value = from_bytes(decode(header["planes"], parts[:at], header["dtype"], key.size), header["dtype"])
        state = {}
        for name, dtype, kinds in header["state"]:
            planes = parts[at : at + len(kinds)]
            state[name] = from_bytes(decode(kinds, planes, dtype, key.size), dtype)
            at += len(kinds)
        rest = small.piece(bytes(parts[-1]), self._known)
        return _Unit(key, header["step"], value, state, rest, tuple(header["order"]))

    def _parameter(self, key: Key) -> torch.nn.Parameter:
        found = self._parameters.get(key.name)
        if found is None:
            raise StateMismatch(f"the snapshots have a parameter {key.name}, which this script's model has not")
        return found

    def _put(self, unit: _Unit) -> None:
        parameter = self._parameter(unit.key)
        with torch.no_grad():
            _fill(parameter.data, unit.key, unit.value)
        before = self._strategy.optimizer.state.pop(parameter, {})
        if not unit.order:
            return
        states = self._strategy.optimizer.state[parameter]
        for name in unit.order:
            if name in unit.rest:
                states[name] = unit.rest[name]
                continue
            value, there = unit.state[name], before.get(name)
            if there is None or there.shape != parameter.shape or there.dtype != value.dtype:
                there = torch.zeros_like(parameter, dtype=value.dtype)
            _fill(there, unit.key, value)
            states[name] = there

    # --- the steps since ----------------------------------------------------------------------------------------------

    def _again(self, step: Step) -> None:
        told = small.load(step.small, self._known)
        record = told["record"]
        self._take(told["before"])
        optimizer = self._strategy.optimizer
        gradients = self._gradients(step)
        made = Record(
            record["step"],
            [gradients.get(id(each)) for each in parameters_of(optimizer)],
            record["norm"],
            record["factor"],
            record["rate"],
            record["skipped"] or record["whole"],
            record["buffers"],
        )
        with _told_sums(optimizer, record["sums"]):
            apply(State(self._strategy.model, optimizer), made)
        for each in step.slices:
            for written in each.values:
                self._overwrite(written)
            for header, parts in each.units:
                self._put(self._unit(header, parts))
        self._take(told["after"])

    def _overwrite(self, written: Written) -> None:
        """What the script made of parameters before the next step."""
        values, at = from_bytes(written.data, written.dtype), 0
        with torch.no_grad():
            for key in written.keys:
                _fill(self._parameter(key).data, key, values[at : at + key.size])
                at += key.size

    def _gradients(self, step: Step) -> dict[int, torch.Tensor]:
        """By id of the parameter."""
        found: dict[int, torch.Tensor] = {}
        covered: dict[int, int] = {}
        for each in step.slices:
            values = from_bytes(each.data, each.dtype) if each.keys else torch.empty(0)
            at = 0
            for key in each.keys:
                parameter = self._parameter(key)
                if id(parameter) not in found:
                    found[id(parameter)] = torch.empty_like(parameter)
                    covered[id(parameter)] = 0
                _fill(found[id(parameter)], key, values[at : at + key.size])
                covered[id(parameter)] += key.size
                at += key.size
            for rows in each.rows:
                parameter = self._parameters[rows.name]
                indices = from_bytes(rows.indices, "int64").view(rows.dimensions, rows.number)
                row = from_bytes(rows.values, rows.dtype).to(parameter.dtype)
                values_ = row.view(rows.number, *rows.shape[rows.dimensions :]).to(parameter.device)
                sparse = torch.sparse_coo_tensor(
                    indices.to(parameter.device), values_, rows.shape, check_invariants=True
                )
                found[id(parameter)] = sparse._coalesced_(rows.coalesced)
                covered[id(parameter)] = parameter.numel()
        for name, parameter in self._parameters.items():
            if covered.get(id(parameter), parameter.numel()) != parameter.numel():
                raise Damaged(
                    f"step {step.step} has {covered[id(parameter)]} of {parameter.numel()} elements of {name}"
                )
        return found

    # --- what else there is -------------------------------------------------------------------------------------------

    def _take(self, pieces: dict[str, bytes]) -> None:
        """What has changed; what decides about the next update counts at once."""
        self._pieces |= pieces
        self._since |= pieces.keys()
        if small.GROUPS in pieces or f"{small.STATE}trained" in pieces:
            self._load_hyperparameters(trained=f"{small.STATE}trained" in pieces)

    def _load_hyperparameters(self, *, trained: bool) -> None:
        if trained and (told := self._pieces.get(f"{small.STATE}trained")) is not None:
            self._state.load_whole(small.piece(told, self._known))
        groups = small.piece(self._pieces[small.GROUPS], self._known)
        ours = self._strategy.optimizer.param_groups
        if len(groups) != len(ours):
            raise StateMismatch(
                f"the snapshots have {len(groups)} groups of parameters, this script's optimizer {len(ours)}"
            )
        for group, wanted in zip(ours, groups, strict=True):
            for name in [name for name in group if name != "params" and name not in wanted]:
                del group[name]
            group.update(wanted)

    def _load_pieces(self, *, first: bool = False) -> None:
        """All pieces as they are in the base, or at last those that have changed since: what steps applied again have
        made of the others is newer than what is known of them."""
        self._load_hyperparameters(trained=True)
        prefix = small.STATE
        for name, told in self._pieces.items():
            if name.startswith(prefix) and name != f"{prefix}trained" and (first or name in self._since):
                self._state.load_whole(small.piece(told, self._known))
        if first or small.ATTRIBUTES in self._since:
            set_attributes(self._strategy.optimizer, small.piece(self._pieces[small.ATTRIBUTES], self._known))
        if first or small.REST in self._since:
            states = self._strategy.optimizer.state
            for key in [key for key in states if not isinstance(key, torch.Tensor)]:
                del states[key]
            states.update(small.piece(self._pieces[small.REST], self._known))
        if not first and small.BUFFERS in self._since:
            self._state.take_beside_parameters(small.piece(self._pieces[small.BUFFERS], self._known))
        if not first:
            self._position.load(small.piece(self._pieces[small.POSITION], self._known))


def _told(about: tuple[tuple[int, ...], str] | None) -> str:
    return "missing" if about is None else f"{about[1]} of shape {tuple(about[0])}"


def _told_apart(units: list[_Unit], parameters: Mapping[str, torch.Tensor]) -> list[_Unit]:
    """State of a single element: has it an entry for each, or one for all? As others of the optimizer have it."""
    for_all = {name for each in units for name in each.rest}
    for each in units:
        if each.key.size == 1 and parameters[each.key.name].numel() > 1:
            for name in for_all & each.state.keys():
                each.rest[name] = each.state.pop(name)
    return units


@contextlib.contextmanager
def _told_sums(optimizer: torch.optim.Optimizer, sums: torch.Tensor | None) -> Iterator[None]:
    """What it asks the other ranks for is what they said then."""
    if not isinstance(optimizer, LayerWise):
        yield
        return
    before = optimizer.sum_over_ranks

    def told(numbers: torch.Tensor) -> None:
        assert sums is not None
        numbers.copy_(sums)

    optimizer.sum_over_ranks = None if sums is None else told
    try:
        yield
    finally:
        optimizer.sum_over_ranks = before


def _fill(tensor: torch.Tensor, key: Key, values: torch.Tensor) -> None:
    """Put a range of elements into a tensor, or into a part of it."""
    if key.part is not None:
        dim, index, of = key.part
        tensor = tensor.chunk(of, dim)[index]
    if key.last > tensor.numel():
        raise StateMismatch(f"the snapshots have another shape of {key.name} than this script's model")
    whole = tensor.permute(key.order) if key.order is not None else tensor
    if whole.is_contiguous():
        whole.view(-1)[key.first : key.last].copy_(values)
        return
    flat = flat_in(key.order, tensor).clone()
    flat[key.first : key.last] = values.to(flat.device, flat.dtype)
    tensor.copy_(shaped_in(key.order, flat, tensor.shape))
