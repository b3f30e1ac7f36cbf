"""What comes out of a worker: Drivetrain's own lines in the format that was chosen, a script's as it printed them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import ProcessPhase
from unit.launch.conftest import StartPod
from unit.launch.stub_coordinator import StubCoordinator, eventually

SCRIPT = r"""
import sys
from drivetrain import say
print("loss 2.5")
print('{"time": "mine"}')
print("a bar without end", end="", flush=True)
say.note("snapshots: no room\nforged", level="warning")
say.about.update(rank=3, step=7)
say.line("step 7: loss 2")
say.note("x" * 100_000, level="error")
print("\x1e" + '{"time": "not ours"}')
sys.exit(3)
"""
JOB = {"DRIVETRAIN_JOB": "lm", "DRIVETRAIN_NAMESPACE": "team", "DRIVETRAIN_ATTEMPT": "2"}


async def printed(coordinator: StubCoordinator, start_pod: StartPod, **env: str) -> tuple[list[str], str]:
    """Lines of the worker, and the end of them that is told of the process."""
    pod = await start_pod(coordinator.port, command=[sys.executable, "-c", SCRIPT], environment={**JOB, **env})
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, ProcessPhase.DEAD)) >= 1)
    await eventually(lambda: "not ours" in pod.output and "connected" in pod.output)
    return pod.output.split("\n"), coordinator.processes(pod.uid, ProcessPhase.DEAD)[0].log_tail


async def test_json(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    lines, tail = await printed(coordinator, start_pod, DRIVETRAIN_LOG_FORMAT="json")
    own: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
    of_script = [line for line in lines if not line.startswith("{")]
    assert of_script[:4] == [
        "[worker 0] loss 2.5",
        '[worker 0] {"time": "mine"}',
        "[worker 0] a bar without end",
        '[worker 0] \x1e{"time": "not ours"}',
    ]
    for line in own:
        assert (line["namespace"], line["job"], line["attempt"], line["pod"]) == ("team", "lm", 2, "job-0-1")
    (connected,) = [line for line in own if line["message"] == "connected to the coordinator"]
    assert (connected["component"], connected["level"], connected["term"]) == ("launcher", "info", 1)
    ranks = [line for line in own if line["component"] == "rank"][:3]
    assert [(line["level"], line["message"][:10], line.get("rank"), line.get("step")) for line in ranks] == [
        ("warning", "snapshots:", None, None),
        ("info", "step 7: lo", 3, 7),
        ("error", "xxxxxxxxxx", 3, 7),
    ]
    # Why a process ended is told in words, whatever its log looks like.
    assert tail.splitlines()[:5] == [
        *("loss 2.5", '{"time": "mine"}', "a bar without end"),
        *("snapshots: no room", "forged"),
    ]


async def test_text_is_as_it_always_was(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    lines, _ = await printed(coordinator, start_pod)
    assert "launcher: connected to the coordinator  term=1" in lines
    assert "[worker 0] a bar without enddrivetrain: snapshots: no room" in lines
    assert "[worker 0] step 7: loss 2" in lines


async def test_a_level_is_that_of_launcher_and_ranks(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(
        coordinator.port,
        command=[sys.executable, "-c", SCRIPT],
        environment={"DRIVETRAIN_LOG_LEVEL": "error"},
    )
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, ProcessPhase.DEAD)) >= 1)
    await eventually(lambda: "not ours" in pod.output)
    assert "connected" not in pod.output
    assert "snapshots" not in pod.output
    assert "step 7" not in pod.output
    assert "loss 2.5" in pod.output
    assert "drivetrain: xxx" in pod.output


@pytest.mark.parametrize("form", ["json", "text"])
async def test_how_a_launcher_that_cannot_start_says_so(form: str, start_pod: StartPod) -> None:
    pod = await start_pod(1, command=["no-such-program\n"], environment={"DRIVETRAIN_LOG_FORMAT": form})
    assert await pod.ended() == ExitCode.COMMAND
    (line,) = pod.output.splitlines()
    said = json.loads(line)["message"] if form == "json" else line.removeprefix("launcher: ")
    assert said == "command not found or not executable: 'no-such-program\\n' (spec.command)"


async def test_a_format_that_does_not_exist_is_named(start_pod: StartPod) -> None:
    pod = await start_pod(1, environment={"DRIVETRAIN_LOG_FORMAT": "xml"})
    assert await pod.ended() == ExitCode.USAGE
    assert pod.output.strip() == "launcher: DRIVETRAIN_LOG_FORMAT must be one of auto, json, text, not 'xml'"
