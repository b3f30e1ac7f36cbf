"""Does `drivetrain why` compare what status says with the pods, and the Lease, that are really there?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from drivetrain_cli import attendance
from drivetrain_cli.attendance import attended
from drivetrain_cli.cluster import Cluster
from drivetrain_cli.reasons import explain, state
from drivetrain_cli.stale import Doubts, Look, away, differences
from drivetrain_local.apiserver import ApiServer
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.resources import LEASES
from harness.patience import patiently

Json = dict[str, Any]
LEASE = "ops/drivetrain-operator"
NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)


def job(**status: Any) -> Json:
    """Three workers train under the coordinator of term 2."""
    given: Json = {
        "phase": "Running",
        "workers": {"target": 3, "current": 3, "ready": 3, "world": 3},
        "membership": {"term": 2, "epoch": 1},
        "keeper": {"operator": LEASE},
    }
    meta = {"name": "lm", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"workers": 3}, "status": {**given, **status}}


def pod(name: str, role: str = "worker", phase: str = "Running", **meta: Any) -> Json:
    labels = {"drivetrain.dev/role": role, "drivetrain.dev/term": name.rpartition("-")[2]}
    return {"metadata": {"name": name, "labels": labels, **meta}, "spec": {}, "status": {"phase": phase}}


def unready(found: Json) -> Json:
    return {**found, "status": {**found["status"], "conditions": [{"type": "Ready", "status": "False"}]}}


WORKERS = [pod(f"lm-{index}-0") for index in range(3)]
LEADER = pod("lm-coordinator-2", "coordinator")
GOING = {"deletionTimestamp": "2026-01-01T00:09:00Z"}
NOBODY = "training goes on without it, and nobody reports"


@pytest.mark.parametrize(
    ("given", "pods", "said"),
    [
        (job(), [*WORKERS, LEADER], []),
        (
            job(),
            [*WORKERS[:2], LEADER],
            ["Status counts 3 worker pods, 3 of them ready; now there are 2, 2 of them running."],
        ),
        (
            job(),
            [*WORKERS[:2], pod("lm-2-0", phase="Failed"), LEADER],
            ["Status counts 3 worker pods, 3 of them ready; now there are 2, 2 of them running."],
        ),
        (
            job(),
            [*WORKERS[:2], pod("lm-2-1", phase="Pending"), LEADER],
            ["Status counts 3 worker pods, 3 of them ready; now there are 3, 2 of them running."],
        ),
        (
            job(),
            [WORKERS[0], LEADER],
            ["Status counts 3 worker pods, 3 of them ready; now there is 1, 1 of them running."],
        ),
        (job(), WORKERS, [f"The coordinator of term 2 has no pod now: {NOBODY}."]),
        (
            job(),
            [*WORKERS, pod("lm-coordinator-1", "coordinator")],
            [f"The coordinator of term 2 has no pod now: {NOBODY}."],
        ),
        (
            job(),
            [*WORKERS, pod("lm-coordinator-2", "coordinator", **GOING)],
            [f"The coordinator's pod lm-coordinator-2 is being deleted: {NOBODY}."],
        ),
        (
            job(),
            [*WORKERS, pod("lm-coordinator-2", "coordinator", "Failed")],
            [f"The coordinator's pod lm-coordinator-2 does not run, it is Failed: {NOBODY}."],
        ),
        (
            job(),
            [*WORKERS, unready(LEADER)],
            ["The coordinator's pod lm-coordinator-2 is not ready, by its kubelet's word."],
        ),
        (job(phase="Succeeded"), [], []),
        (job(phase="Suspended", workers={}), [], []),
    ],
)
def test_differences(given: Json, pods: list[Json], said: list[str]) -> None:
    assert differences(given, pods) == said
    text = explain(given, pods, [], None, NOW)
    assert [line for line in said if line not in text] == []


def test_a_difference_counts_once_it_stays() -> None:
    doubts = Doubts(seconds=5.0)
    looks = [(0.0, ["a"]), (2.0, ["a", "b"]), (5.0, ["a", "b"]), (6.0, []), (7.0, ["a", "b"]), (11.0, ["a", "b"])]
    assert [doubts.standing(said, at) for at, said in looks] == [[], [], ["a"], [], [], []]


def look(version: str = "1", *, ago: float = 60, holder: str = "pod-x", duration: float = 15) -> Look:
    return Look(version, holder, NOW - timedelta(seconds=ago), duration, NOW)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (look(), look(), "has not renewed its Lease ops/drivetrain-operator for about 60 s"),
        (look(), look("2"), None),  # it does; its clock is behind
        (look(ago=14), look(ago=14), None),
        (look(holder="", duration=1), look(holder="", duration=1), "No operator leads: its Lease"),
        (Look("1", "x", None, 15, NOW), Look("1", "x", None, 15, NOW), None),
        (Look("1", "x", NOW, 15, None), Look("1", "x", NOW, 15, None), None),
    ],
)
def test_who_does_not_renew_is_away(first: Look, second: Look, said: str | None) -> None:
    found = away(LEASE, first, second)
    assert (found is None) if said is None else (found is not None and said in found)


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(attendance, "LOOK_AGAIN_SECONDS", 0.2)
    async with ApiServer() as api:
        found = Cluster(FixedCredentials(api.address, token=api.token), "default", "a test")
        await found.client.create(
            LEASES,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "drivetrain-operator"},
                "spec": spec(60),
            },
            "default",
        )
        yield found
        await found.close()


def spec(ago: float) -> Json:
    renewed = (datetime.now(UTC) - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": "pod-x", "leaseDurationSeconds": 15, "renewTime": renewed}


def kept(lease: str = "default/drivetrain-operator") -> Json:
    return job(keeper={"operator": lease})


async def test_an_operator_that_died_is_told(cluster: Cluster) -> None:
    found = await attended(cluster, kept())
    assert found is not None
    assert re.search(r"has not renewed its Lease default/drivetrain-operator for about (59|6[0-9]) s", found)
    lines = explain(kept(), [*WORKERS, LEADER], [], None, NOW, absent=found)
    assert lines[0] == found
    assert found not in explain({**kept(), "status": {"phase": "Succeeded"}}, [], [], None, NOW, absent=found)


async def test_an_operator_whose_clock_is_behind_is_there(cluster: Cluster) -> None:
    async def renew() -> None:
        while True:
            await asyncio.sleep(0.05)
            await cluster.client.merge_patch(LEASES, "drivetrain-operator", {"spec": spec(3600)}, "default")

    renewing = asyncio.create_task(renew())
    async with patiently(10):
        assert await attended(cluster, kept()) is None
    renewing.cancel()


@pytest.mark.parametrize("lease", ["", "default/another", "elsewhere/drivetrain-operator"])
async def test_a_lease_that_cannot_be_read_proves_nothing(cluster: Cluster, lease: str) -> None:
    assert await attended(cluster, kept(lease)) is None


SILENT = "no coordinator has reported for a while: 3 of 3 workers were ready when one did"


def test_a_silent_coordinator_is_said_everywhere() -> None:
    unknown = {"type": "Running", "status": "Unknown", "reason": "CoordinatorSilent", "message": "nothing is heard"}
    given = job(reason="CoordinatorSilent", message=SILENT, conditions=[unknown])
    assert state(given) == f"lm is Running: {SILENT}"
    lines = explain(given, [*WORKERS, LEADER], [], None, NOW)
    assert lines[0].endswith("3 of 3 workers ready, world size 3 when a coordinator reported last, membership 2.1.")
    assert f"CoordinatorSilent: {SILENT}" in lines
    assert not any("nothing is heard" in line for line in lines)
    other = job(reason="ImagePullFailed", message="lm-1-0 cannot pull its image", conditions=[unknown])
    assert "Whether it trains is not known: nothing is heard" in explain(other, [*WORKERS, LEADER], [], None, NOW)


def test_who_was_taken_and_how_the_coordinator_ended_is_said() -> None:
    taken = {
        "time": "2026-01-01T00:05:00Z",
        "reason": "EvictionByEvictionAPI",
        "message": "evicted through the API, as a drain does",
        "count": 7,
        "pods": [{"name": "lm-0-0", "node": "node-a"}, {"name": "lm-1-0"}],
    }
    how = "its container ended with OOMKilled, exit code 137 (on node-b)"
    given = job(departures=[taken], membership={"term": 2, "epoch": 1, "replacedMessage": how})
    lines = explain(given, [*WORKERS, LEADER], [], None, NOW)
    assert (
        "  2026-01-01T00:05:00Z EvictionByEvictionAPI: lm-0-0 on node-a, lm-1-0 and 5 more, evicted through the API, "
        "as a drain does" in lines
    )
    assert f"The coordinator before this one (term 2): {how}." in lines


def test_how_far_a_job_was_that_rests() -> None:
    given = job(phase="Suspended", progress={"step": 41, "steps": 60, "percent": 68})
    assert state(given) == "lm is Suspended at step 41"
    assert explain(given, [], [], None, NOW)[0] == "lm is Suspended at step 41 of 60 (68 %)."
