"""What the leader knows of each job's electricity: settings, feeds, limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from drivetrain_api.energy_plan import EnergyOrder
from drivetrain_energy.settings import PowerDomain, read
from drivetrain_energy.signals.signal import Measure, Quality
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy.agents import Agents
from drivetrain_operator.energy.document import Document
from drivetrain_operator.energy.domains import Domain
from drivetrain_operator.energy.limits import Limited, WrittenLimits
from drivetrain_operator.energy.limits import read as limit_of
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.supplies import Supplies, domain_of
from drivetrain_operator.energy.told_caps import ToldCaps
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import NotFound
from drivetrain_operator.plan.view import JobView
from unit.plan import builders as b

SETTINGS = """
sources:
  - {name: trace, provider: trace, zones: [DE], file: de.csv}
powerDomains:
  - {name: hall-1, nodeSelector: {hall: "1"}, zone: DE, pue: 1.3}
"""


@dataclass
class Cluster:
    """One ConfigMap, or none."""

    data: dict[str, str] | None = None
    asked: int = 0

    async def get(self, resource: Any, name: str, namespace: str, *, timeout: float) -> dict[str, Any]:
        self.asked += 1
        if self.data is None:
            raise NotFound(404, message=f"{name} not found")
        return {"data": self.data}


class Quick(SystemClock):
    """Looks ten times a second."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))


def agents(client: KubeClient) -> Agents:
    """None."""
    clock = Quick()
    reports, told = Reports(client, "ns", clock, enabled=False), ToldCaps(client, "ns", clock, Random(1), enabled=False)
    return Agents(reports, told, clock, tuple, lambda: True)


@dataclass
class Platform:
    """Supplies that run."""

    folder: Path
    cluster: Cluster
    supplies: Supplies
    jobs: list[JobView]
    changes: list[int] = field(default_factory=list)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def platform(folder: Path, text: str = SETTINGS, *jobs: JobView) -> AsyncIterator[Platform]:
    (folder / "energy.yaml").write_text(text)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [f"{(now + timedelta(hours=h)).isoformat()},{300 + 10 * h}" for h in range(-24, 48)]
    (folder / "de.csv").write_text("\n".join(["timestamp,g_per_kwh", *rows]))
    cluster, changes = Cluster(), [0]
    client = cast(KubeClient, cluster)
    supplies = Supplies(
        Document(folder / "energy.yaml"),
        WrittenLimits(client, "ns", "limits"),
        agents(client),
        client,
        "ns",
        str(folder),
        str(folder),
        Quick(),
        lambda: jobs,
        lambda: changes.append(1),
    )
    task = asyncio.create_task(supplies.run())
    try:
        yield Platform(folder, cluster, supplies, list(jobs), changes)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def job(workers: int = 4, **energy: Any) -> JobView:
    """It runs with all its workers."""
    of = b.spec(workers=workers, elastic={"minWorkers": 1, "maxWorkers": workers}, energy=energy)
    status = b.started(of)
    counts = status.workers.model_copy(update={"current": workers})
    return b.job(of, status.model_copy(update={"workers": counts}))


async def test_a_job_is_told_of_its_zone(tmp_path: Path) -> None:
    async with platform(tmp_path) as found:
        of = job()
        await found.until(lambda: found.supplies.of(of).signals.get(Measure.AVERAGE) is not None)
        await found.until(lambda: found.supplies.of(of).signals[Measure.AVERAGE].quality is Quality.FORECAST)
        supply = found.supplies.of(of)
        assert (supply.zone, supply.pue) == ("DE", 1.3)
        assert supply.signals[Measure.AVERAGE].at(datetime.now(UTC).timestamp()) == 300
        assert supply.signals[Measure.MARGINAL].quality is Quality.NONE
        assert found.changes.count(1) >= 1


async def test_another_zone_has_its_mean_at_best(tmp_path: Path) -> None:
    async with platform(tmp_path) as found:
        of = job(zone="FR")
        await found.until(lambda: found.supplies.of(of).zone == "FR")
        assert found.supplies.of(of).signals[Measure.AVERAGE].quality is Quality.STATIC


async def test_settings_that_cannot_be_used_change_nothing_and_are_said(tmp_path: Path) -> None:
    async with platform(tmp_path) as found:
        of = job()
        await found.until(lambda: found.supplies.of(of).zone == "DE")
        (tmp_path / "energy.yaml").write_text("sources: [{name: x, provider: nobody}]")
        await found.until(lambda: "sources[0]" in found.supplies.of(of).why)
        assert found.supplies.of(of).zone == "DE"
        (tmp_path / "energy.yaml").write_text(SETTINGS.replace("pue: 1.3", "pue: 1.5"))
        await found.until(lambda: found.supplies.of(of).pue == 1.5)
        assert found.supplies.of(of).why == ""


async def test_without_settings_nothing_is_known(tmp_path: Path) -> None:
    supplies = Supplies(
        Document(None),
        WrittenLimits(cast(KubeClient, Cluster()), "ns", ""),
        agents(cast(KubeClient, Cluster())),
        cast(KubeClient, Cluster()),
        "ns",
        "",
        "",
        Quick(),
        tuple,
        lambda: None,
    )
    task = asyncio.create_task(supplies.run())
    await asyncio.sleep(0.1)
    assert supplies.of(job()).signals == {}
    assert supplies.of(job()).why
    task.cancel()


async def test_a_limit_that_is_written_reaches_the_jobs_of_the_domain(tmp_path: Path) -> None:
    of = job()
    async with platform(tmp_path, SETTINGS, of) as found:
        await found.until(lambda: found.supplies.of(of).zone == "DE")
        found.cluster.data = {"hall-1": "50%"}
        await found.until(lambda: found.supplies.of(of).order is not None)
        order = found.supplies.of(of).order
        assert order is not None
        assert 1 <= order.workers < 4
        assert "hall-1" in order.why
        asked = found.cluster.asked
        found.cluster.data = {"hall-1": "half"}  # cannot be read: what was there before holds
        await found.until(lambda: found.cluster.asked > asked + 3)
        assert found.supplies.of(of).order == order
        found.cluster.data = None
        await found.until(lambda: found.supplies.of(of).order != order)


@pytest.mark.parametrize("template", [{"spec": "x"}, {"spec": [1]}, {"spec": {"nodeSelector": ["a"]}}, {"spec": None}])
async def test_a_template_of_any_shape_frees_nobody_of_a_limit(tmp_path: Path, template: dict[str, Any]) -> None:
    """One tenant's mistake ended the look at all jobs."""
    of, odd = job(), replace(b.job(b.spec(workers=1, podTemplate=template)), uid="odd")
    async with platform(tmp_path, SETTINGS, odd, of) as found:
        await found.until(lambda: found.supplies.of(of).zone == "DE")
        found.cluster.data = {"hall-1": "50%"}
        await found.until(lambda: found.supplies.of(of).order is not None)
        assert found.supplies.of(odd).zone == "DE"


def test_an_entry_of_a_megabyte_is_a_limit_and_no_status() -> None:
    limits = WrittenLimits(cast(KubeClient, Cluster()), "ns", "limits")
    limits.entries = {"hall-1": f"{'0' * 10_000}50%\n"}
    found = limits.of(DOMAIN, 1000.0, 0.0)
    assert found is not None
    assert found.watts == 500.0
    assert EnergyOrder(workers=1, by="limit", why=found.why)


@pytest.mark.parametrize(
    ("entry", "watts", "until"),
    [
        ("75%", 750.0, None),
        (" 500\n", 500.0, None),
        ("75% until 2026-12-01T18:00:00Z", 750.0, 1796148000.0),
        ("75%  until  2026-12-01t19:00:00+01:00\n", 750.0, 1796148000.0),
        ("0 until 2026-12-01T18:00:00.5Z", 0.0, 1796148000.5),
    ],
)
def test_a_written_limit_may_say_when_it_ends(entry: str, watts: float, until: float | None) -> None:
    assert limit_of(entry, 1000.0) == (watts, until)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "a limit is watts"),
        ("much until 2026-12-01T18:00:00Z", "a limit is watts, such as 12000"),
        ("75% until", "a limit is such as 75%"),
        ("75% 2026-12-01T18:00:00Z", "a limit is such as 75%"),
        ("75% until 2026-12-01T18:00:00Z or so", "a limit is such as 75%"),
        ("75% until 2026-12-01T18:00:00", "a time with its zone"),
        ("75% until 2026-13-01T18:00:00Z", "a time with its zone"),
        ("75% until tomorrow", "a time with its zone, such as 2026-12-01T18:00:00Z, not 'tomorrow'"),
        (f"75% until {'9' * 5000}", "a time with its zone"),
    ],
)
def test_what_is_no_written_limit_is_said_and_the_one_before_holds(
    entry: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        limit_of(entry, 1000.0)
    limits = WrittenLimits(cast(KubeClient, Cluster()), "ns", "limits")
    limits.entries = {"hall-1": "50% until 2026-12-01T18:00:00Z"}
    before = limits.of(DOMAIN, 1000.0, 0.0)
    limits.entries = {"hall-1": entry}
    assert limits.of(DOMAIN, 1000.0, 0.0) == before
    assert limits.of(DOMAIN, 1000.0, 1796148000.0) is None, "it ended, whatever is there now"


def test_each_entry_that_cannot_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Two of them took turns, and both were logged at every look."""
    limits = WrittenLimits(cast(KubeClient, Cluster()), "ns", "limits")
    halls = [DOMAIN, DOMAIN.model_copy(update={"name": "hall-2"})]
    limits.entries = {"hall-1": "half", "hall-2": "75% until tomorrow"}
    for _ in range(3):
        assert [limits.of(hall, 1000.0, 0.0) for hall in halls] == [None, None]
    assert [record.getMessage() for record in caplog.records] == ["a limit of power cannot be read"] * 2
    limits.entries = {"hall-1": "50%", "hall-2": "75% until tomorrow"}
    assert limits.of(halls[0], 1000.0, 0.0) is not None
    limits.entries = {"hall-1": "half", "hall-2": "75% until tomorrow"}
    for hall in halls:
        limits.of(hall, 1000.0, 0.0)
    assert len(caplog.records) == 3, "it was well in between"


async def test_a_written_limit_ends_by_itself(tmp_path: Path) -> None:
    of, end = job(), datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    async with platform(tmp_path, SETTINGS, of) as found:
        await found.until(lambda: found.supplies.of(of).zone == "DE")
        found.cluster.data = {"hall-1": f"50% until {end:%Y-%m-%dT%H:%M:%SZ}"}
        await found.until(lambda: found.supplies.of(of).order is not None)
        order = found.supplies.of(of).order
        assert order is not None
        assert order.until == end.timestamp()
        told = found.supplies._ceilings(DOMAIN, [of])
        assert [each.end for each in told] == [end.timestamp()], "what is shared is planned with it, too"
        assert told == found.supplies._ceilings(DOMAIN, [of]), "and no look makes news of it"
        await found.until(lambda: found.supplies.of(of).order != order)
        assert datetime.now(UTC) >= end


def test_no_zone_of_its_own_takes_a_job_out_of_its_hall() -> None:
    """It is a tenant's to write: a limit holds for him, too."""
    settings = read(SETTINGS)
    for zone in ("DE", "XX"):
        spec = job(zone=zone).spec
        assert spec is not None
        assert domain_of(spec, settings) == settings.power_domains[0]


DOMAIN = PowerDomain.model_validate({"name": "hall-1", "nodeSelector": {"hall": "1"}, "zone": "DE"})


def test_a_job_that_rests_by_its_user_is_no_part_of_it() -> None:
    held = Domain()
    rests = b.job(b.spec(workers=4, suspend=True), b.started(b.spec(workers=4)))
    assert not held.tick(DOMAIN, Limited(1.0, "a limit"), [rests], 0.0)
    assert held.orders == {}


def test_it_comes_back_when_the_limit_is_over() -> None:
    held, of = Domain(), job()
    assert held.tick(DOMAIN, Limited(200.0, "a limit"), [of], 0.0)
    assert held.orders[of.uid].workers < 4
    now = 0.0
    while not held.idle and now < 120:
        now += 2.0
        held.tick(DOMAIN, None, [of], now)
    assert held.orders == {}
    assert now <= 60


async def test_what_was_is_made_into_what_is_to_come(tmp_path: Path) -> None:
    """A trace that ends now is a history: the planner is given a week ahead."""
    async with platform(tmp_path) as found:
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        rows = [f"{(now - timedelta(hours=h)).isoformat()},{300 + 100 * (h % 24 < 12)}" for h in range(1, 100)]
        (tmp_path / "past.csv").write_text("\n".join(["timestamp,g_per_kwh", *reversed(rows)]))
        (tmp_path / "energy.yaml").write_text(SETTINGS.replace("de.csv", "past.csv"))
        of = job()

        def is_history() -> bool:
            signal = found.supplies.of(of).signals.get(Measure.AVERAGE)
            return signal is not None and signal.quality is Quality.HISTORY

        await found.until(is_history)
        signal = found.supplies.of(of).signals[Measure.AVERAGE]
        values = [signal.at(now.timestamp() + h * 3600 + 1) for h in range(1, 100)]
        assert None not in values
        assert max(v for v in values if v is not None) - min(v for v in values if v is not None) > 50


async def test_jobs_of_a_domain_with_places_are_planned_together(tmp_path: Path) -> None:
    deadline = (datetime.now(UTC) + timedelta(hours=40)).isoformat()
    profile = [{"workers": n, "stepsPerSecond": float(n), "watts": 300.0 * n} for n in range(1, 5)]
    of = b.spec(
        workers=2,
        elastic={"minWorkers": 1, "maxWorkers": 4},
        training={"steps": 40_000},
        energy={"deadline": deadline, "profile": profile},
    )
    two = [replace(b.job(of, created=datetime.now(UTC)), name=name, uid=name * 8) for name in "ab"]
    async with platform(tmp_path, SETTINGS.replace("pue: 1.3", "pue: 1.3, workers: 4"), *two) as found:

        def granted(job: JobView) -> bool:
            shared = found.supplies.of(job).shared
            return shared is not None and shared.granted is not None

        await found.until(lambda: all(granted(job) for job in two))


async def test_a_job_draws_where_its_workers_are(tmp_path: Path) -> None:
    """Also where its podTemplate says nothing, or another hall: as known from its nodes."""
    text = SETTINGS + '  - {name: hall-2, nodeSelector: {hall: "2"}, zone: FR, pue: 1.1}\n'
    async with platform(tmp_path, text) as found:
        of = job()
        await found.until(lambda: found.supplies.of(of).zone == "DE")
        hall = read(text).power_domains[1]
        found.supplies.located = lambda job: hall
        assert (found.supplies.of(of).zone, found.supplies.of(of).pue) == ("FR", 1.1)
        assert found.supplies.of(job(zone="DE")).zone == "DE", "who names a zone has it"
