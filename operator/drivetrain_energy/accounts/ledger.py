"""PURE: what did a job's electricity emit, and cost? One fold: from what was counted, and what is told now, to more.

Joules come as numbers that only grow for as long as a coordinator's term lasts: the difference to what is counted of
that term is news, so a lost report loses nothing and a repeated one adds nothing. They are spread evenly over the time
in which they were drawn, each second by the intensity and the price that held in it. Of what no intensity is known
there are joules and no grams. Average and marginal intensity have a sum each, and never one together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_api.energy import EnergySource, Joules
from drivetrain_energy.accounts.awaited import Awaited, aside, extended, measured_by_workers, settled
from drivetrain_energy.accounts.counters import Metered
from drivetrain_energy.accounts.replay import Replayed, Trace, remembered, replayed
from drivetrain_energy.signals.signal import Measure, Signal
from drivetrain_energy.signals.spans import JOULES_A_KWH, held

CARBON: Final = (Measure.AVERAGE, Measure.MARGINAL)
SLACK_SECONDS: Final = 60.0
"""So much longer than it is old may a job have drawn electricity, by clocks that differ."""
SET_BACK_SECONDS: Final = 3600.0
"""So much is counted at a time by an operator whose clock is behind: what waited for it could be lost meanwhile."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a coordinator has heard in its term."""

    joules: Joules = field(default_factory=dict)
    worker_seconds: float = 0.0
    seconds: float = 0.0
    """In which at least one worker was measured."""
    refused: int = 0
    uptime: float = 0.0
    """Seconds of the term, up to which this is."""

    def since(self, before: Drawn) -> Drawn:
        """What is new; what has fallen is no news."""
        return Drawn(
            {
                component: {
                    source: max(0.0, value - before.joules.get(component, {}).get(source, 0.0))
                    for source, value in by_source.items()
                }
                for component, by_source in self.joules.items()
            },
            max(0.0, self.worker_seconds - before.worker_seconds),
            max(0.0, self.seconds - before.seconds),
            max(0, self.refused - before.refused),
            max(0.0, self.uptime - before.uptime),
        )

    def plus(self, more: Drawn) -> Drawn:
        """Both together."""
        joules = {component: dict(by_source) for component, by_source in self.joules.items()}
        for component, by_source in more.joules.items():
            known = joules.setdefault(component, {})
            for source, value in by_source.items():
                if value > 0:
                    known[source] = known.get(source, 0.0) + value
        return Drawn(
            {component: by_source for component, by_source in joules.items() if by_source},
            self.worker_seconds + more.worker_seconds,
            self.seconds + more.seconds,
            self.refused + more.refused,
            self.uptime + more.uptime,
        )

    def times(self, factor: float) -> Drawn:
        """So much of its joules and times."""
        return Drawn(
            {c: {s: value * factor for s, value in of.items()} for c, of in self.joules.items()},
            self.worker_seconds * factor,
            self.seconds * factor,
            self.refused,
            self.uptime * factor,
        )

    @property
    def total(self) -> float:
        """Joules."""
        return sum(value for by_source in self.joules.values() for value in by_source.values())


@dataclass(frozen=True, slots=True)
class Told:
    """What is heard of a coordinator."""

    at: float
    """When it said so, in seconds since 1970 by the operator's clock."""
    term: int
    drawn: Drawn


@dataclass(frozen=True, slots=True)
class Covered:
    """A sum over that part of the electricity of which the rate was known."""

    amount: float = 0.0
    kwh: float = 0.0
    source: str = ""
    """Whose rate it was last, and ..."""
    quality: str = ""
    """... what that was worth."""


@dataclass(frozen=True, slots=True)
class Site:
    """What holds where the job runs."""

    signals: Mapping[Measure, Signal] = field(default_factory=dict)
    pue: float = 1.0
    embodied_grams_a_worker_second: float | None = None
    prefers: Measure | None = None
    """By which intensity a job that may wait is compared with itself; None: it may not."""
    workers_at_most: int = 1
    watts_at_most: float = 5e4
    """Of a worker."""
    metered: Mapping[EnergySource, Metered | None] = field(default_factory=dict)
    """What the cluster's own exporters know of the job, of those that are asked; None: nothing so far."""
    ended: bool = False
    """The job has: nothing is drawn any more."""
    last: bool = False
    """It is deleted now: what is not known will not be counted."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is counted."""

    used: Drawn = Drawn()
    carbon: Mapping[Measure, Covered] = field(default_factory=dict)
    cost: Covered | None = None
    currency: str = ""
    embodied: float | None = None
    """Grams."""
    replayed: Replayed | None = None
    trace: Trace = field(default_factory=Trace)
    until: float | None = None
    """When anything was counted last."""
    term: int = 0
    """Of the coordinator that told last."""
    told: Drawn = Drawn()
    """What is counted of that term, or set aside."""
    awaited: Mapping[EnergySource, Awaited] = field(default_factory=dict)
    """What is set aside, because exporters know better."""

    @property
    def pending(self) -> bool:
        """Something is set aside."""
        return any(each.pending for each in self.awaited.values())


def booked(before: Ledger, told: Told | None, created: float, now: float, site: Site) -> Ledger:
    """The ledger now. `created`: when the job was."""
    compares = _compares(before, site)
    trace = remembered(before.trace, compares, created + before.used.seconds, now)
    found = replace(before, trace=trace, until=max(now, before.until or 0.0))
    if told is not None and told.term >= before.term:
        found = _heard(found, before, told, created, now, site, compares)
    silent = now - (before.until if before.until is not None else now)
    return _settled(found, created, now, silent, site, compares) if found.awaited else found


def _heard(
    found: Ledger, before: Ledger, told: Told, created: float, now: float, site: Site, compares: Signal | None
) -> Ledger:
    """With what is news."""
    known = before.told if told.term == before.term else Drawn()
    news = told.drawn.since(known)
    # Longer than it is old no job has drawn anything. What is more than that waits.
    set_back = now < max(created, before.until or created) - SLACK_SECONDS
    room = SET_BACK_SECONDS if set_back else max(0.0, told.at - created + SLACK_SECONDS - before.used.seconds)
    believed = news.times(room / news.seconds) if news.seconds > room else news
    found = replace(found, term=told.term, told=known.plus(believed))
    at, bounded = max(told.at, created), _bounded(believed, site)
    bounded = replace(bounded, uptime=min(bounded.uptime, max(bounded.seconds, told.at - created + SLACK_SECONDS)))
    found, counted = _set_aside(found, bounded, told.at, site) if site.metered else (found, bounded)
    return _priced(found, counted, max(created, at - counted.seconds), at, created, site, compares)


def _set_aside(before: Ledger, news: Drawn, at: float, site: Site) -> tuple[Ledger, Drawn]:
    """Of components that exporters tell of, and workers do not measure, in this term."""
    if not news.seconds:
        return before, news
    awaited, counted = dict(before.awaited), news
    for source, metered in site.metered.items():
        if _measured(before, source):
            continue
        kept, model = aside(counted.joules, source)
        counted = replace(counted, joules=kept)
        now = at + metered.skew if metered is not None else None
        known = awaited.get(source, Awaited())
        awaited[source] = extended(known, model, news.worker_seconds, news.seconds, news.uptime, now)
    return replace(before, awaited=awaited), counted


def _settled(before: Ledger, created: float, now: float, silent: float, site: Site, compares: Signal | None) -> Ledger:
    """With what Prometheus has told of what was set aside. `silent`: so long ago something was counted."""
    found, awaited = before, dict[EnergySource, Awaited]()
    for source, each in before.awaited.items():
        closes = site.last or source not in site.metered or _measured(before, source)
        metered = site.metered.get(source)
        skew = metered.skew if metered is not None else 0.0
        there = now + skew if metered is not None else each.until + silent
        told = settled(each, source, metered, there, site.watts_at_most, ended=site.ended, closes=closes)
        if told.joules or told.refused:
            # Its seconds are counted already: the replay has gone by where it belongs.
            start = told.start - skew if told.start else now - each.until
            start = min(start, now - max(0.0, told.end - told.start))  # also by a clock that was set back
            end, late = start + max(0.0, told.end - told.start), each.until - told.start
            news = Drawn(told.joules, refused=told.refused)
            found = _priced(found, news, max(created, start), max(created, end), created, site, compares, late)
        if not closes:
            awaited[source] = told.rest
    return replace(found, awaited=awaited)


def _measured(ledger: Ledger, source: EnergySource) -> bool:
    """By workers themselves, in this term. Whoever says for how long says so of one worker at least."""
    return measured_by_workers(ledger.told.joules, max(ledger.told.worker_seconds, ledger.told.seconds), source)


def _bounded(news: Drawn, site: Site) -> Drawn:
    """No more than so many workers can draw: a coordinator is the tenant's."""
    worker_seconds = min(news.worker_seconds, news.seconds * site.workers_at_most)
    most = worker_seconds * site.watts_at_most
    cut = most / news.total if news.total > most else 1.0
    refused = news.refused + (cut < 1.0 or worker_seconds < news.worker_seconds)
    return replace(
        news.times(cut), worker_seconds=worker_seconds, seconds=news.seconds, refused=refused, uptime=news.uptime
    )


def _priced(
    before: Ledger,
    news: Drawn,
    start: float,
    at: float,
    created: float,
    site: Site,
    compares: Signal | None,
    late: float = 0.0,
) -> Ledger:
    """With these joules, drawn from `start` to `at`; `late`: so many of its seconds ago."""
    kwh = news.total * site.pue / JOULES_A_KWH
    carbon = dict(before.carbon)
    for measure in CARBON:
        if (signal := site.signals.get(measure)) is not None:
            carbon[measure] = _covered(carbon.get(measure, Covered()), signal, start, at, kwh)
    cost, currency, price = before.cost, before.currency, site.signals.get(Measure.PRICE)
    if price is not None and currency in ("", of_unit(price.unit)):
        cost, currency = _covered(cost or Covered(), price, start, at, kwh), of_unit(price.unit)
    grams = site.embodied_grams_a_worker_second
    baseline = created + max(0.0, before.used.seconds - late)
    return replace(
        before,
        used=before.used.plus(news),
        carbon={measure: each for measure, each in carbon.items() if each.kwh > 0},
        cost=cost if cost is not None and cost.kwh > 0 else None,
        currency=currency if cost is not None and cost.kwh > 0 else "",
        embodied=before.embodied if grams is None else (before.embodied or 0.0) + grams * news.worker_seconds,
        replayed=replayed(before.replayed, before.trace, compares, start, at, baseline, kwh),
    )


def _covered(before: Covered, signal: Signal, start: float, end: float, kwh: float) -> Covered:
    mean, known = held(signal, start, end)
    if not known or not kwh:
        return before
    return Covered(
        before.amount + kwh * known * mean,
        before.kwh + kwh * known,
        source=signal.source,
        quality=str(signal.quality),
    )


def _compares(before: Ledger, site: Site) -> Signal | None:
    """The intensity by which the job is compared with itself: one measure for all of its life."""
    if site.prefers is None:
        return None
    return site.signals.get(before.replayed.measure if before.replayed is not None else site.prefers)


def embodied(made_grams: float, reserved_seconds: float, lifespan_seconds: float, share: float = 1.0) -> float:
    """Grams of a machine's making that a use of it has to answer for: SCI 1.1, M = TE · (TiR/EL) · (RR/ToR)."""
    return made_grams * reserved_seconds / lifespan_seconds * share


def of_unit(unit: str) -> str:
    """The currency of a price: of `EUR/kWh`, EUR."""
    return unit.partition("/")[0].strip()


__all__ = ["CARBON", "Covered", "Drawn", "Joules", "Ledger", "Site", "Told", "booked", "embodied", "of_unit"]
