"""How do steps get into TensorBoard's event files, each once?

Every process that writes begins a file. TensorBoard reads the files of a folder in the order of their names, so a name
begins with a number above all that are there, whatever this machine's clock says. A file says first from which step
on those before it do not count (`SessionLog.START`, which is what torch's `purge_step` writes): nothing of this life,
all of the lives before that the job has gone back behind. What this life has is found in its last file; the names end
with the life.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from drivetrain.telemetry.trackers.tracker import Life, Point, Standing, Subject
from drivetrain_api.runtime import RuntimeTensorBoard

_PREFIX: Final = "events.out.tfevents."
_HEADER: Final = struct.Struct("<QI")
"""Of a record: bytes of its data, and a checksum of that number; another of the data follows it."""
_TAIL: Final = 4
_MOST_BYTES: Final = 64 << 20


class TensorBoard:
    """One run's folder."""

    name: Final = "TensorBoard"

    def __init__(self, settings: RuntimeTensorBoard, subject: Subject) -> None:
        self._folder = Path(settings.folder) / subject.run
        self._subject = subject
        self._file: BinaryIO | None = None

    def open(self, life: Life) -> Standing:
        self._folder.mkdir(parents=True, exist_ok=True)
        before = sorted(each for each in self._folder.iterdir() if each.name.startswith(_PREFIX))
        last = _last_step(each for each in reversed(before) if each.name.endswith(f".{life.token}"))
        done = last if last is not None else life.first
        number = max(int(time.time()), *(_number(each) + 1 for each in before), 0)
        name = f"{_PREFIX}{number:010d}.{socket.gethostname()}.{os.getpid()}.{life.token}"
        self._file = (self._folder / name).open("xb")
        event = _event_class()
        self._put(event(wall_time=time.time(), file_version="brain.Event:2"))
        if before:
            start = event(wall_time=time.time(), step=done + 1)
            start.session_log.status = start.session_log.START
            self._put(start)
        else:
            for summary in _parameters(self._subject):
                self._put(event(wall_time=time.time(), summary=summary))
        self._file.flush()
        return Standing(done)

    def write(self, points: Sequence[Point]) -> None:
        event = _event_class()
        assert self._file is not None
        for point in points:
            record = event(wall_time=point.seconds, step=point.step)
            for name, value in point.values.items():
                record.summary.value.add(tag=name, simple_value=value)
            self._put(record)
        self._file.flush()

    def close(self, *, finished: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _put(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(event.SerializeToString())


def _event_class() -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event


def _parameters(subject: Subject) -> Sequence[Any]:
    """For its page of hyper-parameters."""
    from torch.utils.tensorboard.summary import hparams

    experiment, session, _ = hparams(dict(subject.parameters), {"loss": 0.0})
    return experiment, session


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX).partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _last_step(files: Iterator[Path]) -> int | None:
    """The last that is written, of files from the newest on. None: none."""
    event = _event_class()
    for path in files:
        with path.open("rb") as file:
            for offset, size in reversed(list(_records(file))):
                file.seek(offset)
                found = event.FromString(file.read(size))
                if found.step and found.HasField("summary"):
                    return int(found.step)
    return None


def _records(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where the data of each whole record is, and how long: a process that is killed may leave a part of one."""
    end = os.fstat(file.fileno()).st_size
    offset = 0
    while offset + _HEADER.size <= end:
        file.seek(offset)
        size, _ = _HEADER.unpack(file.read(_HEADER.size))
        following = offset + _HEADER.size + size + _TAIL
        if size > _MOST_BYTES or following > end:
            return
        yield offset + _HEADER.size, size
        offset = following
