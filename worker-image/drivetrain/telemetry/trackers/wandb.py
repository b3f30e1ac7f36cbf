"""How do steps get into a run of Weights & Biases, each once? Into the file that `wandb sync` uploads.

One file has the whole run. Whoever begins to write takes a copy of what counts in it, and puts that in its place: what
a process writes that was taken for dead goes into a file that nobody sees any more. Of a life before, what is repeated
is left out. Nothing is uploaded here, so neither network nor key is needed.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from drivetrain.telemetry.trackers.tracker import Life, Point, Standing, Subject
from drivetrain.telemetry.trackers.wandb_log import Kept, Log, kept
from drivetrain_api.runtime import RuntimeWandb

_ODD: Final = re.compile(r"[^A-Za-z0-9_.-]")
"""In a run's id: it is part of addresses."""


class TakenOver(OSError):
    """Another process writes the run."""


class Wandb:
    """One run's file."""

    name: Final = "W&B"

    def __init__(self, settings: RuntimeWandb, subject: Subject) -> None:
        self._settings = settings
        self._subject = subject
        self._id = _ODD.sub("-", subject.run)
        self._path = Path(settings.folder) / f"offline-run-{self._id}" / f"run-{self._id}.wandb"
        self._file: BinaryIO | None = None
        self._log: Log | None = None
        self._started = 0

    def open(self, life: Life) -> Standing:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        mine = self._path.with_name(f"{self._path.name}.{socket.gethostname()}.{os.getpid()}")
        self._file = mine.open("wb")
        found = self._copied(life, self._file)
        self._log = Log(self._file, life.token, found.end)
        self._started = found.started or int(time.time())
        if not found.end:
            self._log.run(self._identity(), self._subject.parameters, self._started)
        self._file.flush()
        mine.replace(self._path)
        for left in self._path.parent.glob(f"{self._path.name}.*"):
            left.unlink(missing_ok=True)  # of processes that were killed here, and the mark that all is uploaded
        return Standing(life.first if found.last is None else max(found.last, life.first))

    def write(self, points: Sequence[Point]) -> None:
        self._refuse_taken_over()
        assert self._log is not None
        assert self._file is not None
        for point in points:
            times = {"_timestamp": point.seconds, "_runtime": max(0.0, point.seconds - self._started)}
            self._log.history(point.step, {**point.values, **times})
        self._log.summary({**points[-1].values, **times, "_step": points[-1].step})
        self._file.flush()
        self._forget_upload()

    def close(self, *, finished: bool) -> None:
        log, self._log = self._log, None
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            if finished and log is not None:
                log.exit(max(0, int(time.time()) - self._started))
        if finished:
            self._forget_upload()

    def _identity(self) -> dict[str, str]:
        entity = {"entity": self._settings.entity} if self._settings.entity else {}
        return {"id": self._id, "project": self._settings.project, "name": self._subject.run, **entity}

    def _copied(self, life: Life, into: BinaryIO) -> Kept:
        try:
            with self._path.open("rb") as file:
                found = kept(file, life.token, life.first)
                file.seek(0)
                left = found.end
                while left and (piece := file.read(min(left, 1 << 20))):
                    left -= into.write(piece)
                return found
        except FileNotFoundError:
            return Kept()

    def _refuse_taken_over(self) -> None:
        assert self._file is not None
        if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            raise TakenOver(f"another process writes {self._path}")

    def _forget_upload(self) -> None:
        """`wandb sync` passes by what has this mark of its own."""
        self._path.with_name(f"{self._path.name}.synced").unlink(missing_ok=True)
