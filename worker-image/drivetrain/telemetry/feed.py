"""How does a tracker get each step, without training ever waiting for it or ending with it?

A thread takes points from the history that the ranks keep, and gives them to the tracker. Where that fails, it says so
once for each kind of error, waits longer each time, and asks the tracker anew what it has. Where it is too slow for too
long, the oldest points fall out of the history before they were written; they are counted, and told.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from drivetrain import say
from drivetrain.telemetry.trackers.tracker import Life, Point, Tracker

_MOST: Final = 500
"""Points that a tracker gets at once."""
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0


class History:
    """The last points, numbered from 0 on: what rank 0 may not have written yet when it dies."""

    def __init__(self, most: int) -> None:
        self.news = threading.Condition()
        self._points: deque[Point] = deque(maxlen=most)
        self._count = 0
        self.ends = False
        """Nothing follows."""
        self.finished = False
        """Because training has come to its end."""

    def add(self, point: Point) -> None:
        """One more; the oldest goes if there is no room."""
        with self.news:
            self._points.append(point)
            self._count += 1
            self.news.notify_all()

    def end(self, *, finished: bool) -> None:
        """Nothing follows. `finished`: training has come to its end."""
        with self.news:
            self.ends, self.finished = True, finished
            self.news.notify_all()

    @property
    def count(self) -> int:
        """Points that were ever added."""
        return self._count

    @property
    def oldest(self) -> int:
        """Number of the first that is still here."""
        return self._count - len(self._points)

    def since(self, number: int) -> list[Point]:
        """Some, from this number on."""
        start = number - self.oldest
        return list(islice(self._points, start, start + _MOST))


class Feed(threading.Thread):
    """One tracker's."""

    def __init__(
        self,
        tracker: Tracker,
        history: History,
        life: Life,
        *,
        first_wait: float = _FIRST_WAIT,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(name=f"drivetrain-{tracker.name}", daemon=True)
        self._tracker = tracker
        self._history = history
        self._life = life
        self._first_wait = first_wait
        self._say = say or self._print
        self._next = history.oldest
        self._last: int | None = None
        """The last step that is written; None: to be asked for."""
        self._failing: set[str] = set()
        """Kinds of errors that were told since it last went well."""
        self._dropped = 0
        self._began = False
        self._stopped = False

    def run(self) -> None:
        wait = self._first_wait
        while (points := self._take()) is not None:
            try:
                self._give(points)
            except (Exception, SystemExit) as error:  # noqa: BLE001  Whatever a library raises, training goes on.
                self._failed(error)
                self._pause(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                wait = self._first_wait
                if self._failing:
                    self._failing.clear()
                    self._say(f"goes on at step {points[-1].step}")
        self._close(finished=self._history.finished and not self._stopped)

    def stop(self) -> None:
        """Another rank goes on."""
        with self._history.news:
            self._stopped = True
            self._history.news.notify_all()

    def _take(self) -> list[Point] | None:
        """What is next, waiting for it; None: nothing follows."""
        history = self._history
        with history.news:
            while self._next >= history.count and not history.ends and not self._stopped:
                history.news.wait(1.0)
            if self._next >= history.count or self._stopped:
                return None
            if self._next < history.oldest:
                self._lost(history.oldest - self._next)
                self._next = history.oldest
            return history.since(self._next)

    def _give(self, points: Sequence[Point]) -> None:
        if self._last is None:
            standing = self._tracker.open(self._life)
            self._last = standing.last
            if standing.repeated and not self._began:
                said = (
                    f"has steps {self._life.first + 1} to {self._last} already, and cannot take new values for them: "
                )
                self._say(f"{said}those of before the job went back to step {self._life.first} stay")
            gap = points[0].step - self._last - 1
            if gap > 0 and not self._began:
                self._say(
                    f"has nothing of steps {self._last + 1} to {points[0].step - 1}: the process that was to "
                    "write them is gone"
                )
            self._began = True
        new = [each for each in points if each.step > self._last]
        if new:
            self._tracker.write(new)
            self._last = new[-1].step
        with self._history.news:
            self._next += len(points)
            self._history.news.notify_all()

    def _lost(self, count: int) -> None:
        if not self._dropped:
            self._say("is too slow or does not answer: the oldest steps are dropped from now on")
        self._dropped += count

    def _failed(self, error: BaseException) -> None:
        kind = type(error).__name__
        if kind not in self._failing:
            self._failing.add(kind)
            text = " ".join(str(error).split())[:500]
            self._say(f"failed, and is tried again; training goes on: {kind}: {text}")
        self._last = None
        self._close(finished=False)

    def _close(self, *, finished: bool) -> None:
        try:
            self._tracker.close(finished=finished)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            if finished:
                self._say(f"could not be closed: {type(error).__name__}: {' '.join(str(error).split())[:500]}")

    def _pause(self, seconds: float) -> None:
        """Wait; when nothing follows, not for long, because then somebody waits for this thread."""
        began = time.monotonic()
        with self._history.news:
            while not self._stopped and (left := began + self._limit(seconds) - time.monotonic()) > 0:
                self._history.news.wait(left)

    def _limit(self, seconds: float) -> float:
        return min(seconds, self._first_wait) if self._history.ends else seconds

    def finish(self, until: float) -> None:
        """Wait until all is written, or it is `until` (monotonic); tell what is not."""
        self.join(max(0.0, until - time.monotonic()))
        missing = self._dropped + self._history.count - self._next
        if missing:
            self._say(f"did not get {missing} steps")

    def _print(self, text: str) -> None:
        say.note(f"tracking: {self._tracker.name} {text}", level="warning")
