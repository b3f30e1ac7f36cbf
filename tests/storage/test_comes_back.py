"""A job whose snapshots lie in S3: it trains on while its server is dead, and loses all its processes; it goes on from
the last step that it has written, and ends with the same bits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import Snapshotted
from drivetrain_api.report import Report
from drivetrain_api.runtime import RuntimeSnapshots, RuntimeSpec
from e2e.processes.test_comes_back import SCRIPT, TRAINING, all_again, alone, end_of, restored, trained
from harness.job import LocalJob
from harness.once import once
from storage.servers import BUCKET, KEY, SECRET, S3Server


def snapshots_of(report: Report) -> Snapshotted | None:
    return report.progress.snapshots if report.progress is not None else None


def failing(report: Report) -> bool:
    told = snapshots_of(report)
    return told is not None and told.failure is not None


def writing_again(report: Report) -> bool:
    told = snapshots_of(report)
    return told is not None and told.failure is None and (told.durable or 0) > 12


async def test_all_is_lost_but_the_bucket(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, secret: Path
) -> None:
    undisturbed = end_of(once(tmp_path_factory, "comes-back-alone", alone))
    server = S3Server(tmp_path / "server")
    snapshots = RuntimeSnapshots(
        storage=f"s3://{BUCKET}/ns/lm-12345678",
        options={"endpoint": server.endpoint},
        secret=str(secret),
        commit_seconds=0.0,
        base_every_steps=10,
    )
    spec = RuntimeSpec(workers=3, min_workers=1, spares=0, training=TRAINING, snapshots=snapshots)
    environment = {"FOLDER": str(tmp_path), "EVERY": "0", "SLOW": "0.1", "DRIVETRAIN_GRACE_SECONDS": "4"}
    try:
        server.start()
        async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT)], environment) as running:
            await running.wait_for(trained(10, 3))
            server.kill()
            told = snapshots_of(await running.wait_for(failing))
            assert told is not None
            assert told.failure is not None
            assert f"cannot write s3://{BUCKET}/ns/lm-12345678/log/" in told.failure
            assert f"127.0.0.1:{server.port}" in told.failure
            server.start()
            before = snapshots_of(await running.wait_for(writing_again))
            assert before is not None
            for pod in running.pods.values():
                pod.process.kill()
            for pod in running.pods.values():
                await pod.process.wait()
            server.kill()
            server.start()
            await all_again(running, 2)
            await running.wait_for(lambda report: report.term == 2 and trained(12, 2)(report))
            (tmp_path / "go").touch()
            assert await running.completed() == [ExitCode.COMPLETE] * 2
            (step,) = restored(running)
            logs = running.logs(1_000_000)
    finally:
        server.end()
    assert before.durable is not None
    assert step >= before.durable, "a step that was told to all is lost"
    assert end_of(tmp_path) == undisturbed
    assert not any(each in logs for each in (KEY, SECRET))
