"""How does the operator account for a job's electricity?"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.energy import EnergyCounted, EnergyTold, total
from drivetrain_api.energy_status import EnergyStatus, UsedEnergy
from drivetrain_api.messages import Progress
from drivetrain_api.report import JobState
from drivetrain_api.status import Membership, TrainingJobStatus
from drivetrain_energy.accounts.ledger import Drawn, Ledger
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy_words import to_status
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.energy_used import energy_used
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import PodPhase, Supply, Terminated, View
from unit.plan.builders import NOW, coordinator, job, replaced, report, running, spec, started

KWH = 3.6e6
HOUR = 3600.0


def signal(measure: Measure, *values: float, quality: Quality = Quality.HISTORY, first: float = 0.0) -> Signal:
    """A value each hour, the first of them so many seconds before the job's creation."""
    start = (NOW - timedelta(seconds=900)).timestamp() - first
    slots = tuple(Slot(start + HOUR * n, start + HOUR * (n + 1), value) for n, value in enumerate(values))
    return Signal("DE", measure, quality, slots, start, "em", "EUR/kWh" if measure is Measure.PRICE else "g/kWh")


def supply(*signals: Signal, **fields: Any) -> Supply:
    return Supply(zone="DE", signals={each.measure: each for each in signals}, **fields)


def told(kwh: float, seconds: float = 600.0, **fields: Any) -> EnergyTold:
    return EnergyTold(
        joules={"gpu": {"nvml": kwh * KWH}}, seconds=seconds, worker_seconds=3 * seconds, uptime=seconds, **fields
    )


def booked(view: View, seconds: float = 0.0) -> tuple[View, UsedEnergy]:
    """The view with what a pass writes so many seconds later."""
    view = replace(view, now=view.now + timedelta(seconds=seconds))
    status = TrainingJobStatus.model_validate_json(json.dumps(status_json(plan(view).status)))
    assert status.energy is not None
    assert status.energy.used is not None
    return replace(view, job=replace(view.job, status=status)), status.energy.used


def test_it_begins_with_what_is_told_first() -> None:
    _, used = booked(running(report=report(energy=told(2.0))))
    assert (used.joules, used.kwh, used.grams, used.seconds) == ({"gpu": {"nvml": 2 * KWH}}, "2.00", "", 600)
    assert used.why == "no source of carbon intensity is set for its zone"


def test_where_nobody_tells_nothing_is_said() -> None:
    assert plan(running()).status.energy is None


def test_grams_and_cost_are_those_of_the_hour_with_the_sites_overhead() -> None:
    """Ten minutes, half of them in an hour of 100 g and half in one of 300 g."""
    hours = [
        signal(Measure.AVERAGE, 100, 300, first=HOUR - 600),
        signal(Measure.MARGINAL, 500, 500, first=HOUR - 600),
        signal(Measure.PRICE, 0.1, -0.3, first=HOUR - 600),
    ]
    _, used = booked(running(report=report(energy=told(2.0), age=0.0), supply=supply(*hours, pue=1.5)))
    # Of the last ten minutes of 900 s, five are in each hour.
    assert {name: each.grams for name, each in used.carbon.items()} == pytest.approx({"average": 600, "marginal": 1500})
    assert {each.kwh for each in used.carbon.values()} == {3.0}
    assert used.spent is not None
    assert used.spent.amount == pytest.approx(-0.3)
    assert used.spent.currency == "EUR"
    assert (used.kwh, used.grams, used.cost, used.why) == ("2.00", "600", "-0.3000 EUR", "")


@pytest.mark.parametrize(
    ("what", "supplied", "why"),
    [
        ("none", Supply(why="no source covers zone DE"), "no source covers zone DE"),
        ("one that fails", supply(replace(signal(Measure.AVERAGE), quality=Quality.NONE, why="HTTP 401")), "HTTP 401"),
    ],
)  # fmt: skip
def test_without_an_intensity_there_are_joules_and_no_grams(what: str, supplied: Supply, why: str) -> None:
    _, used = booked(running(report=report(energy=told(2.0)), supply=supplied))
    assert (used.carbon, used.grams, used.why) == ({}, "", why)


def test_of_a_time_that_is_known_in_part_so_are_the_grams() -> None:
    _, used = booked(
        running(report=report(energy=told(2.0), age=0.0), supply=supply(signal(Measure.AVERAGE, 100, first=HOUR - 600)))
    )
    assert used.carbon["average"].kwh == pytest.approx(1.0)
    assert used.carbon["average"].grams == pytest.approx(100)


def test_time_alone_is_a_write_each_quarter_of_an_hour() -> None:
    view, _ = booked(running(report=report(energy=told(2.0))))
    view = replace(view, report=report(energy=told(2.1, 700.0)))
    later = replace(view, now=view.now + timedelta(seconds=800))
    assert plan(later).status == later.job.status
    assert energy_used(later, later.job.status).after == pytest.approx(100)
    _, used = booked(view, 901)
    assert total(used.joules) == pytest.approx(2.1 * KWH)


def test_it_is_counted_with_what_else_is_written() -> None:
    view, _ = booked(running(report=report(energy=told(2.0))))
    news = report(energy=told(2.1, 660.0), progress=Progress(step=50, steps=100))
    _, used = booked(replace(view, report=news), 61)
    assert total(used.joules) == pytest.approx(2.1 * KWH)


def test_what_the_last_one_told_counts_although_its_successor_is_there_and_nothing_after_that() -> None:
    view, _ = booked(running(report=report(energy=told(2.0))))
    dead = replace(coordinator(), phase=PodPhase.FAILED, ready=False, terminated=Terminated(1))
    late = replace(replaced(view, dead), report=report(age=10, energy=told(2.1, 660.0)))
    view, used = booked(late, 20)
    assert view.job.status.membership.term == 2
    assert total(used.joules) == pytest.approx(2.1 * KWH)
    assert roster(view).energy == EnergyCounted(term=1, uptime=660.0)
    still_there = replace(view, report=report(age=1, energy=told(5.0, 700.0)))
    _, used = booked(still_there, 1000)
    assert total(used.joules) == pytest.approx(2.1 * KWH), "its successor was told to count from there"
    after = replace(view, report=report(term=2, energy=told(0.4, 60.0)))
    view, used = booked(after, 1100)
    assert total(used.joules) == pytest.approx(2.5 * KWH)
    assert roster(view).energy is None, "it has told something itself"


def test_a_first_coordinator_is_told_that_nothing_is_counted() -> None:
    assert roster(running()).energy == EnergyCounted()


@pytest.mark.parametrize(
    ("what", "energy", "kwh"),
    [
        ("more than workers draw", told(1e6), 6 * 600 * 5e4 / KWH),
        ("for longer than the job is old", told(2.0, 1e6), 2.0 * 960 / 1e6),
        ("nothing in no time", told(2.0, 0.0), 0.0),
    ],
)
def test_a_coordinator_that_lies_is_believed_as_far_as_it_can_be(what: str, energy: EnergyTold, kwh: float) -> None:
    if what.startswith("more"):
        energy = energy.model_copy(update={"worker_seconds": 1e9})
    _, used = booked(running(report=report(energy=energy, age=0.0)))
    assert total(used.joules) / KWH == pytest.approx(kwh, abs=1e-3)


def test_making_the_nodes_is_shared_by_time_and_by_workers_on_a_node() -> None:
    """SCI: TE · (TiR/EL) · (RR/ToR)."""
    view = running(report=report(energy=told(2.0)), supply=Supply(embodied_kg=1000.0, lifespan_years=4.0))
    _, used = booked(view)
    whole = 1e6 * 3 * 600 / (4 * 365.25 * 86_400)
    assert used.embodied_grams == pytest.approx(whole, abs=1e-3)
    pods = tuple(replace(pod, node="node0") if pod.index >= 0 else pod for pod in view.pods)
    _, used = booked(replace(view, pods=pods))
    assert used.embodied_grams == pytest.approx(whole / 3, abs=1e-3)


def test_what_its_wait_has_brought() -> None:
    """Created in an hour of 500 g, it waits for six hours until one of 100 g, and draws 2 kW for two hours."""
    hours = signal(Measure.AVERAGE, 500, 400, 300, 200, 200, 200, 100, 100, 100)
    created = NOW - timedelta(seconds=900)
    status = started(start_time=None, membership=Membership(term=1))
    view = View(job=job(spec(energy={}), status), now=created, supply=supply(hours))

    def passes(view: View, hours: float) -> View:
        decided = energy_used(view, view.job.status.model_copy(update={"message": str(hours)})).status
        return replace(
            view, job=replace(view.job, status=TrainingJobStatus.model_validate_json(json.dumps(status_json(decided))))
        )

    for hour in range(7):
        view = passes(replace(view, now=created + timedelta(hours=hour)), hour)
    for minute in range(10, 121, 10):
        energy = told(2.0 * minute / 60, 60.0 * minute)
        now = created + timedelta(hours=6, minutes=minute)
        # What the source says of hours that are over, it says no more.
        known = replace(hours, slots=tuple(slot for slot in hours.slots if slot.end > now.timestamp() - 2 * HOUR))
        view = passes(replace(view, now=now, report=report(energy=energy, age=0.0), supply=supply(known)), minute)
    energy_status = view.job.status.energy
    assert energy_status is not None
    assert energy_status.used is not None
    avoided = energy_status.used.avoided
    assert avoided is not None
    assert avoided.replayed_grams == pytest.approx(2 * 500 + 2 * 400, rel=1e-4)
    assert avoided.actual_grams == pytest.approx(2 * 2 * 100, rel=1e-4)
    assert avoided.grams == pytest.approx(1400, rel=1e-4)
    assert len(energy_status.used.counted.trace.values) < 6 * 4 + 2


def test_one_that_ran_at_once_has_avoided_nothing() -> None:
    hours = signal(Measure.AVERAGE, *(100.0 + 50 * (n % 7) for n in range(24)), first=HOUR)
    view = running(spec(energy={}), report=report(energy=told(0.1, 900.0), age=0.0), supply=supply(hours))
    for n in range(2, 60):
        view, used = booked(replace(view, report=report(energy=told(0.1 * n, 900.0 * n), age=0.0)), 900)
    assert used.avoided is not None
    assert used.avoided.grams == pytest.approx(0, abs=0.01 * used.avoided.actual_grams)


def test_the_end_is_told_with_what_it_took() -> None:
    view = running(
        report=report(energy=told(2.0), age=0.0, state=JobState.COMPLETE), supply=supply(signal(Measure.AVERAGE, 100))
    )
    (event,) = [effect for effect in plan(view).effects if getattr(effect, "reason", "") == "EnergyUsed"]
    assert "2.00 kWh" in getattr(event, "message", "")
    assert "200 g CO2e (average)" in getattr(event, "message", "")


def test_a_job_that_another_release_has_looked_after_goes_on() -> None:
    status = started(energy=EnergyStatus(used=UsedEnergy(joules={"cpu": {"model": 1.0}})))
    _, used = booked(running(status=status, report=report(energy=told(1.0))), 1000)
    assert used.joules == {"cpu": {"model": 1.0}, "gpu": {"nvml": KWH}}


@pytest.mark.parametrize(("measure", "grams"), [("average", "100"), ("marginal", "500")])
def test_grams_in_kubectl_get_are_of_the_measure_that_the_job_is_planned_by(measure: str, grams: str) -> None:
    of = spec(energy={"measure": measure})
    given = supply(signal(Measure.AVERAGE, 100, 100), signal(Measure.MARGINAL, 500, 500))
    _, used = booked(running(of, report=report(energy=told(1.0)), supply=given))
    assert used.grams == grams


def test_no_number_of_refused_readings_is_more_than_a_status_carries() -> None:
    """Each coordinator may tell as many as can be told, and they are added up."""
    assert to_status(Ledger(used=Drawn(refused=2**54), told=Drawn(refused=2**54)), why="").refused == 2**53
