"""Metrics: right numbers, base units, bounded series, nothing left of a job that is gone, docs that are current."""

import math
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drivetrain_api.energy_status import (
    AvoidedCarbon,
    CarbonUsed,
    CostUsed,
    EnergyStatus,
    ForeseenEnergy,
    UsedEnergy,
)
from drivetrain_api.goodput import Category
from drivetrain_api.goodput_status import GoodputStatus
from drivetrain_api.recovery import RECOVERY_PHASES, RecoveryCause
from drivetrain_api.recovery_status import RecoveryStatus
from drivetrain_api.status import Phase, TrainingJobStatus
from drivetrain_operator.metrics.collector import MAX_SERIES, JobSample, JobsCollector
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.metrics.jobs import count_change, samples
from drivetrain_operator.metrics.reference import reference

GPT = JobSample(
    namespace="team",
    name="gpt",
    uid="u1",
    phase=Phase.RUNNING,
    workers_target=4,
    workers_ready=3,
    restarts=2,
    step=250,
    steps=1000,
    loss=1.5,
    seconds={"productive": 75.0, "starting": 25.0},
)


def scrape(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, sorted labels) → value, through the text that Prometheus reads."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**extra: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"namespace": "team", "job_name": "gpt", **extra}.items()))


def jobs_registry(jobs: list[JobSample], limit: int = 100) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(JobsCollector(lambda: jobs, limit=limit))
    return registry


def test_a_job_is_shown_as_it_is_now() -> None:
    found = scrape(jobs_registry([GPT]))
    assert found["drivetrain_job_workers_target", labels()] == 4
    assert found["drivetrain_job_workers_ready", labels()] == 3
    assert found["drivetrain_job_loss", labels()] == 1.5
    assert found["drivetrain_job_time_seconds_total", labels(category="productive")] == 75
    assert found["drivetrain_job_time_seconds_total", labels(category="starting")] == 25
    assert [where for name, where in found if name == "drivetrain_job_phase"] == [labels(phase="Running", uid="u1")]
    assert found["drivetrain_jobs", (("phase", "Running"),)] == 1


def test_what_is_not_known_has_no_sample() -> None:
    found = scrape(jobs_registry([JobSample("team", "gpt")]))
    for name in ("loss", "step", "steps", "samples_per_second", "carbon_planned_grams"):
        assert (f"drivetrain_job_{name}", labels()) not in found


def test_of_a_job_whose_status_cannot_be_believed_only_that_is_said() -> None:
    found = scrape(jobs_registry([GPT, JobSample("team", "odd", readable=False)]))
    assert found["drivetrain_jobs_unreadable", ()] == 1
    assert not any(("job_name", "odd") in where for _, where in found)


def test_a_deleted_job_leaves_nothing() -> None:
    jobs = [GPT]
    registry = jobs_registry(jobs)
    assert any(("job_name", "gpt") in where for _, where in scrape(registry))
    jobs.clear()
    assert not any(("job_name", "gpt") in where for _, where in scrape(registry))


def test_the_number_of_series_is_bounded() -> None:
    jobs = [JobSample("team", f"j{n}", phase=Phase.PENDING if n < 30 else Phase.RUNNING) for n in range(50)]
    found = scrape(jobs_registry([*jobs, JobSample("team", "odd", readable=False)], limit=10))
    assert sum(name == "drivetrain_job_step" or name == "drivetrain_job_phase" for name, _ in found) == 10
    assert found["drivetrain_jobs_omitted", ()] == 40
    assert found["drivetrain_jobs_unreadable", ()] == 1
    assert found["drivetrain_jobs", (("phase", "Pending"),)] == 30
    assert found["drivetrain_jobs", (("phase", "Running"),)] == 20


def test_a_job_of_which_everything_is_known_has_few_series() -> None:
    words = {"namespace", "name", "uid", "readable", "phase", "seconds", "grams"}
    numbers: dict[str, Any] = {f.name: 1 for f in fields(JobSample) if f.name not in words}
    grams = {("operational", "average"): 1.0, ("embodied", ""): 1.0}
    full = JobSample(
        "team", "gpt", "u1", phase=Phase.RUNNING, seconds=dict.fromkeys(Category, 1.0), grams=grams, **numbers
    )
    found = [name for name, where in scrape(jobs_registry([full])) if ("job_name", "gpt") in where]
    assert len(found) == MAX_SERIES
    assert {"drivetrain_job_restarts_total", "drivetrain_job_recoveries_total", "drivetrain_job_state_losses_total"} < {
        *found
    }


@pytest.mark.parametrize(("measure", "grams"), [("average", 5), ("marginal", 9)])
def test_electricity_is_told_as_status_has_it(measure: str, grams: float) -> None:
    used = UsedEnergy(
        joules={"gpu": {"nvml": 7.0}, "cpu": {"model": 3.0}},
        carbon={"average": CarbonUsed(grams=5, kwh=1), "marginal": CarbonUsed(grams=9, kwh=1)},
        embodied_grams=2,
        spent=CostUsed(amount=-0.5, currency="EUR", kwh=1),
        avoided=AvoidedCarbon(grams=-3, replayed_grams=2, actual_grams=5, measure="average"),
    )
    now = datetime(2026, 11, 21, tzinfo=UTC)
    first = ForeseenEnergy(made=now, finish=now, kwh=1, grams=7, measure="average")
    status = TrainingJobStatus(energy=EnergyStatus(used=used, first=first)).model_dump(
        by_alias=True, mode="json", exclude_none=True
    )
    meta = {"namespace": "team", "name": "gpt", "uid": "u"}
    written = {"metadata": meta, "spec": {"energy": {"measure": measure}}, "status": status}
    found = scrape(jobs_registry([*samples([written])]))
    assert found["drivetrain_job_energy_joules_total", labels()] == 10
    operational = {where: value for (name, where), value in found.items() if ("kind", "operational") in where}
    assert operational == {labels(kind="operational", signal=measure): grams}
    planned = found.get(("drivetrain_job_carbon_planned_grams", labels()))
    assert planned == (7 if measure == "average" else None), "grams of another kind"
    assert found["drivetrain_job_carbon_grams_total", labels(kind="embodied", signal="")] == 2
    assert found["drivetrain_job_energy_cost", labels()] == -0.5
    assert found["drivetrain_job_carbon_avoided_grams", labels()] == -3


def test_a_thousand_jobs_come_and_go_and_leave_nothing() -> None:
    status = TrainingJobStatus(phase=Phase.RUNNING, goodput=GoodputStatus(seconds=dict.fromkeys(Category, 1.0)))
    written = status.model_dump(by_alias=True, mode="json", exclude_none=True)
    there: dict[str, dict[str, Any]] = {}
    registry = CollectorRegistry()
    registry.register(JobsCollector(lambda: samples(there.values())))
    before = scrape(registry)
    for wave in range(4):
        for number in range(250):
            name = f"job-{wave}-{number}"
            there[name] = {"metadata": {"namespace": "team", "name": name, "uid": name}, "status": written}
    full = scrape(registry)
    assert full["drivetrain_jobs", (("phase", "Running"),)] == 1000
    of_jobs = sum("job_name" in dict(where) for _, where in full)
    assert 1000 * 15 < of_jobs <= 1000 * MAX_SERIES
    there.clear()
    assert scrape(registry) == before


def test_names_with_odd_characters_survive() -> None:
    odd = JobSample("team", 'g"p\\t\n', step=1)
    assert scrape(jobs_registry([odd]))["drivetrain_job_step", (("job_name", 'g"p\\t\n'), ("namespace", "team"))] == 1


@pytest.fixture
def metrics() -> OperatorMetrics:
    return OperatorMetrics(CollectorRegistry(), version="1.2")


def test_counters_count(metrics: OperatorMetrics) -> None:
    leading, age = [False], [None, 3.0]
    metrics.leading(lambda: leading[0])
    metrics.informers.age_from("pods", lambda: age[0])
    metrics.queue.added()
    metrics.queue.depth(7)
    metrics.queue.started(0.2)
    metrics.requests.request("watch", "pods", "200", 250.0)
    metrics.requests.request("get", "pods", "404", 0.01)
    metrics.requests.retry("get", "pods", "503")
    metrics.reconciled("ok")
    metrics.reconcile_failed("Conflict")
    metrics.effect("CreateWorker", "ok")
    metrics.recovered("rank", 0.12)
    metrics.restarted("OOMKilled")
    metrics.job_finished("succeeded")
    metrics.event_dropped("Started")
    found = scrape(metrics.registry)
    assert found["drivetrain_queue_depth", ()] == 7
    assert found["drivetrain_api_requests_total", (("code", "404"), ("resource", "pods"), ("verb", "get"))] == 1
    assert found["drivetrain_api_request_seconds_count", (("verb", "get"),)] == 1
    assert ("drivetrain_api_request_seconds_count", (("verb", "watch"),)) not in found, "watches last for minutes"
    assert found["drivetrain_reconciles_total", (("result", "error"),)] == 1
    assert found["drivetrain_recovery_seconds_bucket", (("cause", "rank"), ("le", "0.15"))] == 1
    assert found["drivetrain_leader", ()] == 0
    assert math.isnan(found["drivetrain_watch_age_seconds", (("resource", "pods"),)])
    leading[0], age[0] = True, 3.0
    found = scrape(metrics.registry)
    assert found["drivetrain_leader", ()] == 1
    assert found["drivetrain_watch_age_seconds", (("resource", "pods"),)] == 3


def test_how_late_the_loop_is_and_what_the_process_uses(metrics: OperatorMetrics) -> None:
    metrics.loop_was_late(0.02)
    found = scrape(metrics.registry)
    assert found["drivetrain_operator_loop_lag_seconds_bucket", (("le", "0.05"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 0


def test_both_fit_into_one_registry_and_follow_prometheus_naming(metrics: OperatorMetrics) -> None:
    kept = {family.name for family in metrics.registry.collect()}
    metrics.registry.register(JobsCollector(lambda: [GPT]))
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue
        assert family.name.startswith("drivetrain_")
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_ms", "_milliseconds", "_minutes", "_percent", "_total")), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        if family.type == "counter" and family.name in kept:  # those of jobs are made anew for each scrape
            assert not any(
                label in ("job", "job_name", "namespace", "pod", "uid") for s in family.samples for label in s.labels
            )


def test_the_reference_is_current() -> None:
    path = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
    assert path.read_text(encoding="utf-8") == reference(), (
        "run: python -m drivetrain_operator.metrics.reference > docs/reference/metrics.md"
    )


def test_a_recovery_is_counted_by_what_was_lost_and_in_phases() -> None:
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry, version="1")
    before = TrainingJobStatus()
    phases = {"detected_seconds": 0.1, "formed_seconds": 0.2, "copied_seconds": 0.3, "first_step_seconds": 0.4}
    last = RecoveryStatus(cause=RecoveryCause.POD, **phases)
    after = TrainingJobStatus(recoveries=1, last_recovery_seconds=1.0, last_recovery=last)
    count_change(metrics, before, after)
    count_change(metrics, after, after)
    of_older_release = TrainingJobStatus(recoveries=2, last_recovery_seconds=2.0)
    count_change(metrics, after, of_older_release)
    found = scrape(registry)
    assert found["drivetrain_recovery_seconds_sum", (("cause", "pod"),)] == 1
    assert found["drivetrain_recovery_seconds_sum", (("cause", "unknown"),)] == 2
    sums = [
        found["drivetrain_recovery_phase_seconds_sum", (("cause", "pod"), ("phase", phase))]
        for phase in RECOVERY_PHASES
    ]
    assert sums == [0.1, 0.2, 0.3, 0.4]
