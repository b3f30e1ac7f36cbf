"""What of the state is small, and written beside gradients when it has changed: as it is now, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from drivetrain.parallel.strategy import Strategy
from drivetrain.position import Position
from drivetrain.snapshot import small
from drivetrain.snapshot.replays import attributes
from drivetrain.state import TrainingState

_OURS: Final = ("model", "optimizer")
Readers = Mapping[str, Callable[[], Any]]
"""By name: what makes a piece."""


class Beside:
    """That of one process."""

    def __init__(self, strategy: Strategy, state: TrainingState, position: Position) -> None:
        self._strategy = strategy
        self._state = state
        self._position = position
        self._trained: int | None = None
        """Digest of what was trained when that was written last."""

    def forget(self) -> None:
        """Whoever reads what comes now has not read what came before."""
        self._trained = None

    def before(self) -> Readers:
        """Pieces that decide how a step is applied."""
        found: dict[str, Callable[[], Any]] = {small.GROUPS: self._groups}
        if self._trained != self._strategy.trained.digest:
            self._trained = self._strategy.trained.digest
            found[f"{small.STATE}trained"] = _reader(self._state, "trained")
        return found

    def after(self, *, every: bool = False, buffers: bool = False) -> Readers:
        """Pieces as they are when a step is complete. `every`: also what seldom changes. `buffers`: all that the model
        has beside parameters."""
        optimizer = self._strategy.optimizer
        found: dict[str, Callable[[], Any]] = {small.GROUPS: self._groups, small.POSITION: self._position.dump}
        found[small.REST] = lambda: _without_tensors(optimizer)
        found[small.ATTRIBUTES] = lambda: attributes(optimizer)
        for name in self._state.kept:
            if name not in _OURS and (name != "trained" or every or self._is_trained_otherwise()):
                found[small.STATE + name] = _reader(self._state, name)
        if buffers:
            found[small.BUFFERS] = self._state.beside_parameters
        return found

    def _groups(self) -> list[dict[str, Any]]:
        groups = self._strategy.optimizer.param_groups
        return [{name: each for name, each in group.items() if name != "params"} for group in groups]

    def _is_trained_otherwise(self) -> bool:
        """Than was written last: a long list, and the same in nearly every step."""
        trained, before = self._strategy.trained, self._trained
        self._trained = trained.digest if trained.change() is None else None
        return self._trained is None or self._trained != before


def _reader(state: TrainingState, name: str) -> Callable[[], Any]:
    return lambda: state.collect_whole(name)


def _without_tensors(optimizer: torch.optim.Optimizer) -> dict[Any, Any]:
    """What it keeps that belongs to no parameter."""
    return {key: value for key, value in optimizer.state.items() if not isinstance(key, torch.Tensor)}
