"""From which state does a run begin, when no member has any? From its snapshots, or a file that `run.save` wrote,
whichever is of a later step; else as the script made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from drivetrain import say
from drivetrain.checkpoint import load_checkpoint, saved_step
from drivetrain.errors import UsageError
from drivetrain.position import Position
from drivetrain.prepared import Prepared
from drivetrain.results.folder import to_read
from drivetrain.snapshot.export import end_with_export
from drivetrain.snapshot.hand.request import Request
from drivetrain.snapshot.session import Snapshots, storage_of
from drivetrain.state import TrainingState


@dataclass(frozen=True, slots=True)
class Resumption:
    """Of one process."""

    made: Prepared
    state: TrainingState
    position: Position
    snapshots: Snapshots | None
    path: Path | None
    """Of the file, as the script has said it, if it has."""

    def saved_step(self) -> int:
        """A step that is saved, should the state of this one be lost; -1: none."""
        kept = self.snapshots.saved_step() if self.snapshots is not None else -1
        return max(kept, saved_step(to_read(self.path)) if self.path is not None else -1)

    def begin(self) -> None:
        """Nobody has state: load what there is."""
        if (request := Request.from_environment()) is not None:
            self._export(request)
        path = to_read(self.path) if self.path is not None else None
        newest = saved_step(path) if path is not None else -1
        restored = False
        if self.snapshots is not None:
            with self.made.only_update.updating():
                restored = self.snapshots.first_state(newest)
        if restored:
            self.made.resumed()
        elif path is not None:
            self._resume(path)

    def _export(self, request: Request) -> NoReturn:
        settings = self.made.settings.snapshots
        if settings is None:
            raise UsageError("export: neither the job nor the script has snapshots: say where they are, as STORAGE")
        with self.made.only_update.updating():
            end_with_export(request, storage_of(settings), self.made.strategy, self.state, self.position)

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        state, position = load_checkpoint(path)
        self.made.fit(state, path)
        self.state.load(state)
        self.made.resumed()
        self.position.load(position)
        self.position.begin()
        say.line(f"resumed from {path} at step {self.position.step}")
