"""Scripts that never call `drivetrain.start()`: whatever happens, they go on in the same pods from their checkpoint."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.report import JobState
from drivetrain_api.runtime import RuntimeSpec
from harness.job import LocalJob
from harness.patience import until_true

SCRIPT = Path(__file__).with_name("stock.py")
STEPS = 60


@asynccontextmanager
async def job(
    folder: Path, workers: int, *, minimum: int = 0, spares: int = 1, processes: int = 1
) -> AsyncIterator[LocalJob]:
    """A job of this script, found out to be one."""
    (folder / "slow").touch()
    spec = RuntimeSpec(
        runtime="auto",
        workers=workers,
        min_workers=minimum or workers,
        processes_per_worker=processes,
        spares=spares,
        max_restarts=3,
    )
    environment = {"FOLDER": str(folder), "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    async with LocalJob.run(folder, spec, [sys.executable, str(SCRIPT)], environment) as running:
        yield running


def printed(running: LocalJob) -> str:
    """By all ranks of all pods."""
    return "\n".join(path.read_text() for path in sorted(running.folder.glob("pod-*.log")))


def losses(running: LocalJob) -> list[tuple[int, str]]:
    """As rank 0 printed them."""
    return [(int(step), loss) for step, loss in re.findall(r"step (\d+) loss (\S+)", printed(running))]


def begins(running: LocalJob) -> list[dict[str, int]]:
    """Each start of the script: where, as which process, with which environment."""
    found = []
    for line in re.findall(r"begins at (.*)", printed(running)):
        step, _, pid, *variables = line.split()
        values = {name: int(value) for name, _, value in (each.partition("=") for each in variables)}
        found.append({"step": int(step), "pid": int(pid), **values})
    return found


async def at_step(running: LocalJob, step: int, *, starts: int = 0) -> None:
    """Some rank 0 has printed it, and the script was started so often."""

    def there() -> bool:
        return len(begins(running)) >= starts and any(each >= step for each, _ in losses(running)[-1:])

    await until_true(there, lambda: f"step {step}\n{running.logs()}", 40.0)


async def test_a_killed_rank_starts_all_again_in_their_pods_from_the_checkpoint(tmp_path: Path) -> None:
    async with job(tmp_path, 2) as running:
        before = await running.wait_for(lambda report: report.world == 2 and report.state is JobState.TRAINING)
        assert before.progress is None  # honestly unknown
        await at_step(running, 13)
        first = begins(running)
        os.kill(next(each["pid"] for each in first if each["RANK"] == 1), signal.SIGKILL)
        await at_step(running, 14, starts=4)
        (tmp_path / "slow").unlink()
        launchers = {pod.process.pid for pod in running.pods.values()}
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert launchers == {pod.process.pid for pod in running.pods.values()}
        last = running.operator.reports[-1]
        assert [(failure.rank, failure.signal, failure.incident) for failure in last.failures] == [(1, 9, 1)]
        assert (last.recoveries, last.state_lost, last.progress) == (1, 0, None)
        starts = begins(running)
        assert sorted((each["RANK"], each["WORLD_SIZE"], each["TORCHELASTIC_RESTART_COUNT"]) for each in starts) == [
            (0, 2, 0),
            (0, 2, 1),
            (1, 2, 0),
            (1, 2, 1),
        ]
        assert len({each["pid"] for each in starts}) == 4
        again = {each["step"] for each in starts if each["TORCHELASTIC_RESTART_COUNT"]}
        assert len(again) == 1
        (at,) = again
        assert at % 10 == 0
        assert at >= 10
        told = losses(running)
        cut = next(number for number, (step, _) in enumerate(told) if number and step <= told[number - 1][0])
        # From the checkpoint on, the steps since then once more, with the same losses as before.
        assert [step for step, _ in told[cut:]] == list(range(at + 1, told[-1][0] + 1))
        assert dict(told[cut:]).items() >= {step: loss for step, loss in told[:cut] if step > at}.items()
        assert printed(running).count("this script never calls drivetrain.start()") == 1
        assert (
            printed(running).count("drivetrain: starts again with 2 ranks, after 1 failure: pod-1-2 lost a rank") == 1
        )


async def test_a_drained_pod_costs_no_step_of_a_script_that_saves(tmp_path: Path) -> None:
    """Its script and the others' get SIGTERM, save together, and start again without it."""
    async with job(tmp_path, 2, minimum=1, spares=0) as running:
        await at_step(running, 13)
        leaver = next(pod for pod in running.pods.values() if pod.index == 1)
        running.target = 1
        leaver.process.send_signal(signal.SIGTERM)
        assert await running.left(leaver) == ExitCode.LEFT
        await running.publish()
        (tmp_path / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE]
        (saved,) = {int(step) for step in re.findall(r"saved at (\d+)", printed(running))}
        assert [step for step, _ in losses(running)] == list(range(1, losses(running)[-1][0] + 1))
        assert [each["step"] for each in begins(running) if each["WORLD_SIZE"] == 1] == [saved]
        assert running.operator.reports[-1].failures == []


async def test_workers_that_join_start_all_again_from_what_was_saved(tmp_path: Path) -> None:
    async with job(tmp_path, 1, spares=0, processes=2) as running:
        await at_step(running, 3)
        running.target = 2
        await running.start_pod(1)
        await at_step(running, 4, starts=6)
        (tmp_path / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert [step for step, _ in losses(running)] == list(range(1, losses(running)[-1][0] + 1))
        names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")
        found = sorted(tuple(each[name] for name in names) for each in begins(running) if each["WORLD_SIZE"] == 4)
        assert found == [(0, 0, 0, 2), (1, 1, 0, 2), (2, 0, 1, 2), (3, 1, 1, 2)]
        assert running.operator.reports[-1].failures == []


async def test_a_lost_coordinator_disturbs_nobody_and_a_lost_pod_is_replaced(tmp_path: Path) -> None:
    async with job(tmp_path, 2, spares=0) as running:
        await at_step(running, 3)
        await running.kill_coordinator()
        await running.start_coordinator()
        await running.wait_for(lambda report: report.term == 2 and report.state is JobState.TRAINING)
        await at_step(running, losses(running)[-1][0] + 10)
        assert len(begins(running)) == 2
        await running.kill_pod(next(pod.uid for pod in running.pods.values() if pod.index == 0))
        await running.start_pod(0)
        await at_step(running, 1, starts=4)
        (tmp_path / "slow").unlink()
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        assert losses(running)[-1][0] >= STEPS
        assert [each["WORLD_SIZE"] for each in begins(running)] == [2, 2, 2, 2]
        assert {each["step"] % 10 for each in begins(running)} == {0}
        assert running.operator.reports[-1].failures == []  # the platform's doing


async def test_a_job_that_is_suspended_has_time_to_save(tmp_path: Path) -> None:
    async with job(tmp_path, 2, spares=0) as running:
        await at_step(running, 13)
        await running.publish(stop="the job is suspended")
        assert await running.completed() == [ExitCode.STOPPED, ExitCode.STOPPED]
        assert re.findall(r"saved at (\d+)", printed(running)) == [str(losses(running)[-1][0])] * 2


async def test_a_script_that_fails_tells_why_and_each_time_costs_one_restart(tmp_path: Path) -> None:
    """What it leaves behind does not outlive it, on the other ranks neither: it would hold their ports."""
    script = tmp_path / "fails.py"
    script.write_text(
        "import os, subprocess, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "again = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
        "if again < 2 and dist.get_rank() == 1: raise ValueError('no such corpus')\n"
        "daemon = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "if dist.get_rank() == 0: print('daemon', daemon.pid, flush=True)\n"
        "dist.barrier()\n"
    )
    spec = RuntimeSpec(runtime="torchrun", workers=2, min_workers=2, spares=0)
    environment = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    async with LocalJob.run(tmp_path, spec, [sys.executable, "fails.py"], environment) as running:
        assert await running.completed() == [ExitCode.COMPLETE, ExitCode.COMPLETE]
        failures = running.operator.reports[-1].failures
        assert [(failure.rank, failure.exit_code, failure.incident) for failure in failures] == [(1, 1, 1), (1, 1, 2)]
        assert all(failure.log_tail.endswith("ValueError: no such corpus") for failure in failures)
        # As its author knows it: the first frame is the script's.
        tail = [line.removeprefix("[rank1]: ") for line in failures[0].log_tail.splitlines()]  # torch's own prefix
        daemons = re.findall(r"daemon (\d+)", printed(running))
        assert len(daemons) == 3
        assert [pid for pid in daemons if Path(f"/proc/{pid}").exists()] == []
        assert 'fails.py", line 4, in <module>' in tail[tail.index("Traceback (most recent call last):") + 1]
