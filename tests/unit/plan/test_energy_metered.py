"""How does the operator account for what DCGM and Kepler know better than workers?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.energy import EnergySource, EnergyTold
from drivetrain_api.energy_status import AwaitedEnergy, CountedEnergy, EnergyStatus, UsedEnergy
from drivetrain_api.messages import Progress
from drivetrain_api.report import JobState
from drivetrain_api.status import TrainingJobStatus
from drivetrain_energy.accounts.awaited import Awaited
from drivetrain_energy.accounts.counters import BUCKET_SECONDS, Bucket, Metered
from drivetrain_energy.accounts.ledger import Drawn, Ledger, Site
from drivetrain_energy.accounts.ledger import booked as ledger_of
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.effects import DeleteJob, RecordEvent
from drivetrain_operator.plan.energy.asked import worker_watts
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Supply, View
from unit.plan.builders import NOW, report, running, spec

T = NOW.timestamp()
DCGM, KEPLER = EnergySource.DCGM, EnergySource.KEPLER


def told(seconds: float = 600.0, **joules: dict[str, float]) -> EnergyTold:
    return EnergyTold(
        joules=joules or {"cpu": {"model": 21 * seconds}}, seconds=seconds, worker_seconds=3 * seconds, uptime=seconds
    )


def metered(until: float, gpus: float = 900.0, cpus: float = 60.0, pods: int = 3, **fields: Any) -> dict[Any, Any]:
    """What three pods have drawn since long ago, and up to so many seconds from now."""
    since, end = T - 2000, T + until
    known = Metered(since, end, asked=end)
    parts = {DCGM: ("gpu", gpus), KEPLER: ("cpu", cpus)}
    return {
        source: replace(
            known,
            buckets=tuple(
                Bucket(since + n * BUCKET_SECONDS, {component: watts * BUCKET_SECONDS}, pods * BUCKET_SECONDS)
                for n in range(math.ceil((end - since) / BUCKET_SECONDS))
            ),
            **fields,
        )
        for source, (component, watts) in parts.items()
    }


def booked(view: View, seconds: float = 0.0) -> tuple[View, UsedEnergy]:
    """The view with what a pass writes so many seconds later."""
    view = replace(view, now=view.now + timedelta(seconds=seconds))
    status = TrainingJobStatus.model_validate_json(json.dumps(status_json(plan(view).status)))
    assert status.energy is not None
    assert status.energy.used is not None
    return replace(view, job=replace(view.job, status=status)), status.energy.used


def with_energy(energy: EnergyTold, known: dict[Any, Any], **fields: Any) -> View:
    return running(report=report(age=0.0, energy=energy), supply=Supply(metered=known, **fields))


def test_what_many_workers_drew_is_not_cut_to_what_is_left_of_them() -> None:
    """It rests since then, or has become small."""
    awaited = {DCGM: Awaited(T - 600, T, worker_seconds=600 * 100.0)}
    before = Ledger(used=Drawn({}, 60_000, 600), awaited=awaited, until=T)
    after = ledger_of(before, None, T - 3600, T + 60, Site(metered=metered(60, gpus=560e3, pods=100)))
    assert after.used.joules == {"gpu": {"dcgm": pytest.approx(560e3 * 600)}}
    assert not after.used.refused


def test_what_one_look_refused_counts_once_though_it_settles_its_time_in_parts() -> None:
    (known,) = [replace(each, buckets=(replace(each.buckets[0], start=T - 300, refused=3),))
                for each in [metered(600)[DCGM]]]  # fmt: skip
    before = Ledger(awaited={DCGM: Awaited(T - 600, T, worker_seconds=1800.0)}, until=T)
    site = Site(metered={DCGM: known}, workers_at_most=3)
    for told_until in (0, 200, 400):
        before = ledger_of(before, None, T - 3600, T + told_until + 1, site)
        assert before.used.refused == 3
        awaited = replace(before.awaited[DCGM], until=T + told_until + 200, worker_seconds=600.0)
        before = replace(before, awaited={DCGM: awaited})
    only = replace(known, buckets=(Bucket(T - 300, {}, refused=2),))
    rest = Ledger(awaited={DCGM: Awaited(T - 600, T, worker_seconds=1800.0)}, until=T)
    assert ledger_of(rest, None, T - 3600, T + 1, replace(site, metered={DCGM: only})).used.refused == 2


def test_off_it_is_as_it_was() -> None:
    _, used = booked(with_energy(told(), {}))
    assert used.joules == {"cpu": {"model": 12_600}}
    assert not used.counted.awaited


def test_until_prometheus_tells_it_waits_and_then_its_joules_count() -> None:
    view, used = booked(with_energy(told(), metered(-2000)))
    assert (used.joules, used.seconds, used.worker_seconds) == ({}, 600, 1800)
    assert used.counted.joules == {"cpu": {"model": 12_600}}, "the coordinator need not tell it again"
    assert {source: (each.since, each.until) for source, each in used.counted.awaited.items()} == {
        "dcgm": (T - 600, T), "kepler": (T - 600, T),
    }  # fmt: skip
    view = replace(view, supply=Supply(metered=metered(840)), report=report(age=0.0, energy=told(1500)))
    view, used = booked(view, 901)
    assert used.joules == {"gpu": {"dcgm": 900 * 1440}, "cpu": {"kepler": 60 * 1440}}
    _, again = booked(replace(view, job=replace(view.job, status=view.job.status.model_copy(update={"message": "x"}))))
    assert again.joules == used.joules, "the same answer tells nothing twice"


@pytest.mark.parametrize(
    ("what", "energy", "known", "joules"),
    [
        ("workers read their GPUs", told(gpu={"nvml": 5e5}, cpu={"model": 12_600}), metered(0),
         {"gpu": {"nvml": 5e5}, "cpu": {"kepler": 36_000}}),
        ("by their power", told(gpu={"nvml-power": 5e5}), metered(0),
         {"gpu": {"nvml-power": 5e5}, "cpu": {"kepler": 36_000}}),
        ("and their processors", told(gpu={"nvml": 5e5}, cpu={"rapl": 9e4}, dram={"rapl": 9e3}), metered(0),
         {"gpu": {"nvml": 5e5}, "cpu": {"rapl": 9e4}, "dram": {"rapl": 9e3}}),
        ("some have the model", told(cpu={"rapl": 9e4, "model": 4200}), metered(0),
         {"gpu": {"dcgm": 540_000}, "cpu": {"rapl": 9e4, "model": 4200}}),
        ("of one of three pods nothing is known", told(), metered(0, gpus=600, cpus=40, pods=2),
         {"gpu": {"dcgm": 360_000}, "cpu": {"kepler": 24_000, "model": 4200}}),
        ("more than workers can draw", told(), metered(0, gpus=1e9),
         {"gpu": {"dcgm": 3 * 5e4 * 600}, "cpu": {"kepler": 36_000}}),
        ("it is asked for later times only", told(), {
            source: replace(each, since=T - 300) for source, each in metered(0).items()}, {}),
        ("its clock is ahead", told(), {
            source: replace(each, since=each.since + 500, until=each.until + 500, skew=500.0,
                            buckets=tuple(replace(b, start=b.start + 500) for b in each.buckets))
            for source, each in metered(0).items()}, {"gpu": {"dcgm": 540_000}, "cpu": {"kepler": 36_000}}),
        ("workers say a thousandth of a joule", told(gpu={"nvml": 0.001}, cpu={"rapl": 0.001, "model": 12_600}),
         metered(0), {"gpu": {"dcgm": 540_000}, "cpu": {"kepler": 36_000}}),
        ("and say it in hardly any worker's seconds", EnergyTold(joules={"gpu": {"nvml": 0.001}}, seconds=600.0,
         worker_seconds=1e-6, uptime=600.0), {DCGM: metered(0)[DCGM]}, {"gpu": {"dcgm": pytest.approx(0.05)}}),
        ("memory only", told(cpu={"model": 12_600}, dram={"rapl": 9e3}), metered(0),
         {"gpu": {"dcgm": 540_000}, "cpu": {"kepler": 36_000}, "dram": {"rapl": 9e3}}),
        ("one worker of many measures", told(gpu={"nvml": 19 * 1800.0}, cpu={"model": 12_600}), metered(0),
         {"gpu": {"dcgm": 540_000}, "cpu": {"kepler": 36_000}}),
        ("and of a pod nothing is known", told(gpu={"nvml": 9000.0}, cpu={"model": 12_600}),
         metered(0, gpus=600, cpus=40, pods=2),
         {"gpu": {"dcgm": 360_000, "nvml": 3000}, "cpu": {"kepler": 24_000, "model": 4200}}),
        ("only Kepler is asked", told(), {KEPLER: metered(0)[KEPLER]}, {"cpu": {"kepler": 36_000}}),
    ],
)  # fmt: skip
def test_whose_word_counts(what: str, energy: EnergyTold, known: dict[Any, Any], joules: Any) -> None:
    _, used = booked(with_energy(energy, known))
    assert used.joules == {c: {s: pytest.approx(v) for s, v in of.items()} for c, of in joules.items()}


def test_after_a_quarter_of_an_hour_of_silence_the_model_counts_and_later_words_of_that_time_do_not() -> None:
    view, _ = booked(with_energy(told(), {DCGM: None, KEPLER: None}))
    view, used = booked(replace(view, report=report(age=0.0, energy=told(1900))), 1300)
    assert used.joules == {"cpu": {"model": pytest.approx(21 * 1000)}}
    assert sum(each.worker_seconds for each in used.counted.awaited.values()) == pytest.approx(3 * (900 + 1900))
    known = {source: replace(each, since=T - 5000) for source, each in metered(1400).items()}
    energy = report(age=0.0, energy=told(2000), progress=Progress(step=50, steps=100))
    view, used = booked(replace(view, report=energy, supply=Supply(metered=known)), 100)
    assert used.joules["cpu"]["model"] == pytest.approx(21 * 1000)
    assert used.joules["cpu"]["kepler"] == pytest.approx(60 * 1000, rel=0.001)
    assert used.joules["gpu"] == {"dcgm": pytest.approx(900 * 2000, rel=0.001)}, "which has no model"


def test_a_little_that_workers_measured_keeps_the_exporter_out_of_nothing_and_is_not_lost() -> None:
    view, used = booked(with_energy(told(gpu={"nvml": 0.5}), {DCGM: None}))
    assert used.joules == {}, "who knows whether that is all?"
    view = replace(view, supply=Supply(metered={DCGM: metered(0)[DCGM]}))
    view, used = booked(replace(view, report=report(age=0.0, energy=told(1500, gpu={"nvml": 0.6}))), 900)
    assert used.joules == {"gpu": {"dcgm": pytest.approx(900 * 600)}}, "what it tells of has no joule twice"
    enough = told(2500, gpu={"nvml": 900.0 * 1000})
    _, used = booked(replace(view, report=report(age=0.0, energy=enough)), 1000)
    assert used.joules["gpu"]["dcgm"] == pytest.approx(900 * 600), "from now on workers are heard"
    assert used.joules["gpu"]["nvml"] == pytest.approx(900.0 * 1000)
    assert not used.counted.awaited


def test_where_it_is_turned_off_or_workers_begin_to_measure_nothing_is_left_waiting() -> None:
    view, _ = booked(with_energy(told(), {DCGM: None, KEPLER: None}))
    off = replace(view, supply=Supply(), report=report(age=0.0, energy=told(700)))
    _, used = booked(off, 901)
    assert used.joules == {"cpu": {"model": pytest.approx(21 * 700)}}
    assert not used.counted.awaited
    measure = told(700, cpu={"model": 12_600, "rapl": 5000}, gpu={"nvml": 7e4})
    _, used = booked(replace(view, report=report(age=0.0, energy=measure)), 901)
    assert used.joules == {"cpu": {"model": pytest.approx(12_600), "rapl": 5000}, "gpu": {"nvml": 7e4}}
    assert not used.counted.awaited


def test_a_prometheus_whose_clock_is_set_back_is_not_waited_for_until_it_is_as_late_again() -> None:
    ahead = {source: replace(each, skew=90_000.0) for source, each in metered(-2000).items()}
    view, used = booked(with_energy(told(), ahead))
    assert used.counted.awaited["kepler"].until == T + 90_000
    view = replace(view, supply=Supply(metered=metered(100)), report=report(age=0.0, energy=told(1500)))
    view, used = booked(view, 901)
    assert used.joules == {"cpu": {"model": pytest.approx(21 * 1500)}}, "of what it had been told until then"
    done = replace(view, supply=Supply(metered=metered(1100)),
                   report=report(age=0.0, state=JobState.COMPLETE, energy=told(1600)))  # fmt: skip
    outcome = plan(replace(done, now=done.now + timedelta(seconds=100)))
    assert "EnergyUsed" in _events(outcome.effects)
    assert outcome.status.energy is not None
    assert outcome.status.energy.used is not None
    assert outcome.status.energy.used.joules["cpu"]["kepler"] == pytest.approx(60 * 100, rel=0.01)


def test_what_a_prometheus_told_by_another_clock_ends_when_ours_has_gone_on() -> None:
    ahead = {source: replace(each, skew=90_000.0) for source, each in metered(-2000).items()}
    view, _ = booked(with_energy(told(), ahead))
    done = replace(view, supply=Supply(metered={DCGM: None, KEPLER: None}), now=view.now + timedelta(seconds=60),
                   report=report(age=0.0, state=JobState.COMPLETE, energy=told(650)))  # fmt: skip
    outcome = plan(done)
    assert "EnergyUsed" not in _events(outcome.effects)
    view = replace(done, now=done.now + timedelta(seconds=1000), job=replace(done.job, status=outcome.status))
    outcome = plan(view)
    assert "EnergyUsed" in _events(outcome.effects)


@pytest.mark.parametrize("uptime", [9e15, 1e9])
def test_a_term_that_cannot_be_so_long_is_no_reason_not_to_hear_its_coordinator(uptime: float) -> None:
    energy = EnergyTold.model_validate(told().model_dump() | {"uptime": uptime})
    view, used = booked(with_energy(energy, {DCGM: None, KEPLER: None}))
    assert used.seconds == 600
    assert used.counted.awaited["kepler"].until <= 1000
    _, used = booked(replace(view, supply=Supply(metered=metered(-2000))), 60)
    assert used.joules == {}, "it is still waited for"


@pytest.mark.parametrize(
    ("what", "joules", "late", "watts"),
    [
        ("nothing is waited for", {"gpu": {"nvml": 9e5}, "cpu": {"model": 7e3}}, {}, 907.0),
        (
            "processors are, of the last minutes",
            {"gpu": {"nvml": 9e5}, "cpu": {"kepler": 14e3}},
            {"kepler": 300.0},
            920.0,
        ),
        ("GPUs are, of most of the time", {"gpu": {"dcgm": 9e4}, "cpu": {"model": 7e3}}, {"dcgm": 900.0}, 907.0),
        ("of all of it", {"cpu": {"model": 7e3}}, {"dcgm": 1000.0}, None),
        ("nothing is known", {}, {}, None),
    ],
)
def test_what_is_not_counted_yet_is_no_power_of_nothing(
    what: str, joules: Any, late: dict[str, float], watts: float | None
) -> None:
    counted = CountedEnergy(awaited={source: AwaitedEnergy(until=1.0, worker_seconds=s) for source, s in late.items()})
    known = EnergyStatus(used=UsedEnergy(joules=joules, worker_seconds=1000.0, counted=counted))
    assert worker_watts(known) == (pytest.approx(watts) if watts is not None else None)


def test_its_grams_are_those_of_the_hours_in_which_it_was_drawn() -> None:
    slots = (Slot(T - 3600, T, 100.0), Slot(T, T + 3600, 900.0))
    signals = {Measure.AVERAGE: Signal("DE", Measure.AVERAGE, Quality.HISTORY, slots, T, "em", "g/kWh")}
    view, _ = booked(with_energy(told(), metered(-2000), zone="DE", signals=signals))
    late = Supply(zone="DE", signals=signals, metered=metered(0))
    view = replace(view, supply=late, report=report(age=0.0, energy=told(601), progress=Progress(step=50, steps=100)))
    _, used = booked(view, 100)
    kwh = 600 * 960 / 3.6e6
    assert used.carbon["average"].kwh == pytest.approx(kwh, rel=0.01)
    assert used.carbon["average"].grams == pytest.approx(100 * kwh, rel=0.02)


def test_a_job_that_ends_tells_what_it_used_once_all_of_it_is_known() -> None:
    view, _ = booked(with_energy(told(), metered(-2000)))
    done = replace(view, report=report(age=0.0, state=JobState.COMPLETE, energy=told(700)))
    outcome = plan(replace(done, now=done.now + timedelta(seconds=100)))
    assert outcome.status.finished
    assert "EnergyUsed" not in _events(outcome.effects)
    view = replace(done, now=done.now + timedelta(seconds=160), job=replace(done.job, status=outcome.status))
    again = plan(view).requeue_after
    assert again is not None
    assert again <= 30
    outcome = plan(replace(view, supply=Supply(metered=metered(100))))
    assert "EnergyUsed" in _events(outcome.effects)
    assert outcome.status.energy is not None
    assert outcome.status.energy.used is not None
    assert outcome.status.energy.used.joules["gpu"] == {"dcgm": pytest.approx(900 * 700)}
    outcome = plan(
        replace(view, now=view.now + timedelta(seconds=1000), supply=Supply(metered={DCGM: None, KEPLER: None}))
    )
    assert "EnergyUsed" in _events(outcome.effects), "it is not waited for for ever"
    assert outcome.status.energy is not None
    assert outcome.status.energy.used is not None
    assert outcome.status.energy.used.joules == {"cpu": {"model": pytest.approx(21 * 700)}}


@pytest.mark.parametrize(("ttl", "later"), [(0, 0), (120, 150)])
def test_a_job_that_is_deleted_before_all_is_known_tells_what_is(ttl: int, later: float) -> None:
    view, _ = booked(with_energy(told(), metered(-2000)))
    of = spec(ttlSecondsAfterFinished=ttl)
    done = replace(view, job=replace(view.job, spec=of),
                   report=report(age=0.0, state=JobState.COMPLETE, energy=told(700)))  # fmt: skip
    done = replace(done, now=done.now + timedelta(seconds=100), supply=Supply(metered=metered(0)))
    outcome = plan(done)
    if later:
        assert "EnergyUsed" not in _events(outcome.effects)
        done = replace(done, now=done.now + timedelta(seconds=later), job=replace(done.job, status=outcome.status))
        outcome = plan(done)
    assert any(isinstance(effect, DeleteJob) for effect in outcome.effects)
    assert "EnergyUsed" in _events(outcome.effects)
    assert outcome.status.energy is not None
    assert outcome.status.energy.used is not None
    assert outcome.status.energy.used.joules == {
        "gpu": {"dcgm": pytest.approx(900 * 600)},
        "cpu": {"kepler": pytest.approx(60 * 600), "model": pytest.approx(21 * 100)},
    }


def _events(effects: Any) -> set[str]:
    return {effect.reason for effect in effects if isinstance(effect, RecordEvent)}
