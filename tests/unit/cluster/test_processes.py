"""Processes: found by their marker at any moment of their lives, never mistaken for another that got the same pid."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import faults, processes
from cluster.errors import ClusterError, CommandFailed, NotInTime
from cluster.layout import MARKER, Node
from cluster.node import inside
from cluster.processes import Daemon, all_pids, describe, kill, marked, started_at, wait_until
from harness.patience import until


@contextmanager
def a_process(*command: str, name: str = "test-sleeper") -> Iterator[subprocess.Popen[bytes]]:
    """Alive, and perhaps still in the middle of its exec: that is when Popen returns."""
    with subprocess.Popen(command or ("sleep", "60"), env={**os.environ, MARKER: name}) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with a_process() as child:
        yield child


def test_kill_spares_a_newer_process_under_the_same_pid(sleeper: subprocess.Popen[bytes]) -> None:
    now = describe(sleeper.pid)
    assert now is not None
    assert not kill(replace(now, started=now.started - 1))
    assert sleeper.poll() is None
    assert kill(now)
    assert sleeper.wait() == -9
    assert not kill(now)


def test_a_process_is_known_and_described_in_the_middle_of_its_exec() -> None:
    """Of 40 tries most meet it there: the environment and the command line cannot be read then."""
    unreadable = 0
    for number in range(40):
        with a_process(name=f"daemon-{number}") as child:
            unreadable += Path(f"/proc/{child.pid}/environ").read_bytes() == b""
            now = describe(child.pid)
            assert now is not None
            assert now.command == "sleep 60"
        with a_process(name=f"daemon-{number}") as child:
            (found,) = (each for each in marked() if each.pid == child.pid)
            assert (found.daemon, found.command) == (f"daemon-{number}", "sleep 60")
    print(f"{unreadable} of 40 could not be read at once")


def test_one_that_is_born_while_we_look_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first look lists starts another and ends, as containerd's shim does."""
    with subprocess.Popen(["true"]) as gone:
        pass
    born: list[subprocess.Popen[bytes]] = []

    def listed() -> Iterator[int]:
        before = [*all_pids(), gone.pid]
        if not born:
            born.append(subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: "born"}))
            return iter(before)
        return all_pids()

    monkeypatch.setattr(processes, "all_pids", listed)
    try:
        assert "born" in {each.daemon for each in marked()}
    finally:
        born[0].kill()
        born[0].wait()


def test_what_has_ended_is_not_described(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie until the fixture buries it
    assert describe(sleeper.pid) is None
    assert started_at(sleeper.pid) is None


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("DRIVETRAIN_CACHE", str(tmp_path))
    found = Node(1)
    found.folder.mkdir(parents=True)
    return found


def hold(node: Node, pid: int, started: int | None) -> None:
    (node.folder / "holder.json").write_text(json.dumps({"pid": pid, "started": started}))


def test_a_node_is_entered_by_what_was_written_down(node: Node, sleeper: subprocess.Popen[bytes]) -> None:
    hold(node, sleeper.pid, started_at(sleeper.pid))
    assert f"--target={sleeper.pid}" in inside(node)


NO_HOLDER: dict[str, tuple[Callable[[Node, int], None], str]] = {
    "it was never started": (lambda node, pid: None, r"node1 was not started \(.*holder.json is missing\)"),
    "its holder is dead": (lambda node, pid: hold(node, 2**22 + 1, 5), "holds node1's mounts is gone"),
    "another has its pid": (lambda node, pid: hold(node, pid, 5), "holds node1's mounts is gone"),
}


@pytest.mark.parametrize("case", NO_HOLDER)
def test_a_node_that_is_not_up_says_so(node: Node, sleeper: subprocess.Popen[bytes], case: str) -> None:
    arrange, told = NO_HOLDER[case]
    arrange(node, sleeper.pid)
    with pytest.raises(ClusterError, match=f"{told}.*run: python -m cluster down, then up"):
        inside(node)


def test_a_kill_waits_for_its_target_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is Running may still be runc, about to become the program."""
    with a_process("sh", "-c", "sleep 0.5; exec sleep 61") as child:
        monkeypatch.setattr(faults, "_pids_of", lambda uid: iter([child.pid]))
        crash = faults.kill_pod("uid", "sleep 61")
        assert [each.pid for each in crash.killed] == [child.pid]
    monkeypatch.setattr(faults, "_BORN_SECONDS", 0.1)
    with pytest.raises(ClusterError, match="no process with 'nothing' in its command line"):
        faults.kill_pod("uid", "nothing")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Daemon]]:
    monkeypatch.setenv("DRIVETRAIN_CACHE", str(tmp_path))
    started: list[Daemon] = []

    def start(script: str) -> Daemon:
        started.append(processes.start(f"daemon{len(started)}", ["sh", "-c", script]))
        return started[-1]

    yield start
    for each in started:
        each.child.kill()
        each.child.wait()


def test_a_daemon_that_is_at_work_is_waited_for(daemon: Callable[[str], Daemon]) -> None:
    busy = daemon("while true; do :; done")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 1.5, "it is ready", busy, seconds=0.7)


def test_one_that_says_no_more_is_given_up_with_its_last_words(daemon: Callable[[str], Daemon]) -> None:
    silent = daemon("seq 1000; exec sleep 60")
    until(lambda: "\n1000\n" in silent.log.read_text(), "all is written", 60)
    with pytest.raises(
        NotInTime, match=r"it is ready: not within 0.3 s(.|\n)*last lines of .*daemon0.log:\n986\n(.|\n)*1000$"
    ):
        wait_until(lambda: False, "it is ready", silent, seconds=0.3)


def test_one_that_has_ended_is_given_up_at_once(daemon: Callable[[str], Daemon]) -> None:
    dead = daemon("echo no such flag; exit 3")
    with pytest.raises(ClusterError, match=r"it is ready: daemon0 ended with 3; last lines of .*:\nno such flag$"):
        wait_until(lambda: False, "it is ready", dead, seconds=60)


def test_an_answer_that_fails_once_is_no_answer_yet(daemon: Callable[[str], Daemon]) -> None:
    """An API server that is ready may refuse the next request all the same."""
    refusals = iter([CommandFailed("connection refused"), NotInTime("no answer")])

    def ask() -> bool:
        for refusal in refusals:
            raise refusal
        return True

    wait_until(ask, "it answers", daemon("exec sleep 60"), seconds=60)
