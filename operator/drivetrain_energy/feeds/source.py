"""One source of the settings at work: asks for each of its zones when it is due, and counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_energy.feeds.adapter import Adapter, Ports
from drivetrain_energy.feeds.asked import Asked
from drivetrain_energy.feeds.clock import Clock
from drivetrain_energy.feeds.errors import FeedError, Slow
from drivetrain_energy.feeds.judge import judge
from drivetrain_energy.feeds.openadr import Limit, OpenAdrFeed
from drivetrain_energy.feeds.providers import adapter, measured
from drivetrain_energy.feeds.transport import Answer, Http, Request
from drivetrain_energy.settings.document import Polling
from drivetrain_energy.settings.sources import Source
from drivetrain_energy.signals.signal import Quality

log = logging.getLogger(__name__)

LONGEST_LIMIT_WAIT: Final = 300.0


@dataclass(slots=True)
class Counts:
    """Of one source, since the process began."""

    provider: str
    requests: int = 0
    """To the provider, logins and pages with them."""
    answers: int = 0
    """That were good."""
    failures: Counter[str] = field(default_factory=Counter)
    """By reason."""


def summed(counts: Iterable[Counts]) -> list[Counts]:
    """One for each provider, in alphabetical order."""
    found: dict[str, Counts] = {}
    for each in counts:
        of = found.setdefault(each.provider, Counts(each.provider))
        of.requests += each.requests
        of.answers += each.answers
        of.failures.update(dict(each.failures))  # a scrape is in another thread
    return [found[provider] for provider in sorted(found)]


class _Counted:
    """Counts requests on their way, and ends those that take longer than the settings allow."""

    def __init__(self, http: Http, counts: Counts, seconds: float) -> None:
        self._http = http
        self._counts = counts
        self._seconds = seconds

    async def send(self, request: Request) -> Answer:
        self._counts.requests += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await self._http.send(request)
        except TimeoutError:
            raise Slow(f"no whole answer within {self._seconds:g} s") from None


def counted(http: Http, counts: Counts, seconds: float) -> Http:
    """The same, whose requests are counted and end after so many seconds."""
    return _Counted(http, counts, seconds)


class Fetched:
    """`run` asks; all else is a look at what was said."""

    def __init__(
        self, source: Source, polling: Polling, ports: Ports, clock: Clock, jitter: Callable[[], float], counts: Counts
    ) -> None:
        self.source = source
        self.polling = polling
        self.counts = counts
        self.measured = measured(source)
        self.limits: tuple[Limit, ...] = ()
        self.began = clock.now().timestamp()
        """By the wall clock."""
        self._clock = clock
        self._jitter = jitter
        self._adapter: Adapter = adapter(
            source, replace(ports, http=counted(ports.http, counts, polling.timeout_seconds))
        )
        interval = polling.minutes * 60.0 if self.measured is not None else float(polling.limit_seconds)
        self.zones = {zone: Asked(interval) for zone in (source.zones if self.measured is not None else ("",))}

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.poll()
            next_due = min(asked.due for asked in self.zones.values())
            await self._clock.sleep(max(1.0, next_due - self._clock.monotonic()))

    async def poll(self) -> None:
        """Ask for the zones that are due, one after another. Never raises."""
        for zone, asked in self.zones.items():
            if asked.due <= self._clock.monotonic():
                await self._ask(zone, asked)

    async def _ask(self, zone: str, asked: Asked) -> None:
        began = self._clock.monotonic()
        error: FeedError | None = None
        try:
            if self.measured is None:
                await self._ask_limits(asked, began)
                return
            now = self._clock.now().timestamp()
            reading = await self._adapter.fetch(zone, now)
            signal = judge(reading, zone, self.measured[0], self.source.name, self.measured[1], now)
            if signal.quality is not Quality.NONE:
                due = began + asked.interval * (1 + self._jitter() / 20)
                asked.answered(signal, now, due, stated=reading.vintage is not None)
                self.counts.answers += 1
                return
            reason, problem = "doubtful", signal.why
        except FeedError as caught:
            error, reason, problem = caught, caught.reason, f"{self.source.name} {caught}"
        except Exception as caught:
            log.exception("a feed fails, by a defect", extra={"source": self.source.name, "zone": zone})
            reason, problem = "defect", f"{self.source.name} cannot be read, by a defect: {type(caught).__name__}"
        self._failed(asked, began, error, reason, problem)

    async def _ask_limits(self, asked: Asked, began: float) -> None:
        if isinstance(self._adapter, OpenAdrFeed):
            self.limits = await self._adapter.limits(self._clock.now().timestamp())
        asked.due, asked.failures, asked.problem = began + asked.interval, 0, ""
        asked.good_at = self._clock.now().timestamp()
        self.counts.answers += 1

    def _failed(self, asked: Asked, began: float, error: FeedError | None, reason: str, problem: str) -> None:
        asked.failed(problem)
        seconds = asked.wait(error, self._jitter())
        told_so = error.retry_after if error is not None else None
        if self.measured is None:
            seconds = max(min(seconds, LONGEST_LIMIT_WAIT), told_so or 0.0)
        asked.due = began + seconds
        self.counts.failures[reason] += 1
        if asked.failures & (asked.failures - 1) == 0:  # one outage, few lines
            log.warning("a feed fails", extra={"source": self.source.name, "failures": asked.failures, "why": problem})


__all__ = ["Counts", "Fetched", "counted", "summed"]
