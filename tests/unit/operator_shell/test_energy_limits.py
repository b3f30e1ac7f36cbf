"""Who gives first under a limit, and how long does a leader that begins keep what it does not know yet?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.energy_plan import EnergyOrder
from drivetrain_api.energy_spec import EnergyPoint
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.energy import supplies
from drivetrain_operator.energy.domains import Domain, full_watts, tier_of
from drivetrain_operator.energy.limits import Limited
from drivetrain_operator.plan.view import JobView
from unit.operator_shell.test_energy import SETTINGS, job, platform

TIERS = [
    {"name": "production", "keep": 1.0, "job_labels": {"team": "production"}},
    {"name": "research", "keep": 0.5, "namespaces": ("research",)},
    {"name": "rest", "keep": 0.0, "suspend": True, "namespaces": ("other",)},
]


def hall(*tiers: dict[str, Any]) -> PowerDomain:
    fields = {"name": "hall-1", "nodeSelector": {"hall": "1"}, "zone": "DE", "watts": 1200.0}
    return PowerDomain.model_validate({**fields, "tiers": tuple(tiers)})


def of(name: str, namespace: str, **labels: str) -> JobView:
    return replace(job(4, tier=3), uid=f"{name.encode().hex():>08}", name=name, namespace=namespace, labels=labels)


@pytest.mark.parametrize(
    ("namespace", "labels", "expected"),
    [
        ("research", {"team": "production"}, (1, "production")),
        ("research", {"team": "other"}, (2, "research")),
        ("other", {}, (3, "rest")),
        ("nobody", {}, (3, None)),
    ],
)
def test_the_first_that_fits_is_its_own(namespace: str, labels: dict[str, str], expected: tuple[int, str]) -> None:
    number, tier = tier_of(of("a", namespace, **labels), hall(*TIERS))
    assert (number, tier.name if tier is not None else None) == expected


def test_who_keeps_all_has_all_while_others_can_give() -> None:
    """Three jobs of four workers at 100 W, in 900 W."""
    jobs = [of("a", "ml", team="production"), of("b", "research"), of("c", "other")]
    held = Domain()
    held.tick(hall(*TIERS), Limited(900.0, "a limit"), jobs, 0.0)
    workers = {each.name: held.orders[each.uid].workers if each.uid in held.orders else 4 for each in jobs}
    assert workers["a"] == 4
    assert workers["c"] < 4
    assert sum(workers.values()) <= 9


def test_what_no_tier_fits_goes_by_its_own() -> None:
    jobs = [of("a", "x"), of("b", "x")]
    held, plain = Domain(), Domain()
    held.tick(hall(*TIERS), Limited(400.0, "a limit"), jobs, 0.0)
    plain.tick(hall(), Limited(400.0, "a limit"), jobs, 0.0)
    assert held.orders == plain.orders


@pytest.mark.parametrize(("claimed", "believed"), [(1e-3, 4 * 12.5), (350.0, 350.0), (1e9, 4 * 400.0)])
def test_what_a_job_says_that_it_draws_is_believed_within_reason(claimed: float, believed: float) -> None:
    """Until it is measured: by one number a tenant would have all others give, or give nothing himself."""
    points = [{"workers": n, "stepsPerSecond": float(n), "watts": claimed} for n in range(1, 5)]
    others = [of("a", "x"), of("b", "x")]
    boast = of("c", "y")
    assert boast.spec is not None
    assert boast.spec.energy is not None
    wish = boast.spec.energy.model_copy(update={"profile": [EnergyPoint.model_validate(each) for each in points]})
    boast = replace(boast, spec=boast.spec.model_copy(update={"energy": wish}))
    unbounded = hall().model_copy(update={"watts": None})
    assert full_watts(unbounded, [*others, boast]) == pytest.approx(full_watts(unbounded, others) + believed)


def test_orders_say_until_when_also_to_who_rests_by_his_plan_meanwhile() -> None:
    jobs = [of("a", "x"), of("b", "x")]
    held = Domain()
    held.tick(hall(), Limited(400.0, "a limit", until=5000.0), jobs, 0.0)
    assert {order.until for order in held.orders.values()} == {5000.0}
    before = held.orders[jobs[0].uid]
    rests = EnergyStatus(order=EnergyOrder(workers=0, by="plan", why=""))
    jobs[0] = replace(jobs[0], status=jobs[0].status.model_copy(update={"energy": rests}))
    held.tick(hall(), Limited(400.0, "a limit", until=6000.0), jobs, 1.0)
    assert held.orders[jobs[0].uid] == replace(before, until=6000.0)
    held.tick(hall(), None, jobs, 2.0)
    assert jobs[0].uid not in held.orders
    assert {order.until for order in held.orders.values()} <= {0.0}


GRID = """
  - {name: grid, provider: openADR, measure: limit, zones: [DE], baseURL: "http://127.0.0.1:9/openadr"}
powerDomains:
  - {name: hall-1, nodeSelector: {hall: "1"}, zone: DE, watts: 1000, limitFrom: grid}
"""


async def test_a_silent_source_of_limits_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SETTINGS[: SETTINGS.index("powerDomains")].rstrip() + GRID
    asked = job()
    async with platform(tmp_path, text, asked) as found:
        await found.until(lambda: found.supplies.of(asked).zone == "DE" and found.cluster.asked > 3)
        assert not found.supplies.of(asked).limits_known
        monkeypatch.setattr(supplies, "SILENT_SECONDS", 0.0)
        await found.until(lambda: found.supplies.of(asked).limits_known)


async def test_without_one_what_is_written_is_all_that_there_is(tmp_path: Path) -> None:
    asked = job()
    async with platform(tmp_path, SETTINGS, asked) as found:
        await found.until(lambda: found.supplies.of(asked).limits_known)
