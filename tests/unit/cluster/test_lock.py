"""A second user of the machine's cluster is told at once by whom it is used, and what to do."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import __main__ as command_line
from cluster import lock
from cluster.errors import InUse
from harness.commands import ran

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from cluster import lock
with lock.alone("make cluster"):
    print("held", flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="without root nobody can use the cluster at all")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "lock"
    monkeypatch.setenv("DRIVETRAIN_CLUSTER_LOCK", str(found))
    monkeypatch.delenv(lock.HELD, raising=False)
    return found


@pytest.fixture
def held(file: Path) -> Callable[[], subprocess.Popen[str]]:
    """Another process that has it, until its input ends."""

    def hold() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        return other

    return hold


def test_the_second_is_refused_with_the_name_of_the_first(held: Callable[[], subprocess.Popen[str]]) -> None:
    with held() as other:
        told = rf"in use by `make cluster` \(pid {other.pid}, in .*, since .*\); .* wait until that ends, or end it"
        with pytest.raises(InUse, match=told), lock.alone("make e2e"):
            pass
        other.communicate()
    with lock.alone("make e2e"), lock.alone("what it runs itself"):
        pass


def test_one_that_was_killed_holds_it_no_more(held: Callable[[], subprocess.Popen[str]]) -> None:
    with held() as other:
        other.kill()
        other.wait()
        with lock.alone("make e2e"):
            pass


def test_the_command_line_says_so_in_one_line(
    held: Callable[[], subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with held() as other:
        assert command_line.main(["down"]) == 1
        other.communicate()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cluster down: this machine's cluster is in use by `make cluster` (pid ")


def test_make_e2e_has_the_same_lock_and_takes_it_first(held: Callable[[], subprocess.Popen[str]]) -> None:
    with held() as other:
        done = ran([str(ROOT / "scripts" / "e2e")], 60)
        other.communicate()
    assert done.returncode == 4, done.stdout + done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith(f"e2e: this machine's cluster is in use by `make cluster` (pid {other.pid}, in ")
    assert "wait until that ends, or end it" in second
