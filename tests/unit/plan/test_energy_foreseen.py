"""What do a job's plans say of all of it, beside what it used?"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import pytest

from drivetrain_api.energy_status import CarbonUsed, EnergyStatus, ForeseenEnergy, UsedEnergy
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy_words import what_it_took
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.stored import read
from drivetrain_operator.plan.view import Supply, View
from unit.plan import builders as b

HOUR = 3600.0
PROFILE = [{"workers": n, "stepsPerSecond": float(n), "watts": 1000.0 * n} for n in range(1, 5)]


def spec(hours: float = 12.0) -> TrainingJobSpec:
    """An hour of four workers: 4 kWh."""
    wish = {"deadline": (b.NOW + timedelta(hours=hours)).isoformat(), "profile": PROFILE, "minRunSeconds": 0}
    return b.spec(workers=4, elastic={"minWorkers": 1, "maxWorkers": 4}, training={"steps": 4 * 3600}, energy=wish)


def passed(of: TrainingJobSpec, status: TrainingJobStatus | None = None, later: float = 0.0) -> TrainingJobStatus:
    """100 g/kWh now, 50 from the fifth hour on; the site draws a quarter more than its machines."""
    begin = b.NOW.timestamp()
    slots = tuple(Slot(begin + i * HOUR, begin + (i + 1) * HOUR, 100.0 if i < 4 else 50.0) for i in range(24))
    supply = Supply("DE", {Measure.AVERAGE: Signal("DE", Measure.AVERAGE, Quality.FORECAST, slots, 1.0, "t")}, pue=1.25)
    view = View(b.job(of, status, created=b.NOW), b.NOW + timedelta(seconds=later), supply=supply)
    return read(status_json(plan(view).status))[0]


def test_the_first_plan_is_remembered() -> None:
    first = passed(spec()).energy
    assert first is not None
    assert first.first is not None
    assert first.first == first.foreseen
    assert first.first.kwh == pytest.approx(4.0, rel=0.02)
    assert first.first.grams == pytest.approx(4 * 1.25 * 50, rel=0.02)
    assert first.first.measure == "average"


def test_another_plan_is_told_with_what_was_used_before_it() -> None:
    """Its user wants it sooner, after it has used a kilowatt-hour."""
    before = passed(spec())
    assert before.energy is not None
    used = UsedEnergy(
        joules={"gpu": {"nvml": 3.6e6}}, seconds=900.0, carbon={"average": CarbonUsed(grams=125, kwh=1.25)}
    )
    before = before.model_copy(update={"energy": before.energy.model_copy(update={"used": used})})
    after = passed(spec(2.0), before, later=60.0).energy
    assert after is not None
    assert after.foreseen is not None
    assert after.first == before.energy.first if before.energy is not None else None
    assert after.foreseen.kwh == pytest.approx(1.0 + 4.0, rel=0.02)
    assert after.foreseen.grams == pytest.approx(125 + 4 * 1.25 * 100, rel=0.02)


def test_while_a_plan_holds_nothing_is_written() -> None:
    before = passed(spec())
    assert passed(spec(), before, later=60.0) == before


def test_what_is_not_known_of_what_was_used_is_not_known_in_all() -> None:
    used = UsedEnergy(joules={"gpu": {"nvml": 3.6e6}}, seconds=900.0)
    status = TrainingJobStatus(energy=EnergyStatus(used=used))
    found = passed(spec(), status).energy
    assert found is not None
    assert found.first is not None
    assert found.first.grams is None
    assert found.first.kwh == pytest.approx(5.0, rel=0.02)


@pytest.mark.parametrize(
    ("grams", "measure", "told"),
    [
        (900.0, None, "2.00 kWh and 900 g"),
        (900.0, "average", "2.00 kWh and 900 g"),
        (900.0, "marginal", "2.00 kWh and 900 g (marginal)"),
        (None, None, "2.00 kWh"),
    ],
)
def test_the_event_at_its_end_has_both(
    grams: float | None, measure: Literal["average", "marginal"] | None, told: str
) -> None:
    carbon = {"average": CarbonUsed(grams=800, kwh=1.0)}
    used = UsedEnergy(kwh="1.00", joules={"gpu": {"nvml": 3.6e6}}, seconds=900.0, carbon=carbon)
    first = ForeseenEnergy(made=b.NOW, finish=b.NOW, kwh=2.0, grams=grams, measure=measure)
    assert what_it_took(used, first) == f"1.00 kWh, 800 g CO2e (average), its first plan foresaw {told}"


def test_where_nothing_is_counted_yet_it_is_what_the_plan_takes() -> None:
    """Prometheus has yet to tell of the first minutes."""
    status = TrainingJobStatus(energy=EnergyStatus(used=UsedEnergy(seconds=600.0, worker_seconds=2400.0)))
    found = passed(spec(), status).energy
    assert found is not None
    assert found.foreseen is not None
    assert found.foreseen.grams == pytest.approx(4 * 1.25 * 50, rel=0.02)
