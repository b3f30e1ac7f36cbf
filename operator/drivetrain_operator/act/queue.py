"""Which job is looked at next, and when.

The semantics are controller-runtime's: a key waits at most once however often it is added, two workers never hold one
key at once, a key added while it is worked on is handed out again afterwards, failures wait longer each time. One
thing is stricter: an event cannot cut a failing key's back-off to nothing, because a pass that writes and then fails
would wake itself for ever.

Workers do `item = await queue.get()`, then exactly one of `forget` (it went well) or `retry` (it did not), then `done`.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

from drivetrain_operator.clock import Clock, Timer
from drivetrain_operator.kube.backoff import Backoff

_BACKOFF: Final = Backoff(base=0.2, cap=60.0)

K = TypeVar("K", bound=Hashable)


class Priority(IntEnum):
    """Higher goes first among keys that are due; equal priorities go in the order in which they became due."""

    RESYNC = 0
    """Periodic looks and start-up: nothing is known to have changed."""
    NORMAL = 10
    """A user or the cluster changed something."""
    FAILURE = 20
    """A pod failed, a node is gone, a job is deleted: somebody is waiting for us."""


class ShutDown(Exception):
    """The queue hands out nothing any more."""


@dataclass(frozen=True, slots=True)
class Item(Generic[K]):
    """A key that a worker now owns, until it calls `done`."""

    key: K
    priority: int
    waited: float
    """Seconds between being due and being handed out."""


class QueueObserver(Protocol):
    """What a queue reports about itself. Must be cheap and must not raise."""

    def depth(self, ready: int) -> None: ...

    def added(self) -> None: ...

    def retried(self) -> None: ...

    def started(self, waited: float) -> None: ...

    def finished(self, worked: float) -> None: ...


class _Unobserved:
    def depth(self, ready: int) -> None: ...

    def added(self) -> None: ...

    def retried(self) -> None: ...

    def started(self, waited: float) -> None: ...

    def finished(self, worked: float) -> None: ...


@dataclass(slots=True)
class _Waiting(Generic[K]):
    """One place in the queue. Replaced, never moved: heaps drop places that are no longer the key's own."""

    key: K
    priority: int
    due: float
    ready: bool = False


@dataclass(slots=True)
class _Failing:
    """How often a key failed in a row, and until when no event may bring it back."""

    count: int = 0
    not_before: float = 0.0


@dataclass(slots=True)
class _Heap(Generic[K]):
    items: list[tuple[float, int, _Waiting[K]]] = field(default_factory=list)
    order: "itertools.count[int]" = field(default_factory=itertools.count)

    def push(self, rank: float, place: _Waiting[K]) -> None:
        heapq.heappush(self.items, (rank, next(self.order), place))


class WorkQueue(Generic[K]):
    """Keyed work with dedup, delays, priorities and per-key back-off. All methods belong to one event loop.

    `floor` bounds in seconds how often a failing key comes back when events keep arriving for it.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        backoff: Backoff = _BACKOFF,
        floor: float = 1.0,
        observer: QueueObserver | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._backoff = backoff
        self._floor = floor
        self._observer = observer or _Unobserved()
        self._waiting: dict[K, _Waiting[K]] = {}
        self._working: dict[K, float] = {}
        self._failing: dict[K, _Failing] = {}
        self._ready: _Heap[K] = _Heap()
        self._delayed: _Heap[K] = _Heap()
        self._ready_count = 0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait, due or not; without those being worked on."""
        return len(self._waiting)

    def add(self, key: K, *, priority: int = Priority.NORMAL, after: float = 0.0) -> None:
        """Asks for `key` to be handed out in `after` seconds. Of several requests the earliest and the highest win."""
        if self._closed:
            return
        now = self._clock.monotonic()
        due = now + max(0.0, after)
        if (failing := self._failing.get(key)) is not None:
            due = max(due, failing.not_before)
        self._observer.added()
        present = self._waiting.get(key)
        if present is not None:
            due, priority = min(due, present.due), max(priority, present.priority)
            if (due, priority) == (present.due, present.priority):
                return
            self._drop(present)
        place = _Waiting(key, priority, due)
        self._waiting[key] = place
        if due <= now:
            self._make_ready(place)
        else:
            self._delayed.push(due, place)
            self._arm()

    def retry(self, key: K, *, priority: int = Priority.NORMAL) -> float:
        """Asks for `key` again after its next back-off delay, which is returned in seconds."""
        now = self._clock.monotonic()
        failing = self._failing.setdefault(key, _Failing())
        failing.count += 1
        delay = self._backoff.delay(failing.count, self._rng)
        failing.not_before = now + min(delay, self._floor)
        self._observer.retried()
        present = self._waiting.get(key)
        if present is not None and present.due < failing.not_before:
            # An event came in during the failed pass: it keeps its turn, but not before the floor.
            self._drop(present)
            self.add(key, priority=max(priority, present.priority), after=failing.not_before - now)
        else:
            self.add(key, priority=priority, after=delay)
        return delay

    def forget(self, key: K) -> None:
        """Ends the key's back-off: its next failure counts as the first."""
        self._failing.pop(key, None)

    def failures(self, key: K) -> int:
        """How often in a row `retry` was called for the key."""
        failing = self._failing.get(key)
        return failing.count if failing else 0

    async def get(self) -> Item[K]:
        """Waits for a key that is due and free. Raises `ShutDown` once the queue is shut down."""
        while True:
            if self._closed:
                raise ShutDown
            self._promote()
            place = self._pop()
            if place is not None:
                now = self._clock.monotonic()
                self._working[place.key] = now
                self._idle.clear()
                self._observer.started(now - place.due)
                return Item(place.key, place.priority, now - place.due)
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # the wake-up meant for this worker must not be lost with it
                elif getter in self._getters:
                    self._getters.remove(getter)
                raise

    def done(self, key: K) -> None:
        """Gives the key back. Must follow every `get`, whatever came of the work."""
        self._observer.finished(self._clock.monotonic() - self._working.pop(key))
        if not self._working:
            self._idle.set()
        place = self._waiting.get(key)
        if place is not None and place.ready:
            self._ready.push(-place.priority, place)
            self._wake()

    def shut_down(self) -> None:
        """Hands out nothing more. What waits is dropped: the next leader finds it in the API server's state."""
        self._closed = True
        self._waiting.clear()
        self._count(-self._ready_count)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._getters:
            self._wake()

    async def idle(self) -> None:
        """Returns once no key is being worked on. The caller sets the limit."""
        await self._idle.wait()

    def oldest_wait(self) -> float:
        """Seconds for which the longest-waiting due key has not been handed out; for health checks."""
        now = self._clock.monotonic()
        return max((now - place.due for place in self._waiting.values() if place.due <= now), default=0.0)

    def longest_work(self) -> float:
        """Seconds for which the slowest worker has held its key; for health checks."""
        now = self._clock.monotonic()
        return max((now - since for since in self._working.values()), default=0.0)

    def _make_ready(self, place: _Waiting[K]) -> None:
        place.ready = True
        self._count(+1)
        if place.key not in self._working:  # otherwise `done` does it
            self._ready.push(-place.priority, place)
            self._wake()

    def _drop(self, place: _Waiting[K]) -> None:
        del self._waiting[place.key]
        if place.ready:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._ready_count += change
        self._observer.depth(self._ready_count)

    def _pop(self) -> _Waiting[K] | None:
        while self._ready.items:
            _, _, place = heapq.heappop(self._ready.items)
            if self._waiting.get(place.key) is place and place.key not in self._working:
                self._drop(place)
                return place
        return None

    def _promote(self) -> None:
        """Moves what has become due from the delay heap to the ready heap."""
        now = self._clock.monotonic()
        heap = self._delayed.items
        while heap and (heap[0][0] <= now or self._waiting.get(heap[0][2].key) is not heap[0][2]):
            _, _, place = heapq.heappop(heap)
            if self._waiting.get(place.key) is place:
                self._make_ready(place)
        self._arm()

    def _arm(self) -> None:
        """Keeps one timer, set to the earliest delay."""
        if self._closed or not self._delayed.items:
            return
        due = self._delayed.items[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.call_later(due - self._clock.monotonic(), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._promote()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
