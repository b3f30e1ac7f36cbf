"""From the bytes of a watch to its events. Knows nothing of HTTP connections or of what the objects mean."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from drivetrain_operator.kube.depth import loads
from drivetrain_operator.kube.errors import Unreachable, WatchSilent, error_from_status
from drivetrain_operator.kube.resources import Object

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
BOOKMARK: Final = "BOOKMARK"
_ERROR: Final = "ERROR"

MAX_LINE: Final = 32 * 1024 * 1024
"""Bytes. etcd holds objects of a few MiB at most; a longer line is no event but a broken peer eating our memory."""
_YIELD_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED with the object, or BOOKMARK with nothing but metadata.resourceVersion."""

    type: str
    object: Object

    @property
    def resource_version(self) -> str:
        version: str = self.object["metadata"]["resourceVersion"]
        return version


class Lines:
    """Puts lines together from pieces of any size."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that this piece completes."""
        first, newline, rest = piece.partition(b"\n")
        self._partial += first
        if len(self._partial) > MAX_LINE:
            raise Unreachable(f"a line of the watch is longer than {MAX_LINE} bytes")
        while newline:
            line = bytes(self._partial)
            self._partial.clear()
            if line.strip():
                yield line
            first, newline, rest = rest.partition(b"\n")
            self._partial += first

    def end(self) -> None:
        """Raises `Unreachable` if the stream ended inside a line."""
        if self._partial.strip():
            raise Unreachable(f"the watch was cut after {len(self._partial)} bytes of an event")


def parse(line: bytes) -> WatchEvent:
    """One event. An ERROR event is raised: `Gone` for 410, else the error of its status."""
    try:
        raw = loads(line)
        kind, obj = raw["type"], raw["object"]
        if kind == _ERROR:
            status = int(obj.get("code") or 500)
        else:
            obj["metadata"]["resourceVersion"]  # an event without a version cannot be resumed after
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreachable(f"the watch sent something that is no event: {line[:200]!r}") from error
    if kind == _ERROR:
        raise error_from_status(status, obj, request="watch")
    return WatchEvent(kind, obj)


async def events(pieces: AsyncIterator[bytes], *, inactivity: float) -> AsyncGenerator[WatchEvent]:
    """Events until the server ends the watch. `WatchSilent` after `inactivity` seconds without a byte."""
    lines = Lines()
    count = 0
    while True:
        try:
            async with asyncio.timeout(inactivity):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise WatchSilent(f"the watch was silent for {inactivity:g} s") from None
        if piece is None:
            lines.end()
            return
        for line in lines.feed(piece):
            yield parse(line)
            count += 1
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # a burst that is already here must not hold up leases and reports
