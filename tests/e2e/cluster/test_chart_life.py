"""What becomes of a job that trains while the chart around it is upgraded, taken away and brought back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.kubectl import get, kubectl
from cluster.layout import Node
from e2e.cluster import earlier
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import NO_SPARES, QUICK, Job, strike

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
CRD = "trainingjobs.drivetrain.dev"
KEEP_VALUES = "--reset-then-reuse-values"
"""Of the user: defaults are those of the chart that comes. With --reuse-values they are those of the one that goes."""


def upgrade(chart: Path) -> tuple[str, ...]:
    """The chart of this release, from this folder."""
    return "upgrade", "--install", "drivetrain", str(chart), "--namespace", SYSTEM, "--wait", "--timeout", "1h"


@pytest.mark.timeout(600)  # it may build two images
def test_the_release_before_is_upgraded_under_its_jobs(
    start: Callable[..., Job], nodes: list[Node], tmp_path: Path
) -> None:
    """Its chart, CRD, operator, coordinators and workers. Of its jobs one trains, one rests, and one has ended."""
    before = earlier.bring(tmp_path / "earlier", nodes)
    assert earlier.crd_of(before.chart) != earlier.crd_of(CHART), "it has the CRD of today"
    image = {"image": before.worker_image}
    helm(*upgrade(before.chart), KEEP_VALUES, "--set", f"image.tag={before.tag}")
    try:
        assert _versions() == earlier.crd_of(before.chart)["spec"]["versions"]
        job = start("trains", workers=2, elastic={"minWorkers": 1, "maxWorkers": 3}, steps=2000, **image)
        rests = start("rests", script=False, workers=1, command=QUICK, steps=30, suspend=True, **image)
        ended = start("ended", script=False, workers=1, command=QUICK, steps=30, **image)
        end = ended.completes()
        members = job.settled(2)
        rests.until("it rests", lambda status: status.get("phase") == "Suspended", 60)
    finally:
        helm(*upgrade(CHART), KEEP_VALUES, "--set", "image.tag=")
    assert _versions() == earlier.crd_of(CHART)["spec"]["versions"]
    assert all(each.alive() for each in members)
    kubectl("scale", "trainingjob", job.name, "-n", job.namespace, "--replicas=3")
    job.settled(3)  # the third is this release's doing
    assert all(each.alive() for each in members)
    membership = job.newest_membership()
    job.next_common_step(strike(members[1]), membership, 30)
    status = job.succeeds()
    assert (status["restarts"], status["membership"]["term"], status.get("attempt", 0)) == (1, 1, 0)
    resume = '{"spec":{"suspend":false}}'
    kubectl("patch", "trainingjob", rests.name, "-n", rests.namespace, "--type=merge", "-p", resume)
    rests.completes()
    told = ("phase", "completionTime", "restarts")
    assert {key: ended.status()[key] for key in told} == {key: end[key] for key in told}
    print(f"\nupgraded under a job that trained on: {before.what}")


def test_a_job_outlives_the_chart(start: Callable[..., Job]) -> None:
    values = helm("get", "values", "drivetrain", "--namespace", SYSTEM, "--output", "json")
    job = start("left-alone", workers=2, steps=1000, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    step = job.ledger.newest_step()
    try:
        helm("uninstall", "drivetrain", "--namespace", SYSTEM, "--wait")
        assert get("trainingjob", job.name, "--namespace", job.namespace)["spec"]["workers"] == 2
        assert get("secret", "drivetrain-root", "--namespace", SYSTEM)
    finally:
        helm(
            *upgrade(CHART), "--set-json", f"podAnnotations={json.dumps(json.loads(values).get('podAnnotations', {}))}"
        )
    job.settled(2, spares=0)
    assert all(each.alive() for each in members)
    assert job.ledger.newest_step() > step
    assert job.succeeds()["restarts"] == 0


def _versions() -> list[dict[str, Any]]:
    """Of the CRD, as the API server has it now."""
    found: list[dict[str, Any]] = get("crd", CRD)["spec"]["versions"]
    return found
