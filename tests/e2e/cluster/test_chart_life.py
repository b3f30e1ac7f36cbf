"""What becomes of a job that trains while the chart around it is upgraded, taken away and brought back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.kubectl import get
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import Job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
CRD = "trainingjobs.drivetrain.dev"


def upgrade(chart: Path) -> tuple[str, ...]:
    """The chart of this release, from this folder."""
    return "upgrade", "--install", "drivetrain", str(chart), "--namespace", SYSTEM, "--wait", "--timeout", "1h"


def test_an_older_crd_is_upgraded_under_a_job_that_trains(start: Callable[..., Job], tmp_path: Path) -> None:
    helm(*upgrade(_older(tmp_path)), "--reuse-values")
    try:
        assert not _knows_restore_from()
        job = start("upgraded", workers=2, steps=1000)
        members = job.settled(2)
    finally:
        helm(*upgrade(CHART), "--reuse-values")
    assert _knows_restore_from()
    job.settled(2)
    assert all(each.alive() for each in members)
    assert job.succeeds()["restarts"] == 0


def test_a_job_outlives_the_chart(start: Callable[..., Job]) -> None:
    values = helm("get", "values", "drivetrain", "--namespace", SYSTEM, "--output", "json")
    job = start("left-alone", workers=2, steps=1000)
    members = job.settled(2)
    step = job.ledger.newest_step()
    try:
        helm("uninstall", "drivetrain", "--namespace", SYSTEM, "--wait")
        assert get("trainingjob", job.name, "--namespace", job.namespace)["spec"]["workers"] == 2
        assert get("secret", "drivetrain-root", "--namespace", SYSTEM)
    finally:
        helm(
            *upgrade(CHART), "--set-json", f"podAnnotations={json.dumps(json.loads(values).get('podAnnotations', {}))}"
        )
    job.settled(2)
    assert all(each.alive() for each in members)
    assert job.ledger.newest_step() > step
    assert job.succeeds()["restarts"] == 0


def _older(folder: Path) -> Path:
    """The chart with a CRD that lacks a field, and the rules about it."""
    copy = folder / "older"
    shutil.copytree(CHART, copy)
    file = copy / "files" / f"drivetrain.dev_{CRD.partition('.')[0]}.yaml"
    crd = yaml.safe_load(file.read_text())
    job = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = job["properties"]["spec"]
    del spec["properties"]["restoreFrom"]
    for part in (job, spec):
        part["x-kubernetes-validations"] = [
            each for each in part["x-kubernetes-validations"] if "restoreFrom" not in each["rule"]
        ]
    file.write_text(yaml.safe_dump(crd, sort_keys=False))
    return copy


def _knows_restore_from() -> bool:
    schema = get("crd", CRD)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return "restoreFrom" in schema["properties"]["spec"]["properties"]
