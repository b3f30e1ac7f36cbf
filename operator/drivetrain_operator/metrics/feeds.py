"""How old is what sources of energy say, and what was asked of them? Computed when somebody scrapes.

The number of series is bounded: by the settings' sources and zones, and by `MOST` of them; the oldest are shown first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from drivetrain_energy.feeds.feeds import Age
from drivetrain_energy.feeds.source import Counts
from drivetrain_operator.metrics.counters import PREFIX

MOST: Final = 500
"""Ages."""
FEED_LABELS: Final = {
    f"{PREFIX}_energy_feed_age_seconds": ("source", "zone", "measure"),
    f"{PREFIX}_energy_feed_interval_seconds": ("source",),
    f"{PREFIX}_energy_feed_requests": ("provider",),
    f"{PREFIX}_energy_feed_failures": ("provider", "reason"),
}


@dataclass(frozen=True, slots=True)
class Feeding:
    """What is known of all sources."""

    ages: Sequence[Age] = ()
    counts: Sequence[Counts] = ()
    """One for each provider."""


class FeedsCollector(Collector):
    """Register with a `CollectorRegistry`. `feeding` is called at each scrape and must only read memory."""

    def __init__(self, feeding: Callable[[], Feeding]) -> None:
        self._feeding = feeding

    def describe(self) -> Sequence[Metric]:
        """Names without samples."""
        return list(_families(Feeding()))

    def collect(self) -> Iterator[Metric]:
        return _families(self._feeding())


def _families(found: Feeding) -> Iterator[Metric]:
    ages = GaugeMetricFamily(
        f"{PREFIX}_energy_feed_age_seconds",
        "Since the last good answer of a source of carbon intensity, prices, limits or joules; without any, since it "
        "is asked.",
        labels=FEED_LABELS[f"{PREFIX}_energy_feed_age_seconds"],
    )
    intervals = GaugeMetricFamily(
        f"{PREFIX}_energy_feed_interval_seconds",
        "How often that source is asked.",
        labels=FEED_LABELS[f"{PREFIX}_energy_feed_interval_seconds"],
    )
    requests = CounterMetricFamily(
        f"{PREFIX}_energy_feed_requests",
        "Requests to providers, with logins and pages.",
        labels=FEED_LABELS[f"{PREFIX}_energy_feed_requests"],
    )
    failures = CounterMetricFamily(
        f"{PREFIX}_energy_feed_failures",
        "Answers that could not be used: refused, limited, unavailable, unreadable, mismatch, unset, doubtful, defect.",
        labels=FEED_LABELS[f"{PREFIX}_energy_feed_failures"],
    )
    shown = sorted(found.ages, key=lambda each: -each.seconds)[:MOST]
    for each in shown:
        ages.add_metric((each.source, each.zone, each.measure), each.seconds)
    for source, interval in {each.source: each.interval for each in shown}.items():
        intervals.add_metric((source,), interval)
    for count in found.counts:
        requests.add_metric((count.provider,), count.requests)
        for reason, number in sorted(count.failures.items()):
            failures.add_metric((count.provider, reason), number)
    yield from (ages, intervals, requests, failures)
