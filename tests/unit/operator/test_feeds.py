"""What does a scrape say of sources of energy?"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from drivetrain_energy.feeds.feeds import Age
from drivetrain_energy.feeds.source import Counts, summed
from drivetrain_operator.metrics.feeds import MOST, Feeding, FeedsCollector
from unit.operator.test_metrics import scrape


def scraped(found: Feeding) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(FeedsCollector(lambda: found))
    return scrape(registry)


def test_ages_by_zone_and_counts_by_provider() -> None:
    ages = [Age("maps", "DE", "average", 60.0, 900.0), Age("maps", "FR", "average", 5.0, 900.0)]
    one, other = Counts("neso", requests=3), Counts("neso", requests=4)
    one.failures["refused"], other.failures["refused"] = 1, 2
    assert scraped(Feeding(ages, summed([one, other]))) == {
        ("drivetrain_energy_feed_age_seconds", (("measure", "average"), ("source", "maps"), ("zone", "DE"))): 60.0,
        ("drivetrain_energy_feed_age_seconds", (("measure", "average"), ("source", "maps"), ("zone", "FR"))): 5.0,
        ("drivetrain_energy_feed_interval_seconds", (("source", "maps"),)): 900.0,
        ("drivetrain_energy_feed_requests_total", (("provider", "neso"),)): 7.0,
        ("drivetrain_energy_feed_failures_total", (("provider", "neso"), ("reason", "refused"))): 3.0,
    }


def test_who_does_not_lead_says_nothing() -> None:
    assert not scraped(Feeding())


def test_the_oldest_are_shown_where_there_are_too_many() -> None:
    ages = [Age("maps", f"Z{n}", "average", float(n), 900.0) for n in range(MOST + 50)]
    found = {dict(where)["zone"] for name, where in scraped(Feeding(ages)) if name.endswith("age_seconds")}
    assert found == {f"Z{n}" for n in range(50, MOST + 50)}
