"""All feeds together: `run` fetches, and everybody else reads what is there, without ever waiting.

For a zone and a measure the settings' sources are tried in their order: a good answer of the first one that has one,
then the last good answers, then a source whose values are all the same, then a year's mean. No measure stands in for
another: marginal intensity has no mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from drivetrain_energy.feeds.adapter import Ports
from drivetrain_energy.feeds.asked import PLANNABLE, Asked
from drivetrain_energy.feeds.clock import Clock
from drivetrain_energy.feeds.judge import nothing
from drivetrain_energy.feeds.means import mean
from drivetrain_energy.feeds.openadr import Limit
from drivetrain_energy.feeds.source import Counts, Fetched, summed
from drivetrain_energy.feeds.tariff import prices
from drivetrain_energy.settings.document import EnergySettings
from drivetrain_energy.signals.signal import Measure, Signal


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a power domain: what its source says from now on, and what is wrong with the source (empty: nothing)."""

    limits: tuple[Limit, ...]
    why: str
    heard: bool = True
    """False: its source has not answered yet."""


@dataclass(frozen=True, slots=True)
class Age:
    """How old is what a source says of a zone?"""

    source: str
    zone: str
    """Empty: of limits, and of joules."""
    measure: str
    """`average`, `marginal`, `price` or `limit`; of joules `dcgm` or `kepler`."""
    seconds: float
    """Since the last good answer; without any, since it is asked."""
    interval: float
    """Seconds after which it is asked again."""


class Feeds:
    """Of one event loop. `configure` takes new settings while it runs: what has not changed keeps what it knows."""

    def __init__(
        self, settings: EnergySettings, ports: Ports, clock: Clock, *, jitter: Callable[[], float] = random.random
    ) -> None:
        """`jitter`: from 0 to 1."""
        self._ports = ports
        self._clock = clock
        self._jitter = jitter
        self._changed = asyncio.Event()
        self._sources: dict[str, Fetched] = {}
        self._prices: dict[tuple[str, int], Signal] = {}
        self.counts: dict[str, Counts] = {}
        """By source."""
        self._gone: list[Counts] = []
        """Of sources that the settings have no more: what is counted only grows."""
        self.configure(settings)

    def configure(self, settings: EnergySettings) -> None:
        """From now on these."""
        before, found = self._sources, dict[str, Fetched]()
        for source in settings.sources:
            held = before.get(source.name)
            if held is None or held.source != source or held.polling != settings.polling:
                counts = self.counts.get(source.name)
                if counts is None or counts.provider != source.provider:
                    counts = Counts(source.provider)
                held = Fetched(source, settings.polling, self._ports, self._clock, self._jitter, counts)
            found[source.name] = held
        counting = [each.counts for each in found.values()]
        gone = [each for each in self.counts.values() if not any(each is other for other in counting)]
        self._gone = summed([*self._gone, *gone])
        self._sources, self.counts = found, {name: each.counts for name, each in found.items()}
        self._settings = settings
        self._prices.clear()
        self._changed.set()

    async def run(self) -> None:
        """Fetch for ever: each source by itself, so that a slow one holds up no other."""
        tasks: dict[Fetched, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                held = set(self._sources.values())
                for source in [each for each in tasks if each not in held]:
                    await _ended(tasks.pop(source))
                for source in held - tasks.keys():
                    tasks[source] = asyncio.create_task(source.run(), name=f"feed {source.source.name}")
                await self._changed.wait()
        finally:
            for task in tasks.values():
                await _ended(task)

    async def poll(self) -> None:
        """Fetch once what is due."""
        await asyncio.gather(*(source.poll() for source in self._sources.values()))

    def signal(self, zone: str, measure: Measure, now: float) -> Signal:
        """The best that is known. Always an answer, and never a wait: what was not asked yet is NONE, and says so."""
        asked = list(self._asked(zone, measure))
        stale = self._settings.polling.stale_minutes * 60.0
        current = [found for _, each in asked if (found := each.fresh(now)) is not None]
        last = [found for _, each in asked if (found := each.last(now, stale)) is not None]
        for found in (*current, *last):
            if found.quality in PLANNABLE:
                return found
        if current or last:
            return (*current, *last)[0]
        problems = "; ".join(each.says() for _, each in asked) or f"no source has {measure} values of {zone}"
        if measure is Measure.AVERAGE:
            known = self.static(zone)
            return replace(known, why=f"{problems}; {known.why}")
        unit = asked[0][0].measured[1] if asked and asked[0][0].measured is not None else "g/kWh"
        return nothing(zone, measure, "none", unit, problems, now)

    def static(self, zone: str) -> Signal:
        """A year's mean of average intensity: for accounts, never for plans. NONE where there is none."""
        found = mean(self._settings, zone)
        if found is not None:
            return found
        return nothing(
            zone, Measure.AVERAGE, "annual-mean", "g/kWh", f"no annual mean of {zone}: means can have one", 0
        )

    def price(self, tariff: str, now: float) -> Signal:
        """What a kilowatt-hour costs by a tariff of the settings."""
        given = next((each for each in self._settings.tariffs if each.name == tariff), None)
        if given is None:
            return nothing(tariff, Measure.PRICE, "none", "", f"there is no tariff {tariff}", now)
        if given.source is not None:
            return self.signal(given.zone or "", Measure.PRICE, now)
        key = tariff, int(now // 3600)
        if key not in self._prices:
            if len(self._prices) > 1000:
                self._prices.clear()
            self._prices[key] = prices(given, now)
        return self._prices[key]

    def limits(self, domain: str, now: float) -> Limits:
        """What a power domain is told to keep to; those of the past are left out."""
        given = next((each for each in self._settings.power_domains if each.name == domain), None)
        source = self._sources.get(given.limit_from or "") if given is not None else None
        if source is None:
            return Limits((), "")
        asked = source.zones[""]
        limits = tuple(limit for limit in source.limits if limit.end > now)
        return Limits(limits, asked.problem, heard=asked.good_at > 0)

    def ages(self, now: float) -> list[Age]:
        """Of each source and zone."""
        return [
            Age(
                name,
                zone,
                source.measured[0].value if source.measured is not None else "limit",
                max(0.0, now - (asked.good_at or source.began)),
                asked.interval,
            )
            for name, source in self._sources.items()
            for zone, asked in source.zones.items()
        ]

    def by_provider(self) -> list[Counts]:
        """What was asked, and how it ended, since this process began; one for each provider."""
        return summed([*self._gone, *self.counts.values()])

    def _asked(self, zone: str, measure: Measure) -> Iterator[tuple[Fetched, Asked]]:
        for source in self._sources.values():
            if source.measured is not None and source.measured[0] is measure and zone in source.zones:
                yield source, source.zones[zone]


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


__all__ = ["Age", "Feeds", "Limits"]
