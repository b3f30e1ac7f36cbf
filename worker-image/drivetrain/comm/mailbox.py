"""What one thread hands to another that waits for it, and stops waiting when its membership is over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from drivetrain.comm.transport import WAIT_SECONDS, Transport
from drivetrain.errors import CommFault, Interrupted

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue with one reader. Exceptions in it come out as `Interrupted`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[T | Exception] = deque()
        self._notify: Callable[[], None] | None = None

    def put(self, item: T | Exception) -> None:
        """From any thread."""
        with self._lock:
            self._items.append(item)
            notify, self._notify = self._notify, None
        if notify is not None:
            notify()

    def take(self, transport: Transport, what: str) -> T:
        """The next one. Raises `Interrupted`."""
        if not self._items:
            transport.blocked(True)
            try:
                transport.interrupt.wait(self._arm, WAIT_SECONDS, what)
            finally:
                transport.blocked(False)
        else:
            transport.interrupt.check()
        item = self._items.popleft()
        if isinstance(item, Interrupted):
            raise item
        if isinstance(item, Exception):
            raise CommFault(f"{what}: {item}") from item
        return item

    def _arm(self, notify: Callable[[], None]) -> None:
        with self._lock:
            self._notify = None if self._items else notify
            is_there = bool(self._items)
        if is_there:
            notify()
