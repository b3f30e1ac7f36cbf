"""Jobs whose ranks have parts of the state, or send less than their gradients: what kubectl says of them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from cluster.kubectl import kubectl
from e2e.cluster.job import Job, strike

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_without_copies_a_dead_rank_takes_its_part_along_and_all_go_back_to_the_save(start: Callable[..., Job]) -> None:
    # Both ranks in one pod, whose /tmp they share: real jobs save to a volume that all pods have.
    job = start(
        "parted",
        workers=1,
        processesPerWorker=2,
        recovery={"spares": 0, "replicas": 0},
        save_every=5,
        training={"parallel": {"zero": 3}},
    )
    members = job.settled(2, spares=0)
    job.until_ledger("some steps after a save", lambda: (job.ledger.newest_step() or 0) >= 12, 60)
    strike(members[1])
    job.until("a second attempt", lambda status: status["attempt"] == 1, 60)
    told = job.condition("StateLost")
    print(f"\nStateLost: {told['message']}")
    assert (told["status"], told["reason"]) == ("True", "PartLost")
    back = re.search(r"rank 1 of 2 has taken along .* step (\d+).*back to the save of step (\d+)", told["message"])
    assert back is not None, told["message"]
    lost, saved = map(int, back.groups())
    assert saved % 5 == 0
    assert 0 <= lost - saved <= 5
    assert "PartLost" in kubectl("describe", "trainingjob", job.name, "--namespace", job.namespace)
    assert job.completes()["progress"]["step"] == job.steps


def test_without_copies_and_a_save_the_job_fails_and_names_the_rank(start: Callable[..., Job]) -> None:
    job = start("unsaved", workers=2, recovery={"spares": 0, "replicas": 0}, training={"parallel": {"zero": 1}})
    strike(job.settled(2, spares=0)[1])
    status = job.until("its end", lambda status: status.get("phase") == "Failed", 60)
    assert status["reason"] == "StateLost"
    told = job.condition("Failed")
    print(f"\nFailed: {told['message']}")
    assert "rank 1 of 2 has taken along" in told["message"]


def test_a_choice_of_compression_is_told(start: Callable[..., Job]) -> None:
    job = start("chosen", workers=2, recovery={"spares": 0}, training={"compression": {"method": "auto"}})
    job.settled(2, spares=0)
    status = job.until("progress", lambda status: "communication" in (status.get("progress") or {}), 60)
    told = status["progress"]["communication"]
    print(f"\ncompression: {told}")
    assert told["bytesPerStep"] > 0
    assert told["method"] in told["reason"]
    job.completes()
