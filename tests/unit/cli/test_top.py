"""Does `drivetrain top` fit its window, and is the terminal as it was when it ends?"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from drivetrain_cli.main import main
from drivetrain_cli.top.screen import plain, screen, table
from harness.commands import ended
from harness.job import ROOT
from harness.patience import Patience
from harness.served import Served, served
from unit.api.cases import job as a_spec

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 1, 0, tzinfo=UTC)
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def a_job(name: str, phase: str | None = "Running", **status: Any) -> Json:
    meta = {"name": name, "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"}
    known = {
        "phase": phase,
        "workers": {"summary": "2/3"},
        "progress": {"step": 70, "summary": "7%", "samplesPerSecond": 1234.5, "loss": 0.25, "eta": "1h2m"},
        "goodput": {"summary": "93.1%"},
        "recoveries": 4,
        **status,
    }
    return {"metadata": meta, "spec": {"workers": 3}, **({"status": known} if phase else {})}


def test_a_row_has_what_matters() -> None:
    lines = plain(table([a_job("lm", message="one is late", reason="Late")], NOW, namespaces=True))
    assert [line.split() for line in lines] == [
        [
            "NAMESPACE",
            "NAME",
            "PHASE",
            "WORKERS",
            "STEP",
            "DONE",
            "SAMPLES/S",
            "LOSS",
            "ETA",
            "GOODPUT",
            "LOSSES",
            "AGE",
            "WHY",
        ],
        [
            "team",
            "lm",
            "Running",
            "2/3",
            "70",
            "7%",
            "1234",
            "0.25",
            "1h2m",
            "93.1%",
            "4",
            "60m",
            "Late:",
            "one",
            "is",
            "late",
        ],
    ]


def test_what_goes_on_comes_first() -> None:
    phases = ["Succeeded", "Failed", "Suspended", None, "Pending", "Waiting", "Running"]
    rows = table([a_job(f"j{n}", phase) for n, phase in enumerate(phases)], NOW, namespaces=False)
    assert [row[1] for row in rows[1:]] == ["Running", "Waiting", "Pending", "New", "Suspended", "Failed", "Succeeded"]


def test_of_a_job_that_is_over_no_pace_is_told() -> None:
    (_, row) = table([a_job("lm", "Succeeded")], NOW, namespaces=False)
    assert row[5] == row[7] == "-"


@pytest.mark.parametrize(("columns", "lines"), [(200, 50), (80, 24), (20, 6), (1, 1), (0, 0)])
@pytest.mark.parametrize("colour", [True, False])
def test_it_fits_its_window(columns: int, lines: int, colour: bool) -> None:
    rows = table([a_job(f"job-{n}", message="x" * 300, reason="Late") for n in range(40)], NOW, namespaces=True)
    found = screen(rows, "40 jobs", columns, lines, colour=colour, note="not reached")
    assert len(found) <= lines
    assert all(len(re.sub(r"\x1b\[\d*m", "", line)) <= max(1, columns) for line in found)
    assert colour or not any("\x1b" in line for line in found)
    if lines == 24:
        assert re.match(r"… and \d+ more", found[-1])


def test_no_name_steers_the_terminal() -> None:
    bad = "\x1b]0;owned\x07\r\n"
    rows = table([a_job(f"lm{bad}", message=bad, reason=bad)], NOW, namespaces=False)
    for line in (*plain(rows), *screen(rows, bad, 300, 20, colour=False, note=bad)):
        assert line.isprintable()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        running.put({**a_spec("lm"), "status": {"phase": "Running", "recoveries": 3}})
        yield running


@pytest.mark.parametrize("flags", [["--once"], []])
def test_without_a_terminal_it_prints_once(api: Served, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert main(["top", "--kubeconfig", str(api.kubeconfig), *flags]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^lm +Running", told, re.MULTILINE)
    assert "\x1b" not in told


@pytest.mark.parametrize("seconds", ["0", "nan", "1e9", "-1"])
def test_a_pace_that_cannot_be_is_named(api: Served, capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert main(["top", "--interval", seconds, "--kubeconfig", str(api.kubeconfig)]) == 2
    assert "--interval" in capsys.readouterr().err


class Window:
    """A terminal with the command in it."""

    def __init__(self, kubeconfig: Path, size: tuple[int, int] = (120, 30), **env: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.theirs)
        argv = [sys.executable, "-m", "drivetrain_cli", "top", "--interval", "0.5", "--kubeconfig", str(kubeconfig)]
        known = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            argv,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**known, "TERM": "xterm", "PYTHONPATH": str(ROOT / "operator"), **env},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C and sizes reach it
        )
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, what: bytes) -> None:
        """It has written this since the last time."""
        patience = Patience(20)
        while what not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], 0.1)
            if ready:
                self.seen += os.read(self.ours, 65536)
            patience.check(f"{what!r} in {self.seen!r}")
        self.seen = self.seen.partition(what)[2]

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize(
    ("name", "how", "code"), [("q", b"q", 0), ("Ctrl-C", b"\x03", 130), ("SIGTERM", signal.SIGTERM, 130)]
)
def test_the_terminal_is_given_back(api: Served, name: str, how: bytes | signal.Signals, code: int) -> None:
    window = Window(api.kubeconfig)
    try:
        window.until(ENTER)
        window.until(b"Running")
        if isinstance(how, bytes):
            window.press(how)
        else:
            window.process.send_signal(how)
        window.until(LEAVE)
        assert ended(window.process, 10) == code
        assert termios.tcgetattr(window.theirs) == window.before
    finally:
        window.close()


def test_it_follows_jobs_and_sizes_and_says_when_it_cannot(api: Served) -> None:
    window = Window(api.kubeconfig, NO_COLOR="1", COLUMNS="200", LINES="50")
    try:
        window.until(b"GOODPUT")
        assert b"\x1b[32m" not in window.seen
        window.resize(12, 30)
        window.until("NAME  PHASE…".encode())
        window.resize(120, 30)
        api.say("lm", {"phase": "Suspended"})
        window.until(b"Suspended")
        window.press(b"q")
        assert ended(window.process, 10) == 0
    finally:
        window.close()


def test_a_terminal_that_does_not_say_how_large_it_is(api: Served) -> None:
    window = Window(api.kubeconfig, size=(0, 0))
    try:
        window.until(b"Running")
        window.press(b"q")
        assert ended(window.process, 10) == 0
    finally:
        window.close()
