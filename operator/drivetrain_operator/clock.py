"""Time as a value that is handed in, so that tests decide how fast it passes.

Everything in the operator that waits or measures takes a `Clock`. Durations come from `monotonic`, which no
administrator can set back; `now` is only for what people read (event and lease timestamps).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """A pending call; cancelling one that already ran does nothing."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, wall time, sleeping and timers. Reading is allowed in any thread."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()  # equals loop.time(); unlike that, it may be read in the thread that serves /metrics

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` with a limit on the given clock; when it passes, `work` is cancelled and `TimeoutError` raised."""
    task = asyncio.ensure_future(work)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_later(max(0.0, seconds), expire)
    try:
        return await task
    except asyncio.CancelledError:
        if expired and task.cancelled() and not _being_cancelled():
            raise TimeoutError(f"not done within {seconds:g} s") from None
        task.cancel()
        raise
    finally:
        timer.cancel()


def _being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
