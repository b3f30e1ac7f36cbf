"""A clock that stands still until a test moves it; sleeping costs no time."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Implements `drivetrain_operator.clock.Clock`. `on_step` is called after everything that a moment brings."""

    def __init__(self, on_step: Callable[[], None] = lambda: None) -> None:
        self.time = 1000.0
        self.on_step = on_step
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    async def settle(self) -> None:
        """Lets everything run that needs no time to pass."""
        for _ in range(25):
            await asyncio.sleep(0)
        self.on_step()

    async def advance(self, seconds: float) -> None:
        """Lets time pass, moment by moment."""
        end = self.time + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self.time = max(self.time, due)
            timer.callback()
            await self.settle()
        self.time = end
        await self.settle()
