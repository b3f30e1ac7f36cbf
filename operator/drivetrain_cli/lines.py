"""PURE: how do the logs of many pods become one text? Prefixes say whose line it is, and times give the order."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from drivetrain_api import logline

_RANK: Final = re.compile(r"\[rank \d+\] ")
_OF_POD: Final = frozenset({"namespace", "job", "uid", "attempt", "pod"})
_OF_RANK: Final = _OF_POD | {"rank", "step", "stream"}
_OTHER: Final = re.compile(r"\[(worker \d+|spare)\] ")


class Line(NamedTuple):
    """One line of a pod's log. Sorts by time: RFC 3339 with nine digits sorts as text."""

    time: str
    pod: str
    text: str


def shown(pod: str, text: str, *, pods: bool = False) -> str:
    """A line as people see it. Launchers mark lines of ranks; the pod is named where the rank alone would not say it.

    With `pods`, always.
    """
    text = _readable(text)
    if _RANK.match(text):
        return f"[{pod}] {text}" if pods else text
    if other := _OTHER.match(text):
        return f"[{pod} {other[1]}] {text[other.end() :]}" if other[1] == "spare" else f"[{pod}] {text[other.end() :]}"
    return f"[{pod}] {text}"


def _readable(text: str) -> str:
    """A JSON line of Drivetrain's own as it would be without JSON."""
    fields = logline.read(text)
    if fields is None:
        return text
    if fields["component"] != "rank":
        return _as_text(fields, _OF_POD)
    rank = f"[rank {fields['rank']}] " if isinstance(fields.get("rank"), int) else ""
    if fields.get("stream") == "stdout":  # how training goes on: text has it as a script would print it
        return rank + logline.escaped(str(fields["message"]))
    return rank + _as_text(fields, _OF_RANK)


def _as_text(fields: Mapping[str, object], known: frozenset[str]) -> str:
    return logline.as_text({name: each for name, each in fields.items() if name not in known}, short=True)


def merged(logs: Mapping[str, Iterable[tuple[str, str]]]) -> list[Line]:
    """Logs that are complete, as one: (time, text) by pod, each in its own order, to lines in the order of time."""
    return list(
        heapq.merge(
            *([Line(time, pod, text) for time, text in log] for pod, log in logs.items()), key=lambda line: line.time
        )
    )


class Cursor:
    """Where a log was left, so that following it again after a cut repeats and loses nothing.

    The API server starts again at a whole second, so lines of that second come twice.
    """

    def __init__(self) -> None:
        self.since = ""
        self._last = ""
        self._seen = 0
        self._skip = 0

    def reconnected(self) -> None:
        """The log comes again from `since` on."""
        self._skip = self._seen
        self.since = self._last

    def new(self, time: str) -> bool:
        """Whether a line of this time was not seen yet. Lines of one time are told apart by counting."""
        if time < self._last:
            return False
        if time == self._last and self._skip > 0:
            self._skip -= 1
            return False
        if time != self._last:
            self._last, self._seen, self._skip = time, 0, 0
        self._seen += 1
        return True
