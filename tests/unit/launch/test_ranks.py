"""Real kills: who notices, what is left behind, who takes the place."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drivetrain.launch import procfs
from drivetrain.launch.supervisor import SPARE_DELAY_SECONDS, SPARE_LIMIT_SECONDS
from drivetrain_api.messages import NEVER_STARTED, EpochId, Kill, ProcessPhase
from harness.activity import Stillness
from unit.launch.conftest import StartPod
from unit.launch.stub_coordinator import StubCoordinator, eventually

READY, MEMBER, DEAD = ProcessPhase.READY, ProcessPhase.MEMBER, ProcessPhase.DEAD


async def test_a_killed_member_is_reported_and_its_spare_takes_over_while_the_others_stay(
    coordinator: StubCoordinator, start_pod: StartPod
) -> None:
    first, second = [await start_pod(coordinator.port, spares=1) for _ in range(2)]
    await coordinator.until(lambda: all(len(coordinator.processes(pod.uid, READY)) == 2 for pod in (first, second)))
    victim, spare = coordinator.processes(first.uid)
    survivor = coordinator.processes(second.uid)[0]
    await coordinator.form(EpochId(1, 1), [(first.uid, victim.id), (second.uid, survivor.id)])
    survivor = coordinator.process(second.uid, survivor.id)

    os.kill(victim.pid, signal.SIGKILL)
    await coordinator.until(lambda: coordinator.process(first.uid, victim.id).phase is DEAD)
    dead = coordinator.process(first.uid, victim.id)
    assert (dead.signal, dead.exit_code, dead.epoch) == (signal.SIGKILL, None, (1, 1))
    await coordinator.form(EpochId(1, 2), [(second.uid, survivor.id), (first.uid, spare.id)])

    now = coordinator.process(second.uid, survivor.id)
    assert (now.pid, now.start_ticks) == (survivor.pid, survivor.start_ticks)
    found = procfs.stat(now.pid)
    assert found is not None
    assert found.start_ticks == survivor.start_ticks
    # And the pod has a spare again.
    await coordinator.until(lambda: len(coordinator.processes(first.uid, READY)) == 1)
    assert coordinator.processes(first.uid, READY)[0].id not in (victim.id, spare.id)
    assert "[spare] up model" in first.output


async def test_time_from_kill_to_report(
    coordinator: StubCoordinator, start_pod: StartPod, record_property: Callable[[str, object], None]
) -> None:
    pod = await start_pod(coordinator.port)
    took, waited = [], []
    for _ in range(7):
        await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
        victim = coordinator.processes(pod.uid, READY)[0]
        still, began = Stillness(), time.perf_counter()
        os.kill(victim.pid, signal.SIGKILL)
        await coordinator.until(lambda: any(dead.id == victim.id for dead in coordinator.processes(pod.uid, DEAD)))  # noqa: B023
        took.append(time.perf_counter() - began)
        waited.append(still.seconds())
    median = statistics.median(took)
    print(f"kill to DEAD at the coordinator: median {median * 1000:.1f} ms, max {max(took) * 1000:.1f} ms")
    record_property("kill_to_dead_ms", median * 1000)
    assert statistics.median(waited) < 2.0


async def test_a_stopped_rank_is_killed(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    victim = coordinator.processes(pod.uid, READY)[0]
    os.kill(victim.pid, signal.SIGSTOP)
    await coordinator.until(lambda: coordinator.process(pod.uid, victim.id).phase is DEAD, 5.0)
    assert coordinator.process(pod.uid, victim.id).signal == signal.SIGKILL
    assert "stopped (SIGSTOP)" in coordinator.process(pod.uid, victim.id).log_tail
    assert coordinator.process(pod.uid, victim.id).remedy == "stopped (SIGSTOP) for 0.5 s"


WISH = """
import sys
from drivetrain.launch.rank_link import RankLink
link = RankLink.from_environment()
link.error("drivetrain: out of step: asking for a fresh process", remedy=True)
link.close()
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("script", "code", "remedy", "told"),
    [
        ("raise SystemExit(75)", 75, "", ""),
        ("print('hello')", 0, "", NEVER_STARTED),
        (WISH.format(code=75), 75, "out of step: asking for a fresh process", "out of step"),
        (WISH.format(code=1), 1, "", "out of step"),
    ],
    ids=["a script may exit 75", "a script that never joins", "a wish", "no wish: another exit code"],
)
async def test_whose_doing_an_end_was(
    coordinator: StubCoordinator, start_pod: StartPod, script: str, code: int, remedy: str, told: str
) -> None:
    pod = await start_pod(coordinator.port, command=[sys.executable, "-c", script])
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, DEAD)) >= 1)
    dead = coordinator.processes(pod.uid, DEAD)[0]
    assert (dead.exit_code, dead.remedy) == (code, remedy)
    assert told in dead.log_tail


async def test_the_coordinator_may_kill_one(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port, processes_per_worker=2)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 2)
    victim, other = coordinator.processes(pod.uid)
    await coordinator.send(pod.uid, Kill(process=victim.id, reason="silent in two formations"))
    await coordinator.until(lambda: coordinator.process(pod.uid, victim.id).phase is DEAD)
    first = coordinator.process(pod.uid, victim.id).dead_seconds
    assert first is not None
    await coordinator.until(lambda: (coordinator.process(pod.uid, victim.id).dead_seconds or 0) > first)
    assert coordinator.process(pod.uid, victim.id).remedy == "silent in two formations"
    assert coordinator.process(pod.uid, other.id).phase is READY
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 2)


@pytest.mark.parametrize("how", [signal.SIGKILL, "coordinator", "launcher"])
async def test_nothing_that_a_rank_started_outlives_it(
    coordinator: StubCoordinator, start_pod: StartPod, how: signal.Signals | str
) -> None:
    pod = await start_pod(coordinator.port, mode="children")
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    victim = coordinator.processes(pod.uid, READY)[0]
    before = pod.left()
    assert len(before) == 5  # launcher, rank, child in its group, child in its own session, daemon
    if how == "coordinator":
        await coordinator.send(pod.uid, Kill(process=victim.id, reason="test"))
    elif how == "launcher":
        pod.signal(signal.SIGTERM)
        await eventually(lambda: "told to leave" in pod.output)  # Signals of one number that both wait become one.
        pod.signal(signal.SIGTERM)
        assert await pod.ended() == 143
        await pod.leaves_nothing()
        return
    else:
        os.kill(victim.pid, signal.SIGKILL)
    gone = set(before) - {pod.process.pid}
    await eventually(lambda: not gone & set(pod.left()))


async def test_ranks_die_with_their_launcher(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port, processes_per_worker=2, spares=1)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 3)
    pod.signal(signal.SIGKILL)
    await pod.process.wait()
    await eventually(lambda: pod.left() == [])


@pytest.mark.parametrize(
    ("mode", "tail"), [("raise", "ValueError: the script is wrong"), ("traceback", "Traceback: told over the link")]
)
async def test_a_script_that_fails_at_its_start(
    coordinator: StubCoordinator, start_pod: StartPod, mode: str, tail: str
) -> None:
    pod = await start_pod(coordinator.port, mode=mode)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, DEAD)) == 2)
    first, second = coordinator.processes(pod.uid, DEAD)
    assert (first.exit_code, first.signal) == (1, None)
    assert tail in first.log_tail
    assert "[worker 0] up None" in pod.output
    # The second came after a back-off of a second: both start and end are in clock ticks since boot.
    assert (second.start_ticks - first.start_ticks) / os.sysconf("SC_CLK_TCK") >= 1.0


async def test_a_command_that_cannot_run(coordinator: StubCoordinator, start_pod: StartPod, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    pod = await start_pod(coordinator.port, command=[str(script)])
    assert await pod.ended() == 68
    assert f"cannot start '{script}'" in pod.output
    await pod.leaves_nothing()


async def test_the_rank_behind_a_shell_is_the_one_that_counts(
    coordinator: StubCoordinator, start_pod: StartPod
) -> None:
    stand_in = f"{os.path.dirname(__file__)}/stand_in.py"
    pod = await start_pod(coordinator.port, command=["sh", "-c", f"{sys.executable} {stand_in}; exit $?"])
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 1)
    rank = coordinator.processes(pod.uid, READY)[0]
    found = procfs.stat(rank.pid)
    assert found is not None
    assert found.start_ticks == rank.start_ticks
    assert found.parent != pod.process.pid
    os.kill(rank.pid, signal.SIGSTOP)
    await coordinator.until(lambda: coordinator.process(pod.uid, rank.id).phase is DEAD, 5.0)


async def test_spares_start_when_the_needed_ones_are_ready(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port, mode="slow", spares=2)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid)) == 1 and len(coordinator.hellos) == 1)
    await coordinator.until(lambda: coordinator.states[pod.uid].seq >= 3)
    assert len(coordinator.processes(pod.uid)) == 1


async def test_a_new_spare_starts_when_training_goes_on(coordinator: StubCoordinator, start_pod: StartPod) -> None:
    pod = await start_pod(coordinator.port, spares=1)
    await coordinator.until(lambda: len(coordinator.processes(pod.uid, READY)) == 2)
    victim, spare = coordinator.processes(pod.uid)
    await coordinator.form(EpochId(1, 1), [(pod.uid, victim.id)])
    await coordinator.until(lambda: coordinator.process(pod.uid, victim.id).step >= 3)
    died = asyncio.get_running_loop().time()
    os.kill(victim.pid, signal.SIGKILL)
    await asyncio.sleep(SPARE_DELAY_SECONDS + 1.0)
    assert pod.output.count("[spare] up") == 1, "nobody trains yet"
    await coordinator.form(EpochId(1, 2), [(pod.uid, spare.id)])
    await eventually(lambda: pod.output.count("[spare] up") == 2)
    assert asyncio.get_running_loop().time() - died < SPARE_LIMIT_SECONDS


async def test_a_spare_of_level_import_goes_on_when_it_is_needed(
    coordinator: StubCoordinator, start_pod: StartPod
) -> None:
    environment = {"DRIVETRAIN_SPARE_LEVEL": "import"}
    pod = await start_pod(coordinator.port, processes_per_worker=2, spares=1, environment=environment)
    await eventually(lambda: "up import" in pod.output)
    _, candidate = coordinator.processes(pod.uid, READY)
    assert {"[worker 0] place 0", "[worker 0] place 1"} <= set(pod.output.splitlines())
    (spare,) = coordinator.processes(pod.uid, ProcessPhase.STARTING)
    os.kill(candidate.pid, signal.SIGKILL)
    await coordinator.until(lambda: spare.id in [rank.id for rank in coordinator.processes(pod.uid, READY)])
    # It has the dead one's place, and so its GPU; and the pod has a spare again.
    await eventually(lambda: pod.output.count("[worker 0] place 1") == 2)
    await eventually(lambda: pod.output.count("up import") == 2)


def test_the_launcher_does_not_import_torch() -> None:
    modules = "drivetrain.launch.agent, drivetrain.launch.main, drivetrain.launch.rank_link"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "False"
