"""The rank's end of the link against a bare socket."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drivetrain.launch import rank_link, stacks
from drivetrain.launch.rank_link import RankLink
from drivetrain_api.messages import (
    Boundary,
    EpochId,
    Form,
    ProcessPhase,
    Progress,
)
from harness.activity import Stillness
from harness.commands import ended


class Launcher:
    """The other end."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(60.0)
        self._rest = b""

    def send(self, **message: object) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def until(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """Read until a message of this kind with these fields; returns all that came."""
        found: list[dict[str, Any]] = []
        while True:
            *lines, self._rest = (self._rest + self.socket.recv(1 << 20)).split(b"\n")
            found += [json.loads(line) for line in lines]
            for message in found:
                if message["type"] == kind and all(message.get(name) == value for name, value in fields.items()):
                    return found


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    end = Launcher()
    yield end
    end.socket.close()


@pytest.fixture
def link(launcher: Launcher) -> Iterator[RankLink]:
    link = RankLink(launcher.theirs.detach(), process="pod/boot/1", spare_level="import")
    yield link
    link.close()


def test_hello_state_and_beats(launcher: Launcher, link: RankLink) -> None:
    link.send_phase(ProcessPhase.MEMBER, epoch=EpochId(2, 3), formed=True, has_state=True, step=7)
    messages = launcher.until("phase", phase="member", epoch=[2, 3], formed=True, has_state=True, step=7)
    assert (messages[0]["type"], messages[0]["pid"]) == ("hello", os.getpid())
    still = Stillness()
    launcher.until("beat")
    launcher.until("beat")
    assert still.seconds() < 5.0


def test_waiting_is_told_with_a_beat(launcher: Launcher, link: RankLink) -> None:
    link.send_phase(ProcessPhase.MEMBER, step=1)
    link.set_waiting(True)
    launcher.until("phase", step=1, waiting=True)
    link.set_waiting(False)
    launcher.until("phase", step=1, waiting=False)


def test_where_the_script_is_is_told_with_a_beat_if_it_stays_so(launcher: Launcher, link: RankLink) -> None:
    for step in range(1000):
        link.at("step", step, "train.py:24")
        link.at("script", step, "train.py:24")
    link.at("save", 999, "train.py:31")
    link.set_waiting(True)  # else its line says more
    messages = launcher.until("place", operation="save")
    (place,) = [message for message in messages if message["type"] == "place" and message["operation"] == "save"]
    assert (place["step"], place["line"], place["number"]) == (999, "train.py:31", 2001)
    assert 0 <= place["seconds"] < 2
    assert len([message for message in messages if message["type"] == "place"]) <= 3
    launcher.until("beat")
    later = launcher.until("beat")
    assert [message["type"] for message in later if message["type"] == "place"] == []


PLACES = [
    ("script", "train.py:24", lambda line: line),  # it has gone on since
    ("", "", lambda line: line),  # nothing was ever said
    ("step", "train.py:24", lambda line: f"train.py:24, at {line}"),  # in what the script gave to run.step
]


def test_progress_that_is_not_due_is_told_if_it_stays_the_newest(launcher: Launcher, link: RankLink) -> None:
    """Else a job that stands still would seem to be where the last one that was due was."""
    link.progress(Progress(step=1), due=True)
    for step in range(2, 6):
        link.progress(Progress(step=step, metrics={"seen": float("inf"), "right": 0.5}), due=False)
    told = [each for each in launcher.until("progress", step=5) if each["type"] == "progress"]
    assert [each["step"] for each in told] == [1, 5]
    assert told[1]["metrics"] == {"right": 0.5}
    link.progress(Progress(step=6), due=True)
    launcher.until("progress", step=6)
    beats = [each for _ in range(3) for each in launcher.until("beat")]
    assert not [each for each in beats if each["type"] == "progress"], "each is told once"


def test_another_membership_forgets_progress_that_was_not_told(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(step: int, form: int) -> list[int]:
        """What a link tells of progress after such a form and two beats."""
        formed.clear()
        link.progress(Progress(step=step), due=False)
        launcher.send(type="form", epoch=[1, form], boundary="now", reason="", members=[])
        assert formed.wait(60)
        link._beat()
        link._beat()
        link.error(f"after step {step}")
        said = launcher.until("error", traceback=f"after step {step}")
        return [each["step"] for each in said if each["type"] == "progress"]

    monkeypatch.setattr(rank_link, "BEAT_SECONDS", 3600.0)
    formed = threading.Event()
    with contextlib.closing(RankLink(launcher.theirs.detach())) as link:
        link.on_form(lambda form: formed.set())
        assert told(1, form=2) == []
        assert told(2, form=2) == [2], "it was only repeated"
        assert told(3, form=3) == []


@pytest.mark.parametrize(("operation", "line", "expected"), PLACES, ids=["between", "unknown", "inside"])
def test_a_rank_that_stays_tells_the_line_of_its_thread(
    launcher: Launcher, link: RankLink, operation: str, line: str, expected: Callable[[str], str]
) -> None:
    if operation:
        link.at(operation, 3, line)
    source, first = inspect.getsourcelines(Launcher.until)
    reads = first + next(number for number, text in enumerate(source) if "recv" in text)
    launcher.until("place", line=expected(f"test_rank_link.py:{reads} in Launcher.until"))


def test_stacks_of_all_threads_end_with_the_scripts(launcher: Launcher, link: RankLink) -> None:
    def other() -> None:
        done.wait()

    done = threading.Event()
    thread = threading.Thread(target=other, name="reads-ahead", daemon=True)
    thread.start()
    link.at("step", 3, "train.py:24")
    launcher.send(type="stacks")
    (message,) = [found for found in launcher.until("stacks") if found["type"] == "stacks"]
    done.set()
    others, _, script = message["text"].partition("which runs the script:")
    assert "Thread reads-ahead" in others
    assert "done.wait()" in others
    assert "test_stacks_of_all_threads_end_with_the_scripts" in script
    assert "drivetrain-link" not in message["text"]
    assert len(script) <= stacks.SCRIPT_CHARS
    *_, last = stacks.shortened(message["text"]).rpartition("which runs the script:")
    assert len(last) <= stacks.LAST_CHARS + 1
    assert last.splitlines()[-1] == script.splitlines()[-1]


def test_messages_before_their_callback_are_kept(launcher: Launcher, link: RankLink) -> None:
    form = Form(epoch=EpochId(1, 1), members=[], boundary=Boundary.NOW)
    launcher.socket.sendall(form.model_dump_json().encode() + b"\n")
    launcher.send(type="table", epoch=[1, 1], entries={"key": "dmFsdWU="})
    launcher.send(type="activate")
    assert link.wait_activated(60.0)  # So the others, which came before it, have arrived.
    forms: list[Form] = []
    tables: list[tuple[EpochId, dict[str, bytes]]] = []
    done = threading.Event()

    def on_table(epoch: EpochId, entries: dict[str, bytes]) -> None:
        tables.append((epoch, entries))
        done.set()

    link.on_form(forms.append)
    link.on_table(on_table)
    assert done.wait(60.0)
    assert forms == [form]
    assert tables == [(EpochId(1, 1), {"key": b"value"})]


def test_a_spare_of_level_import_waits_to_be_activated(
    launcher: Launcher, link: RankLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert link.is_spare
    assert not link.wait_activated(0.05)
    monkeypatch.setenv("LOCAL_RANK", "")  # so that it is taken back: delenv of what is not there is not
    launcher.send(type="activate", local_rank=3)
    assert link.wait_activated(60.0)
    assert os.environ["LOCAL_RANK"] == "3"


def test_a_launcher_that_does_not_read_costs_the_rank_no_time_and_gets_the_newest_state(
    launcher: Launcher, link: RankLink
) -> None:
    still = Stillness()
    for step in range(20_000):
        link.send_phase(ProcessPhase.MEMBER, epoch=EpochId(1, 1), step=step)
    link.put(EpochId(1, 1), "key", b"value")
    assert still.seconds() < 1.0, "it has waited for its launcher"
    messages = launcher.until("put", key="key")
    steps = [message["step"] for message in messages if message["type"] == "phase"]
    assert steps[-1] == 19_999
    assert steps == sorted(steps)
    assert len(steps) < 20_000


RANK = """
import os, sys, time
from drivetrain.launch.rank_link import RankLink
link = RankLink.from_environment()
assert RankLink.from_environment() is None and "DRIVETRAIN_LINK_FD" not in os.environ
{}
print("ready", flush=True)
time.sleep(30)
"""


def start_rank(launcher: Launcher, code: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DRIVETRAIN_LINK_FD": str(launcher.theirs.fileno()),
    }
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK.format(code)],
        env=environment,
        pass_fds=[launcher.theirs.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    launcher.theirs.close()
    return rank


def test_a_rank_ends_when_its_launcher_closes_the_link(launcher: Launcher) -> None:
    with start_rank(launcher, "") as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
        launcher.socket.close()
        assert ended(rank, 5.0) == 70


def test_a_callback_that_raises_ends_the_rank_with_its_traceback_told(launcher: Launcher) -> None:
    with start_rank(launcher, "link.on_finish(lambda: 1 / 0)") as rank:
        launcher.send(type="finish")
        messages = launcher.until("error")
        assert "ZeroDivisionError" in messages[-1]["traceback"]
        assert ended(rank, 5.0) == 70


def test_forked_children_do_not_hold_the_link(launcher: Launcher) -> None:
    with start_rank(launcher, "os.fork() or (time.sleep(3), os._exit(0))") as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
        rank.kill()
        still = Stillness()
        while launcher.socket.recv(1 << 16):
            pass
        assert still.seconds() < 2.0


def test_without_a_launcher_there_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIVETRAIN_LINK_FD", raising=False)
    assert RankLink.from_environment() is None
