"""A coordinator's metrics: what the operator tells is not told twice, and the reference is current."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drivetrain_api.messages import Progress, Snapshotted
from drivetrain_coordinator.metrics import JobMetrics
from drivetrain_coordinator.reference import reference
from drivetrain_operator.metrics.collector import JobsCollector
from drivetrain_operator.metrics.counters import OperatorMetrics
from unit.coordinator.bench import Bench
from unit.coordinator.test_standstill import trained


def numbers(bench: Bench) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of labels) → value, through the text that Prometheus reads."""
    text = generate_latest(JobMetrics(bench.machine.state).registry).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_a_script_logs_is_a_series_each() -> None:
    bench = trained()
    state = bench.machine.state
    state.progress = Progress(step=7, step_seconds=0.25, metrics={"accuracy": 0.5, 'od"d\n': 2.0})
    found = numbers(bench)
    assert found["drivetrain_training_logged", ("accuracy",)] == 0.5
    assert found["drivetrain_training_logged", ('od"d\n',)] == 2.0
    assert found["drivetrain_training_step_seconds", ()] == 0.25
    assert found["drivetrain_coordinator_info", ("job", "job", "ns")] == 1
    assert found["process_cpu_seconds_total", ()] > 0


def test_what_is_not_known_has_no_series() -> None:
    assert not [name for name, _ in numbers(trained()) if name.startswith(("drivetrain_snapshot", "drivetrain_ranks"))]


def test_what_only_rises_is_a_counter() -> None:
    bench = trained()
    state = bench.machine.state
    told = Snapshotted(durable=7, bytes_written=100, backlog_bytes=5, dropped_steps=2, age_seconds=1.0)
    state.progress = Progress(step=7, snapshots=told)
    found = numbers(bench)
    assert found["drivetrain_snapshot_written_bytes_total", ()] == 100
    assert found["drivetrain_snapshot_dropped_steps_total", ()] == 2
    assert found["drivetrain_snapshot_backlog_bytes", ()] == 5


def test_nothing_has_its_name_from_the_operator_too() -> None:
    own = CollectorRegistry()
    OperatorMetrics(own, version="0")
    operators = {each.name for each in (*own.collect(), *JobsCollector(tuple).describe())}
    ours = {each.name for each in JobMetrics(None).describe()}
    assert ours
    assert not ours & operators


def test_the_reference_is_current() -> None:
    path = Path(__file__).parents[3] / "docs" / "reference" / "coordinator-metrics.md"
    assert path.read_text(encoding="utf-8") == reference(), "run: make generate"
