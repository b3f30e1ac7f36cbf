"""The control plane is away, a namespace is, or too much is asked of the cluster at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.kubectl import get, kubectl
from cluster.processes import kill, marked
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import NO_SPARES, QUICK, Job, wait_until
from harness.often import often
from harness.patience import Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ELASTIC = {"minWorkers": 1, "maxWorkers": 2}
OUTAGE_SECONDS = 40.0
CROWD = often(20, 8)
"""Jobs at once."""


def test_the_api_server_is_away_for_a_while(start: Callable[..., Job]) -> None:
    """Stopped, not ended: requests hang."""
    job = start("unserved", workers=2, elastic=ELASTIC, steps=1200, recovery=NO_SPARES)
    members = job.settled(2, spares=0)
    leader, step = job.coordinator()["metadata"]["uid"], job.ledger.newest_step()
    (server,) = [each for each in marked() if each.daemon == "kube-apiserver"]
    kill(server, signal.SIGSTOP)
    try:
        time.sleep(OUTAGE_SECONDS)
        job.ledger.read()
        assert job.ledger.newest_step() > step + 100, "training goes on"
    finally:
        kill(server, signal.SIGCONT)
    wait_until(60, "the API server answers", lambda: bool(job.status()))
    time.sleep(75)  # proxies and operator may find their way back only now
    assert job.coordinator()["metadata"]["uid"] == leader, job.describe()
    assert job.status()["membership"]["term"] == 1
    assert all(each.alive() for each in members)
    status = job.succeeds()
    assert (status["restarts"], status.get("attempt", 0)) == (0, 0)


def test_many_jobs_at_once(start: Callable[..., Job]) -> None:
    """More than the machine can start: they take turns, and nobody is replaced for being slow."""
    at = time.time()
    jobs = [
        start(f"crowd-{number}", script=False, workers=1, command=QUICK, recovery=NO_SPARES) for number in range(CROWD)
    ]
    patience = Patience(500)
    phases: list[str] = []
    while set(phases := [job.status().get("phase", "") for job in jobs]) != {"Succeeded"}:
        assert patience.left(), f"{patience}: {phases}\n{jobs[0].describe()}"
        assert "Failed" not in phases, phases
        time.sleep(2)
    terms = sum(job.status()["membership"]["term"] - 1 for job in jobs)
    print(f"\n{CROWD} jobs at once: done after {time.time() - at:.0f} s, {terms} coordinators replaced")
    assert terms <= 2


@pytest.fixture
def two_namespaces(namespace: str) -> Iterator[str]:
    """The operator looks after `namespace` and another one, whose name this is."""
    other = f"{namespace}-other"
    kubectl("create", "namespace", other)
    flags = ["upgrade", "drivetrain", str(CHART), "--namespace", SYSTEM, "--reuse-values", "--wait", "--timeout", "3m"]
    helm(*flags, "--set", f"watchNamespaces={{{namespace},{other}}}")
    yield other
    helm(*flags, "--set-json", "watchNamespaces=[]")
    kubectl("delete", "namespace", other, "--wait=false", "--ignore-not-found")


def test_one_of_its_namespaces_is_removed(namespace: str, two_namespaces: str, start: Callable[..., Job]) -> None:
    job = start("remains", workers=2, elastic=ELASTIC, steps=1500, recovery=NO_SPARES)
    job.settled(2, spares=0)
    before = _operators()
    kubectl("delete", "namespace", two_namespaces, "--timeout=60s")
    time.sleep(70)  # kopf gives up after 54 s of refusals
    kubectl("delete", "pod", job.pods()[0]["metadata"]["name"], "--namespace", namespace, "--wait=false")
    job.until("a successor", lambda status: bool(status.get("incarnations")), 20)
    job.settled(2, spares=0)
    assert _operators() == before, "no operator was restarted"
    job.succeeds()


def _operators() -> dict[str, int]:
    pods = get("pods", "--namespace", SYSTEM, "--selector", "app.kubernetes.io/name=drivetrain")["items"]
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
