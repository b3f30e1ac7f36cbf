"""Where does a container's output go, and how is it read back?

One file a run, in the CRI form `<time> stdout <F|P> <text>`, so that timestamps and sinceSeconds can be answered later.
Both streams share one pipe: their order is kept, which of the two it was is not.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from drivetrain_local.objects import now, parse_time, rfc3339_micro

_MAX_LINE = 16 * 1024
_MESSAGE_BYTES = 2048
_MESSAGE_LINES = 80


@dataclass(frozen=True)
class LogQuery:
    """The parameters of a log request."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: dt.datetime | None = None
    limit_bytes: int | None = None

    @staticmethod
    def parse(query: dict[str, str]) -> LogQuery:
        """Raises ValueError on a bad number or time."""
        try:
            return LogQuery._parsed(query)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"invalid log query: {error}") from error

    @staticmethod
    def _parsed(query: dict[str, str]) -> LogQuery:
        since = parse_time(query["sinceTime"]) if query.get("sinceTime") else None
        if query.get("sinceSeconds"):
            since = now() - dt.timedelta(seconds=float(query["sinceSeconds"]))
        return LogQuery(
            follow=query.get("follow") in ("true", "1"),
            timestamps=query.get("timestamps") in ("true", "1"),
            tail=int(query["tailLines"]) if query.get("tailLines") else None,
            since=since,
            limit_bytes=int(query["limitBytes"]) if query.get("limitBytes") else None,
        )


class ContainerLog:
    """The output of one run of one container, written by `LogPipe` and read by anybody."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.closed = False
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._partial = b""
        self._listeners: set[asyncio.Event] = set()

    def write(self, data: bytes) -> None:
        """Append raw output, one timestamp a line."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        stamp = rfc3339_micro(now()).encode()
        entries = [stamp + b" stdout F " + line + b"\n" for line in lines]
        while len(self._partial) > _MAX_LINE:
            entries.append(stamp + b" stdout P " + self._partial[:_MAX_LINE] + b"\n")
            self._partial = self._partial[_MAX_LINE:]
        if entries:
            self._file.write(b"".join(entries))
            self._wake()

    def close(self) -> None:
        """The last line needs no newline."""
        if self.closed:
            return
        if self._partial:
            self._file.write(rfc3339_micro(now()).encode() + b" stdout P " + self._partial + b"\n")
            self._partial = b""
        self._file.close()
        self.closed = True
        self._wake()

    def message(self) -> str:
        """The end of the output, for terminationMessagePolicy FallbackToLogsOnError."""
        text = b"".join(_text(line) for line in self.path.read_bytes().splitlines()[-_MESSAGE_LINES:])
        return text[-_MESSAGE_BYTES:].decode(errors="replace")

    async def read(self, query: LogQuery) -> AsyncGenerator[bytes, None]:
        """Chunks of output, ready to send; with `follow`, until the container ends."""
        changed = asyncio.Event()
        self._listeners.add(changed)
        try:
            with self.path.open("rb") as file:
                lines = [line for line in file.readlines() if _after(line, query.since)]
                if query.tail is not None:
                    lines = lines[len(lines) - query.tail :] if query.tail else []
                left = query.limit_bytes
                while True:
                    chunk = b"".join(_text(line, timestamps=query.timestamps) for line in lines)
                    if left is not None:
                        chunk = chunk[:left]
                        left -= len(chunk)
                    if chunk:
                        yield chunk
                    if left == 0 or not query.follow:
                        return
                    changed.clear()
                    lines = file.readlines()
                    if not lines:
                        if self.closed:
                            return
                        await changed.wait()
                        lines = file.readlines()
        finally:
            self._listeners.discard(changed)

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.set()


class LogPipe(asyncio.Protocol):
    """The reading end of a container's output."""

    def __init__(self, log: ContainerLog) -> None:
        self._log = log
        self.drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._log.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._log.close()
        if not self.drained.done():
            self.drained.set_result(None)


LogFinder = Callable[[str, str, bool], ContainerLog | None]
"""(pod uid, container, previous) → its log, or None when there is none (yet)."""


def _after(line: bytes, since: dt.datetime | None) -> bool:
    return since is None or parse_time(line.partition(b" ")[0].decode()) >= since


def _text(line: bytes, *, timestamps: bool = False) -> bytes:
    stamp, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    kind, _, text = rest.partition(b" ")
    text = text.rstrip(b"\n") + (b"\n" if kind == b"F" else b"")
    return stamp + b" " + text if timestamps else text
