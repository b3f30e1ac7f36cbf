"""The chart's alerts: each is fired by its own fault, and none where all is well; each has a page on what to do."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from drivetrain_coordinator.metrics import JobMetrics
from drivetrain_operator.metrics.collector import JobsCollector
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.metrics.feeds import Feeding, FeedsCollector
from harness.promtool import promtool

ROOT: Final = Path(__file__).parents[3]
RULES: Final = ROOT / "charts" / "drivetrain" / "files" / "rules" / "drivetrain.yaml"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
GROUPS: Final = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: Final = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
EXPRESSIONS: Final = [rule["expr"] for group in GROUPS for rule in group["rules"]]
MINUTES: Final = 240
JOB: Final = '{namespace="team", job_name="gpt", instance="a"'


@dataclass(frozen=True)
class Fault:
    """Series in Prometheus' notation, one sample a minute, under which an alert fires."""

    alert: str
    series: dict[str, str]
    after: str
    """By then it fires ..."""
    labels: dict[str, str]
    """... with these, beside its severity."""


def job(name: str, more: str = "") -> str:
    """One of a job's series."""
    return f"drivetrain_{name}{JOB}{more}}}"


LABELS = {"namespace": "team", "job_name": "gpt", "instance": "a"}
GROUPED = {"namespace": "team", "job_name": "gpt"}
FAULTS = [
    Fault(
        "DrivetrainJobPending", {job("job_phase", ', phase="Pending"'): "1x240"}, "31m", LABELS | {"phase": "Pending"}
    ),
    Fault("DrivetrainJobStandsStill", {job("job_standing_still"): "0x10 1x230"}, "17m", LABELS),
    Fault(
        "DrivetrainJobHeldUp",
        {
            job("training_holdup_seconds", ', stage="data"'): "0x10 0.2x230",
            job("training_holdup_seconds", ', stage="update"'): "0x240",
        },
        "27m",
        LABELS,
    ),
    Fault(
        "DrivetrainJobGoodputLow",
        {
            job("job_time_seconds_total", ', category="productive"'): "0+20x240",
            job("job_time_seconds_total", ', category="recovering"'): "0+40x240",
            job("job_phase", ', phase="Running"'): "1x240",
        },
        "2h10m",
        GROUPED,
    ),
    Fault("DrivetrainJobRestarts", {job("job_restarts_total"): "0x30 1+1x8 9x200"}, "40m", LABELS),
    Fault("DrivetrainJobStateLost", {job("job_state_losses_total"): "0x30 1x200"}, "40m", LABELS),
    Fault("DrivetrainSnapshotsFailing", {job("snapshot_failing"): "0x10 1x230"}, "17m", LABELS),
    Fault("DrivetrainSnapshotsOld", {job("snapshot_age_seconds"): "0+60x240"}, "25m", LABELS),
    Fault("DrivetrainJobsUnreadable", {"drivetrain_jobs_unreadable": "0x10 2x230"}, "22m", {}),
    Fault("DrivetrainNobodyLeads", {'drivetrain_leader{instance="a"}': "1x10 0x230"}, "17m", {}),
    Fault(
        "DrivetrainReconcileErrors",
        {'drivetrain_reconcile_errors_total{reason="ServerError"}': "0+12x240"},
        "30m",
        {"reason": "ServerError"},
    ),
    Fault(
        "DrivetrainApiErrors",
        {
            'drivetrain_api_requests_total{verb="get", resource="pods", code="200"}': "0+50x240",
            'drivetrain_api_requests_total{verb="get", resource="pods", code="503"}': "0+10x240",
        },
        "25m",
        {},
    ),
    Fault(
        "DrivetrainOperatorDeaf",
        {'drivetrain_operator_deaf_seconds_total{instance="a"}': "0+4x240"},
        "20m",
        {"instance": "a"},
    ),
    Fault(
        "DrivetrainWatchOld",
        {
            'drivetrain_watch_age_seconds{instance="a", resource="pods"}': "0+60x240",
            'drivetrain_leader{instance="a"}': "1x240",
        },
        "20m",
        {"instance": "a", "resource": "pods"},
    ),
    Fault(
        "DrivetrainQueueSlow",
        {
            'drivetrain_queue_wait_seconds_bucket{le="10"}': "0+1x240",
            'drivetrain_queue_wait_seconds_bucket{le="60"}': "0+10x240",
            'drivetrain_queue_wait_seconds_bucket{le="+Inf"}': "0+10x240",
        },
        "25m",
        {},
    ),
    Fault(
        "DrivetrainReportsRefused",
        {'drivetrain_operator_refused_total{port="reports", reason="token"}': "0+120x240"},
        "25m",
        {"reason": "token"},
    ),
    Fault(
        "DrivetrainCoordinatorsReplaced",
        {'drivetrain_coordinators_replaced_total{cause="Unreachable"}': "0x10 1+1x10 11x220"},
        "25m",
        {"cause": "Unreachable"},
    ),
    Fault(
        "DrivetrainEnergyFeedStale",
        {
            'drivetrain_energy_feed_age_seconds{instance="a", source="maps", zone="DE", measure="average"}': "0+60x240",
            'drivetrain_energy_feed_age_seconds{instance="a", source="maps", zone="FR", measure="average"}': "300x240",
            'drivetrain_energy_feed_interval_seconds{instance="a", source="maps"}': "900x240",
        },
        "80m",
        {"instance": "a", "source": "maps", "zone": "DE", "measure": "average"},
    ),
    Fault(
        "DrivetrainRecoverySlow",
        {
            'drivetrain_recovery_seconds_bucket{cause="pod", le="60.0"}': "0x240",
            'drivetrain_recovery_seconds_bucket{cause="pod", le="300.0"}': "0x10 3x230",
            'drivetrain_recovery_seconds_bucket{cause="pod", le="+Inf"}': "0x10 3x230",
        },
        "20m",
        {"cause": "pod"},
    ),
]
WELL = {
    job("job_phase", ', phase="Running"'): "1x240",
    job("job_time_seconds_total", ', category="productive"'): "0+55x240",
    job("job_time_seconds_total", ', category="starting"'): "30x240",
    job("job_time_seconds_total", ', category="recovering"'): "0+5x240",
    job("job_standing_still"): "0x240",
    job("training_holdup_seconds", ', stage="data"'): "0x100 0.2x10 0x130",
    job("job_restarts_total"): "0x100 1x140",
    job("job_state_losses_total"): "0x240",
    job("snapshot_failing"): "0x240",
    job("snapshot_age_seconds"): "3x240",
    "drivetrain_jobs_unreadable": "0x240",
    'drivetrain_leader{instance="a"}': "1x240",
    'drivetrain_leader{instance="b"}': "0x240",
    'drivetrain_watch_age_seconds{instance="a", resource="pods"}': "20x240",
    'drivetrain_watch_age_seconds{instance="b", resource="pods"}': "0+60x240",
    'drivetrain_reconcile_errors_total{reason="Conflict"}': "0x100 1+1x5 6x134",
    'drivetrain_api_requests_total{verb="get", resource="pods", code="200"}': "0+50x240",
    'drivetrain_api_requests_total{verb="get", resource="pods", code="503"}': "0x100 1x140",
    'drivetrain_operator_deaf_seconds_total{instance="a"}': "0x100 4x140",
    'drivetrain_operator_refused_total{port="reports", reason="token"}': "0x100 5x140",
    'drivetrain_coordinators_replaced_total{cause="Unreachable"}': "0x100 2x140",
    'drivetrain_queue_wait_seconds_bucket{le="10"}': "0+10x240",
    'drivetrain_queue_wait_seconds_bucket{le="60"}': "0+10x240",
    'drivetrain_queue_wait_seconds_bucket{le="+Inf"}': "0+10x240",
    'drivetrain_energy_feed_age_seconds{instance="a", source="maps", zone="DE", measure="average"}': "0+60x70 0+60x170",
    'drivetrain_energy_feed_interval_seconds{instance="a", source="maps"}': "10800x240",
    'drivetrain_energy_feed_age_seconds{instance="a", source="grid", zone="", measure="limit"}': "0x100 120x10 5x130",
    'drivetrain_energy_feed_interval_seconds{instance="a", source="grid"}': "15x240",
    'drivetrain_recovery_seconds_bucket{cause="pod", le="5.0"}': "0x10 3x230",
    'drivetrain_recovery_seconds_bucket{cause="pod", le="60.0"}': "0x10 3x230",
    'drivetrain_recovery_seconds_bucket{cause="pod", le="+Inf"}': "0x10 3x230",
}


def told(series: dict[str, str], asked: list[dict[str, Any]]) -> dict[str, Any]:
    """One test of promtool's."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": asked,
    }


def run(folder: Path, tests: list[dict[str, Any]]) -> None:
    """Ask promtool."""
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", file], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.alert)
def test_its_fault_fires_it(fault: Fault, tmp_path: Path) -> None:
    series = {'drivetrain_leader{instance="x"}': "1x240"} | fault.series
    if fault.alert == "DrivetrainNobodyLeads":
        series = fault.series
    asked = {"eval_time": fault.after, "alertname": fault.alert}
    # promtool compares the words, too: what it found is in its complaint about a wrong expectation.
    file = tmp_path / "asked.yaml"
    expected = [{"exp_labels": {**fault.labels, **ALERTS[fault.alert]["labels"]}, "exp_annotations": {}}]
    tests = [told(series, [{**asked, "exp_alerts": expected}])]
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", file], capture_output=True, text=True, timeout=100, check=False)
    found = (done.stdout + done.stderr).partition("got:")[2] or done.stdout + done.stderr
    labels = re.search(r"Labels:\{(.*?)\}", found)
    assert labels is not None, done.stdout + done.stderr
    pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels[1]))
    assert pairs == {"alertname": fault.alert, **fault.labels, **ALERTS[fault.alert]["labels"]}
    assert 'summary="' in found
    assert "<no value>" not in found
    assert found.count("Labels:") == 1


def test_where_all_is_well_none_fires(tmp_path: Path) -> None:
    asked = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for minute in range(1, MINUTES, 20)
        for alert in ALERTS
    ]
    run(tmp_path, [told(WELL, asked)])


def test_no_fault_is_left_out() -> None:
    assert {fault.alert for fault in FAULTS} == set(ALERTS)


def test_they_ask_for_metrics_that_are_there() -> None:
    own = CollectorRegistry()
    OperatorMetrics(own, version="0")
    families = [*own.collect(), *JobsCollector(tuple).describe(), *JobMetrics(None).describe()]
    families += FeedsCollector(Feeding).describe()
    known = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    known |= {f"{f.name}_bucket" for f in families if f.type == "histogram"}
    asked = {name for text in EXPRESSIONS for name in re.findall(r"(?<![:\w])drivetrain_\w+", text)}
    assert asked
    assert asked <= known, asked - known


@pytest.mark.parametrize("alert", ALERTS)
def test_each_has_a_page_on_what_to_do(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    for part in ("## What it means", "## What to look at", "## What to do"):
        assert f"\n{part}\n" in text
    assert set(ALERTS[alert]["annotations"]) == {"summary", "description"}
    assert ALERTS[alert]["labels"]["severity"] in ("info", "warning", "critical")


def test_no_page_is_about_nothing() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*ALERTS}
