"""Launchers with the real coordinator: the two ends of the protocol were written apart, and meet here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import JobState, Report
from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest_asyncio.fixture(loop_scope="function")
async def job(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalJob]:
    spec = RuntimeSpec(workers=2, min_workers=1, spares=1)
    steps = getattr(request, "param", -1)
    environment = {"STAND_IN_STEPS": str(steps), "DRIVETRAIN_GRACE_SECONDS": "20"}
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(STAND_IN)], environment) as job:
        yield job


def training(report: Report, world: int) -> bool:
    return report.state is JobState.TRAINING and report.world == world and len(report.ready) >= world


async def test_a_killed_rank_is_replaced_by_the_spare_of_its_pod(job: LocalJob) -> None:
    before = await job.wait_for(lambda report: training(report, 2))
    victim, survivor = before.members
    os.kill(victim.pid, signal.SIGKILL)
    after = await job.wait_for(
        lambda report: training(report, 2) and victim.process not in {member.process for member in report.members}
    )
    assert [member.pod_uid for member in after.members if member.process != survivor.process] == [victim.pod_uid]
    (still,) = [member for member in after.members if member.process == survivor.process]
    assert (still.pid, still.start_ticks) == (survivor.pid, survivor.start_ticks)
    assert [(failure.process, failure.signal) for failure in after.failures] == [(victim.process, signal.SIGKILL)]


async def test_a_new_coordinator_adopts_the_membership(job: LocalJob) -> None:
    before = await job.wait_for(lambda report: training(report, 2))
    await job.kill_coordinator()
    await job.start_coordinator()
    after = await job.wait_for(lambda report: report.term == 2 and training(report, 2))
    assert after.epoch == before.epoch
    assert [(member.pid, member.start_ticks) for member in after.members] == [
        (member.pid, member.start_ticks) for member in before.members
    ]


async def test_a_pod_that_is_told_to_go_is_released(job: LocalJob) -> None:
    before = await job.wait_for(lambda report: training(report, 2))
    leaver = job.pods.pop(before.members[0].pod_uid)
    leaver.process.terminate()
    await job.wait_for(lambda report: training(report, 1))
    assert await leaver.process.wait() == ExitCode.LEFT
    (stays,) = (await job.wait_for(lambda report: training(report, 1))).members
    assert (stays.pid, stays.start_ticks) == (before.members[1].pid, before.members[1].start_ticks)


async def test_a_lost_pod_is_left_behind(job: LocalJob) -> None:
    before = await job.wait_for(lambda report: training(report, 2))
    await job.kill_pod(before.members[1].pod_uid)
    after = await job.wait_for(lambda report: training(report, 1))
    assert after.members[0].pid == before.members[0].pid


@pytest.mark.parametrize("job", [50], indirect=True)
async def test_completion(job: LocalJob) -> None:
    assert await job.completed() == [ExitCode.COMPLETE] * 2


async def test_stop(job: LocalJob) -> None:
    await job.wait_for(lambda report: training(report, 2))
    await job.publish(stop="suspended")
    assert await job.completed() == [ExitCode.STOPPED] * 2
