"""Does text that others wrote reach a terminal as text only?"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from drivetrain_cli import doctor, main
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.life.events import _row
from drivetrain_cli.life.page import page
from drivetrain_cli.printable import printable, printable_lines
from drivetrain_cli.reasons import explain, failures, state
from drivetrain_cli.results.fetch import chosen
from drivetrain_cli.results.source import Entry
from drivetrain_cli.table import aligned

Json = dict[str, Any]
NOW: Final = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
EVIL: Final = "\x1b]0;owned\x07"
META: Final[Json] = {"name": "lm", "namespace": "team", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
STATUS: Final[Json] = {
    "phase": "Waiting",
    "reason": "Unschedulable",
    "message": f"no node {EVIL}",
    "conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": f"it {EVIL}"}],
    "failures": [{"reason": "ScriptError", "pod": "lm-1-0", "exitCode": 1, "logTail": f"a\tb\n{EVIL}"}],
}
JOB: Final[Json] = {"metadata": META, "spec": {"workers": 2}, "status": STATUS}
EVENT: Final[Json] = {
    "type": "Warning",
    "reason": "Failed",
    "message": f"pull {EVIL}",
    "lastTimestamp": "2026-01-01T00:09:00Z",
}


def test_lines_stay_lines() -> None:
    assert printable("a\x1b[2Jb\n\udcff") == "a?[2Jb??"
    assert printable_lines("a\tb\n\x1b\r\x9b") == "a\tb\n???"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state", state(JOB)),
        ("failures", "\n".join(failures(JOB))),
        ("why", "\n".join(explain(JOB, [], [EVENT], None, NOW))),
        ("page", "\n".join(page(JOB, [], NOW))),
        ("events", "   ".join(_row(EVENT, NOW))),
        ("table", aligned([["NAME"], [EVIL]])),
    ],
)
def test_what_is_told_of_a_job_does_nothing_to_a_terminal(name: str, text: str) -> None:
    assert "?]0;owned?" in text
    assert text == printable_lines(text)


def test_names_that_are_near_do_nothing_to_a_terminal() -> None:
    with pytest.raises(UsageError) as raised:
        chosen([Entry(f"model{EVIL}", 1, 0.0)], "model", Path(), job="lm", into=False)
    assert str(raised.value).endswith("model?]0;owned?")


def test_an_error_does_nothing_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise CliError(f"a{EVIL}\nb")

    monkeypatch.setattr(doctor, "run", run)
    assert main.main(["doctor"]) == 1
    assert capsys.readouterr().err == "drivetrain: a?]0;owned?\nb\n"
