"""How long does a test wait? As long as it makes progress.

Every wait of a test has a limit here, in seconds in which nothing is done (`activity.Stillness`): a machine that is
slow or shared may take its time, and what hangs is ended as soon as it would be on a fast one. Only what turns in a
circle for ever is ended by the clock, after ten times the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from harness.activity import Stillness

_LOOK_SECONDS = 1.0
_CLOCK = 10
"""So many times the limit by the clock on the wall: for ever, for a process that never rests."""


class OutOfPatience(TimeoutError, AssertionError):
    """What a test waited for did not come, although there was nothing left that could bring it."""


class Patience:
    """A limit of `seconds` in which nothing is done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = self._looked = time.monotonic()
        self._still: Stillness | None = None  # most waits are over before it is worth a look at /proc
        self._spent = 0.0

    def left(self) -> float:
        """Seconds that may pass before this has to be asked again; 0 when patience is at its end."""
        now = time.monotonic()
        if now - self._looked >= min(_LOOK_SECONDS, self.seconds - self._spent):
            if self._still is None:
                self._still = Stillness()  # what was done before nobody knows, so it counts as work
            self._spent = self._still.seconds()
            self._looked = now
        if self._spent >= self.seconds or now - self._began >= self.seconds * _CLOCK:
            return 0.0
        return max(0.001, min(_LOOK_SECONDS, self.seconds - self._spent))

    def check(self, what: str) -> None:
        """Raises OutOfPatience, saying `what` did not come and what the limit was, when it is at its end."""
        if not self.left():
            raise OutOfPatience(f"{what}: {self}")

    def __str__(self) -> str:
        return (
            f"not within {self.seconds:g} s in which no process of this test ran or waited to run "
            f"({time.monotonic() - self._began:.0f} s by the clock)"
        )


def until(true: Callable[[], bool], what: str, seconds: float, every: float = 0.02) -> None:
    """Wait until `true()`; raises OutOfPatience."""
    patience = Patience(seconds)
    while not true():
        patience.check(what)
        time.sleep(every)


@contextlib.asynccontextmanager
async def patiently(seconds: float, what: str | Callable[[], str] = "what is waited for here") -> AsyncIterator[None]:
    """Cancels what is inside at the end of patience, as `asyncio.timeout` does, and raises OutOfPatience."""
    patience = Patience(seconds)
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        if left := patience.left():
            timer = loop.call_later(left, look)
        else:
            limit.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(patience.left(), look)
            yield
    except TimeoutError as error:
        if not limit.expired() or isinstance(error, OutOfPatience):
            raise
        raise OutOfPatience(f"{what if isinstance(what, str) else what()}: {patience}") from None
    finally:
        if timer is not None:
            timer.cancel()


async def until_true(
    true: Callable[[], bool] | Callable[[], Awaitable[bool]],
    what: str | Callable[[], str],
    seconds: float,
    every: float = 0.02,
) -> None:
    """Wait until `true()`, which may be asynchronous; raises OutOfPatience."""
    async with patiently(seconds, what):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(every)
