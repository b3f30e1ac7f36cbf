"""Ranks stand still while another waits for them: coordinator, launchers and ranks as processes, without torch."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from drivetrain_api.messages import NO_PROGRESS
from drivetrain_api.report import JobState, Report
from drivetrain_api.runtime import RuntimeSpec
from drivetrain_api.status import MAX_LOG_TAIL
from drivetrain_operator.plan.causes import process_reason
from harness.job import ROOT, LocalJob
from unit.launch import late

SCRIPT = Path(late.__file__)


def line_of(text: str) -> int:
    """Where in the script this stands."""
    lines = inspect.getsource(late).splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


SLEEPS, CALLS, HOLDS = (line_of(f"# in {where}") for where in ("the script's", "somebody else's", "C code that holds"))
SENTENCE = re.compile(r"no progress for more than \d+ s at step 21: rank")
STACKS = {
    1: [f'late.py", line {SLEEPS}'],
    2: [f'late.py", line {CALLS}', 'threading.py", line'],
    3: [f'late.py", line {HOLDS}', "answer about where its threads are: C code holds its interpreter"],
}


async def test_late_ranks_are_named_within_seconds_and_then_fail_with_their_stacks(tmp_path: Path) -> None:
    """The limit comes when the sentence has been seen, so that no slow machine can hide it."""
    spec = RuntimeSpec(workers=4, min_workers=1, spares=0)
    paths = f"{ROOT / 'operator'}:{ROOT / 'worker-image'}:{ROOT / 'tests'}"
    environment = {"PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    async with LocalJob.run(tmp_path, spec, [sys.executable, str(SCRIPT)], environment) as job:
        report = await job.wait_for(lambda report: report.standstill is not None)
        said = report.standstill
        assert said is not None
        ranks = {int(member.pod_uid[4]): member.rank for member in report.members}
        assert sorted(said.late) == sorted(ranks[index] for index in (1, 2, 3))
        assert SENTENCE.match(said.message)
        for part in (
            f"rank {ranks[1]} (pod-1-2) is at late.py:{SLEEPS} in hang between operations",
            f"rank {ranks[2]} (pod-2-3) is at late.py:{CALLS} in hang between operations",
            f"rank {ranks[3]} (pod-3-4) gives no sign of life since it was in run.step (stand_in.py:1",
            f"and rank {ranks[0]} waits for them in run.step (late.py:2), all-reduce #{late.STEPS + 2}",
        ):
            assert part in said.message

        report = await job.wait_for(lambda report: report.standstill is not None and len(report.standstill.looks) == 3)
        assert report.standstill is not None
        for look in report.standstill.looks:
            index = int(look.process[4])
            assert [text for text in STACKS[index] if text not in look.stack] == []
            assert [(call.number, call.state) for call in look.calls][-1] == (late.STEPS + 1, "done")
            assert f"all-reduce #{late.STEPS + 1} of step {late.STEPS - 1}, done" in job.logs(20_000)
        await job.wait_for(
            lambda report: (
                f"stand_in.py:1, held at late.py:{HOLDS} in hang)" in report.standstill.message
                if report.standstill is not None
                else False
            )
        )
        log = (tmp_path / "coordinator-1.log").read_text()
        assert log.count("a rank that holds the others up") == 3
        files = sorted((tmp_path / "drivetrain-collectives").iterdir())
        assert len(files) == 3
        assert all(f"all-reduce #{late.STEPS + 1}\n" in each.read_text() for each in files)

        job.no_progress = 5.0
        await job.publish()
        report = await job.wait_for(lambda report: len(report.failures) == 3)
        for failure in report.failures:
            index = int(failure.pod_uid[4])
            assert (failure.rank, failure.signal, process_reason(failure)) == (ranks[index], 9, NO_PROGRESS)
            kept = failure.log_tail[-MAX_LOG_TAIL:]
            assert [text for text in STACKS[index] if text not in kept] == []
            assert "recovery.noProgressSeconds" in kept.splitlines()[-1]
            assert STACKS[index][0] in job.logs(20_000)
        assert len({failure.incident for failure in report.failures}) == 1
        job.no_progress = None
        await job.publish()
        await job.wait_for(going_on)


def going_on(report: Report) -> bool:
    """With others in their places."""
    steps = [member.step for member in report.members]
    return report.state is JobState.TRAINING and len(steps) == 4 and min(steps) > late.STEPS + 5
