"""A worker's processes die by SIGKILL from the machine: how soon do all train on, and is anything lost?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

import pytest

from cluster.faults import kill_pod
from drivetrain_operator.plan.incidents import TOGETHER
from e2e.cluster.job import BATCH, SAMPLES, Job, strike
from harness.often import often

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ELASTIC = {"minWorkers": 2, "maxWorkers": 4}
KILLS, CRASHES, PARTED_KILLS = often(20, 8), often(3, 2), often(10, 5)
BOUND_SECONDS = 1.5


def test_ranks_killed_again_and_again(start: Callable[..., Job]) -> None:
    job = start("kills", steps=3000, workers=3, elastic=ELASTIC, recovery={"spares": 1, "maxRestarts": 100})
    chance = random.Random(20261121)
    seconds = []
    for _ in range(KILLS):
        members = job.settled(3)
        victim = chance.choice(members)
        membership = job.newest_membership()
        time.sleep(chance.random() * 0.1)  # anywhere in a step
        at = strike(victim)
        seconds.append(job.next_common_step(at, membership, 30))
        assert all(each.alive() for each in members if each != victim), job.describe()
    _report("rank killed", seconds)
    status = job.succeeds()
    assert status["restarts"] == KILLS
    assert percentile(seconds, 0.95) <= BOUND_SECONDS


def test_all_processes_of_a_worker_killed(start: Callable[..., Job]) -> None:
    job = start("crashes", steps=2400, workers=3, elastic=ELASTIC, recovery={"spares": 1})
    seconds = []
    for _ in range(CRASHES):
        members = job.settled(3)
        victim = members[-1]
        time.sleep(TOGETHER.total_seconds() + 1)  # whoever dies sooner after another is of the same incident
        membership = job.newest_membership()
        crash = kill_pod(victim.pod_uid, "train")
        seconds.append(job.next_common_step(crash.time, membership, 30))
        assert all(each.alive() for each in members if each != victim), job.describe()
    _report("all processes of a worker killed", seconds)
    status = job.succeeds()
    assert status["restarts"] == CRASHES
    assert max(seconds) <= 15


def test_ranks_of_zero_3_killed_take_nothing_along(start: Callable[..., Job]) -> None:
    """Each has a copy on another rank, in another pod: no step is lost or made twice, and survivors are kept."""
    recovery = {"spares": 1, "maxRestarts": 100}
    parallel = {"parallel": {"zero": 3}}
    job = start("parted-kills", steps=1200, workers=3, elastic=ELASTIC, recovery=recovery, training=parallel)
    chance = random.Random(20261129)
    seconds = []
    for _ in range(PARTED_KILLS):
        members = job.settled(3)
        victim = chance.choice(members)
        membership = job.newest_membership()
        time.sleep(chance.random() * 0.1)
        at = strike(victim)
        seconds.append(job.next_common_step(at, membership, 30))
        assert all(each.alive() for each in members if each != victim), job.describe()
    _report("rank of ZeRO 3 killed", seconds)
    status = job.completes()
    job.ledger.read()
    assert (status["restarts"], status.get("attempt", 0)) == (PARTED_KILLS, 0), job.describe()
    assert job.ledger.lost_samples(job.steps, BATCH, SAMPLES) == []


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _report(what: str, seconds: list[float]) -> None:
    print(
        f"\n{what}: n={len(seconds)} p50={median(seconds):.3f} s p95={percentile(seconds, 0.95):.3f} s "
        f"max={max(seconds):.3f} s"
    )
