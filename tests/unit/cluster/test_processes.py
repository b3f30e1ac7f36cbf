"""Processes: found by their marker, and never mistaken for another that got the same pid."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cluster.layout import MARKER
from cluster.processes import describe, kill, marked


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: "test-sleeper"}) as child:
        yield child
        child.kill()


def test_kill_spares_a_newer_process_under_the_same_pid(sleeper: subprocess.Popen[bytes]) -> None:
    now = describe(sleeper.pid)
    assert now is not None
    assert not kill(replace(now, started=now.started - 1))
    assert sleeper.poll() is None
    assert kill(now)
    assert sleeper.wait(timeout=10) == -9
    assert not kill(now)


def test_daemons_are_known_by_their_marker(sleeper: subprocess.Popen[bytes]) -> None:
    (found,) = (each for each in marked() if each.pid == sleeper.pid)
    assert (found.daemon, found.command) == ("test-sleeper", "sleep 60")


def test_what_has_ended_is_not_described(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie until the fixture buries it
    assert describe(sleeper.pid) is None
