"""The launcher's decisions by table: fence, leave, stop-watch, handover, settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivetrain.launch.dead import MAX_KEPT, Dead
from drivetrain.launch.errors import CommandError, LauncherError, UsageError
from drivetrain.launch.fence import UNSEATED_FACTOR, Fence
from drivetrain.launch.handover import Handover
from drivetrain.launch.leave import Leave
from drivetrain.launch.settings import read_settings
from drivetrain.launch.stopped import SILENT_SECONDS, StopWatch
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.messages import Boundary, EpochId, Form, ProcessPhase, ProcessState


@pytest.mark.parametrize(
    ("seen", "now", "seated", "expired"),
    [
        ([], 59.0, True, False),
        ([], 61.0, True, True),
        ([30.0], 61.0, True, False),
        ([30.0], 91.0, True, True),
        ([30.0, 10.0], 89.0, True, False),
        ([], 61.0, False, False),
        ([], 60.0 * UNSEATED_FACTOR + 1, False, True),
    ],
)
def test_fence(seen: list[float], now: float, seated: bool, expired: bool) -> None:
    fence = Fence(60.0, 0.0)
    for moment in seen:
        fence.seen(moment)
    assert fence.expired(now, seated=seated) is expired


def test_leave_waits_for_the_grace_period_less_a_margin_and_not_after_a_second_signal() -> None:
    leave = Leave(30.0)
    assert not leave.over(1e9)
    leave.told(100.0)
    assert leave.leaving
    assert not leave.over(127.9)
    assert leave.over(128.0)
    leave.told(105.0)
    assert leave.over(105.0)


@pytest.mark.parametrize(
    ("name", "ticks", "why"),
    [
        ("runs", [(0.1, "R")] * 20, None),
        ("stopped", [(0.1, "T")] * 6, "stopped"),
        ("stopped, too short", [(0.1, "T")] * 4, None),
        ("stopped and continued", [(0.1, "T")] * 4 + [(0.1, "S")] + [(0.1, "T")] * 4, None),
        ("traced by a debugger", [(0.1, "t")] * 20, None),
        ("the launcher itself was frozen", [(60.0, "S"), (0.1, "S")], None),
        ("silent", [(0.1, "S")] * int(SILENT_SECONDS * 10 + 2), "NoProgress: no sign of life"),
    ],
)
def test_stop_watch(name: str, ticks: list[tuple[float, str]], why: str | None) -> None:
    watch = StopWatch()
    watch.beat()
    verdicts = [verdict for elapsed, state in ticks if (verdict := watch.tick(elapsed, state))]
    assert verdicts[0].startswith(why) if why and verdicts else why is None and not verdicts, (name, verdicts)


def test_a_script_that_has_not_attached_yet_is_not_silent() -> None:
    watch = StopWatch()
    assert not any(watch.tick(0.1, "S") for _ in range(int(SILENT_SECONDS * 20)))


def test_a_script_that_finishes_may_be_silent_but_not_stopped() -> None:
    watch = StopWatch()
    watch.beat()
    watch.finishing()
    assert not any(watch.tick(0.1, "S") for _ in range(int(SILENT_SECONDS * 20)))
    assert any(watch.tick(0.1, "T") for _ in range(10))


def test_handover_keeps_the_forms_from_the_last_tabled_one_on() -> None:
    handover = Handover()
    for n in (2, 1, 3):
        handover.formed(Form(epoch=EpochId(1, n), members=[], boundary=Boundary.NOW))
    assert [form.epoch.n for form in handover.forms] == [1, 2, 3]
    handover.table(EpochId(1, 2))
    handover.table(EpochId(1, 1))
    handover.formed(Form(epoch=EpochId(2, 1), members=[], boundary=Boundary.NOW))
    assert handover.tabled == (1, 2)
    assert [tuple(form.epoch) for form in handover.forms] == [(1, 2), (1, 3), (2, 1)]
    assert handover.newest is not None
    assert handover.newest.epoch == (2, 1)


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "DRIVETRAIN_COORDINATOR": "10.0.0.1:7070",
    "DRIVETRAIN_JOB_UID": "job",
    "DRIVETRAIN_POD_UID": "pod",
    "DRIVETRAIN_POD_NAME": "job-0-1",
    "DRIVETRAIN_INDEX": "3",
}


@pytest.mark.parametrize(
    ("argv", "change", "error", "says"),
    [
        (["--", "sh"], {}, None, ""),
        (["--", "sh"], {"DRIVETRAIN_COORDINATOR": "[::1]:7070"}, None, ""),
        ([], {}, UsageError, "usage"),
        (["--"], {}, UsageError, "usage"),
        (["sh"], {}, UsageError, "usage"),
        (["--", "no-such-command"], {}, CommandError, "no-such-command"),
        (["--", "sh"], {"DRIVETRAIN_COORDINATOR": "10.0.0.1"}, UsageError, "DRIVETRAIN_COORDINATOR"),
        (["--", "sh"], {"DRIVETRAIN_JOB_UID": ""}, UsageError, "DRIVETRAIN_JOB_UID"),
        (["--", "sh"], {"DRIVETRAIN_INDEX": "-1"}, UsageError, "DRIVETRAIN_INDEX"),
        (["--", "sh"], {"DRIVETRAIN_SPEC": "{"}, UsageError, "DRIVETRAIN_SPEC"),
        (["--", "sh"], {"DRIVETRAIN_GRACE_SECONDS": "x"}, UsageError, "DRIVETRAIN_GRACE_SECONDS"),
        (["--", "sh"], {"DRIVETRAIN_CREDENTIALS": "/nowhere"}, UsageError, "token"),
    ],
)
def test_settings(
    credentials: Path, argv: list[str], change: dict[str, str], error: type[LauncherError] | None, says: str
) -> None:
    environment = {**ENVIRONMENT, "DRIVETRAIN_CREDENTIALS": str(credentials), **change}
    if error is None:
        settings = read_settings(argv, environment)
        assert (settings.port, settings.index, settings.spec.spares) == (7070, 3, 1)
        assert ":" not in settings.address or settings.address == "::1"
        return
    with pytest.raises(error, match=says) as caught:
        read_settings(argv, environment)
    assert caught.value.code in (ExitCode.USAGE, ExitCode.COMMAND)


def test_the_credentials_lie_under_the_pod_root_where_pods_are_plain_processes(credentials: Path) -> None:
    environment = {
        **ENVIRONMENT,
        "DRIVETRAIN_CREDENTIALS": f"/{credentials.name}",
        "DRIVETRAIN_POD_ROOT": str(credentials.parent),
    }
    assert read_settings(["--", "sh"], environment).credentials == credentials


def test_a_death_that_nobody_could_be_told_of_is_not_forgotten() -> None:
    """For a minute from when it was told, a coordinator's successor has to hear of it, too."""

    def died(name: str) -> ProcessState:
        return ProcessState(id=name, pid=1, start_ticks=1, phase=ProcessPhase.DEAD, exit_code=1)

    dead = Dead()
    dead.add(died("a"), 0.0)
    dead.add(died("b"), 0.0)
    # For ten minutes there was no coordinator.
    heard = []
    for now in (600.0, 630.0, 660.0, 661.0):
        heard.append("".join(state.id for state in dead.tell(now)))
        if now == 630.0:
            dead.add(died("c"), 631.0)
    assert heard == ["ab", "ab", "abc", "c"]


def test_of_many_deaths_the_last_are_kept() -> None:
    dead = Dead()
    for number in range(MAX_KEPT + 9):
        dead.add(ProcessState(id=str(number), pid=1, start_ticks=1, phase=ProcessPhase.DEAD), 0.0)
    told = dead.tell(0.0)
    assert (len(told), told[-1].id) == (MAX_KEPT, str(MAX_KEPT + 8))
