"""Who does the slow work of snapshots? One thread for each kind of it, with a bound on what waits.

Training never waits for storage unless it was asked to. A storage that fails is tried again, less and less often; what
does not find room meanwhile is given up, and whoever gave it is told.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Final

from drivetrain.say import note
from drivetrain.snapshot.errors import StorageError

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0

Task = Callable[[], None]


class Background:
    """A thread that does tasks one after another."""

    def __init__(self, name: str, most_bytes: int, idle: Callable[[], float | None] = lambda: None) -> None:
        """`idle()` is called in the thread when there is nothing to do; it returns after how many seconds again, None:
        when something is."""
        self._most = most_bytes
        self._idle = idle
        self._tasks: collections.deque[tuple[Task, int]] = collections.deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._busy = False
        self._ended = False
        self.defect: BaseException | None = None
        """What has ended the thread that should not have."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Of what is not done."""
        return self._bytes

    def room(self, size: int) -> bool:
        """Whether a task of so many bytes would find room now. One always does where nothing waits."""
        return self._bytes == 0 or self._bytes + size <= self._most

    def put(self, task: Task, size: int, *, wait: float = 0.0, anyway: bool = False) -> bool:
        """Have it done. False if there is no room within `wait` seconds, unless `anyway`; it is not done then."""
        deadline = time.monotonic() + wait
        with self._changed:
            while not (anyway or self.room(size)) and self.defect is None and not self._ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            if self.defect is not None or self._ended:
                return False
            self._tasks.append((task, size))
            self._bytes += size
            self._changed.notify_all()
            return True

    def drain(self, seconds: float) -> bool:
        """Wait until all is done; False if it is not after so long."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._tasks or self._busy:
                left = deadline - time.monotonic()
                if left <= 0 or self.defect is not None:
                    return False
                self._changed.wait(left)
            return True

    def end(self, seconds: float) -> None:
        """Do no more than what is being done now."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def ended(self) -> bool:
        """Whoever waits inside of a task must stop."""
        return self._ended

    def _run(self) -> None:
        try:
            while not self._ended:
                with self._changed:
                    task, size = self._tasks.popleft() if self._tasks else (None, 0)
                    self._busy = True
                again = None
                try:
                    if task is None:
                        again = self._idle()
                    else:
                        task()
                finally:
                    with self._changed:
                        self._busy = False
                        self._bytes -= size
                        self._changed.notify_all()
                        if task is None and not self._tasks and not self._ended:
                            self._changed.wait(again)
                    del task
        except BaseException as error:  # noqa: BLE001  Told by whoever asks next; training goes on.
            with self._changed:
                self.defect = error
                self._changed.notify_all()


def persistently(work: Callable[[], None], failed: Callable[[str], None], give_up: Callable[[], bool]) -> bool:
    """Do it until the storage lets it be done; False if `give_up()` came first. `failed` is told of each failure."""
    wait = _FIRST_WAIT
    while True:
        try:
            work()
        except StorageError as error:
            failed(str(error))
        else:
            return True
        until = time.monotonic() + wait
        while time.monotonic() < until:
            if give_up():
                return False
            time.sleep(0.05)
        wait = min(_LONGEST_WAIT, 2 * wait)


def say(failure: str, before: str | None) -> None:
    """In the log of this rank: the job's condition has what rank 0 meets, and other ranks may see another storage."""
    if failure != before:
        note(f"snapshots: {failure}", level="warning")
