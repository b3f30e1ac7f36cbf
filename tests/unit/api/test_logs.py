"""One line for one record, whatever those who name jobs and raise errors write; the same names in every component."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from drivetrain_api import logline
from drivetrain_api.logline import LogFormat
from drivetrain_api.logs import Formatter, LogSettings, LogSettingsError, environment, from_environment

CREATED = 1_767_225_600.25
ABOUT = {"namespace": "team", "job": "lm", "pod": "lm-0-0"}
NASTY = [
    "a\n2026-01-01T00:00:00.000Z info    operator: job gone",
    "a\r\x1b[2K\x1b]0;owned\x07",
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "\u202egnol",
    'a" job=other b="',
    "a\\",
    "a\udcff",
    "",
]


def line(message: str = "pod created", *, as_json: bool, short: bool = False, raised: str = "", **extra: object) -> str:
    given = {"name": "x", "levelno": 20, "levelname": "INFO", "msg": message, "created": CREATED}
    if raised:
        try:
            raise RuntimeError(raised)
        except RuntimeError:
            given["exc_info"] = sys.exc_info()
    return Formatter("operator", ABOUT, json=as_json, short=short).format(logging.makeLogRecord(given | extra))


@pytest.mark.parametrize(
    ("name", "fields", "short", "expect"),
    [
        ("fields", {"job": "a"}, False, "2026-01-01T00:00:00.250Z info    operator: pod created  job=a"),
        ("none", {}, False, "2026-01-01T00:00:00.250Z info    operator: pod created"),
        ("short", {"job": "a", "step": 3}, True, "operator: pod created  job=a step=3"),
        ("words", {"error": "a b", "seconds": 0.5}, True, 'operator: pod created  error="a b" seconds=0.5'),
        ("of kopf", {"k8s_ref": {}, "k8s_skip": True}, True, "operator: pod created"),
    ],
)
def test_text(name: str, fields: Mapping[str, object], short: bool, expect: str) -> None:
    assert line(as_json=False, short=short, **dict[str, Any](fields)) == expect


@pytest.mark.parametrize("text", NASTY)
def test_a_value_neither_ends_its_line_nor_begins_another_field(text: str) -> None:
    made = line(as_json=False, job=text, step=1)
    assert made.isprintable()
    head, _, value = made.removesuffix(" step=1").partition("  job=")
    assert head.endswith("operator: pod created")
    assert value == text or (value[0], value[-1]) == ('"', '"')
    # Read back as a quoted value is read, it is what was given, and it ends where the line does.
    assert value.startswith('"') is False or len(value[1:-1].replace("\\\\", "").replace('\\"', "").split('"')) == 1


@pytest.mark.parametrize("text", NASTY)
def test_a_message_stays_on_its_line(text: str) -> None:
    assert line(text, as_json=False).isprintable()


@pytest.mark.parametrize("text", NASTY)
def test_json_holds_whatever_is_written_and_is_one_ascii_line(text: str) -> None:
    made = line(text, as_json=True, raised=text or "x", detail=text)
    assert made.isascii()
    assert "\n" not in made
    fields = json.loads(made)
    assert (fields["message"], fields["detail"], fields["job"]) == (text, text, "lm")
    assert text in fields["exception"]


def test_a_traceback_is_readable_and_cannot_be_taken_for_lines_of_the_log() -> None:
    first, *below = line("pass failed", as_json=False, raised="no\n2026-01-01T00:00:00.000Z info    x").split("\n")
    assert first.endswith("operator: pass failed")
    assert below[0] == "    | Traceback (most recent call last):"
    assert below[-2:] == ["    | RuntimeError: no", "    | 2026-01-01T00:00:00.000Z info    x"]
    assert all(each.startswith("    | ") for each in below)


def test_json_has_the_common_names_first_and_the_records_own_win() -> None:
    fields = json.loads(line(as_json=True, pod="lm-3-1", rank=3, level="x", ratio=float("nan"), of=("a", 1)))
    assert list(fields)[:6] == ["time", "level", "component", "message", "namespace", "job"]
    assert (fields["time"], fields["level"], fields["component"]) == ("2026-01-01T00:00:00.250Z", "info", "operator")
    assert (fields["pod"], fields["rank"], fields["ratio"], fields["of"]) == ("lm-3-1", 3, "nan", ["a", 1])


def test_a_value_has_a_bound() -> None:
    made = line("x" * 1_000_000, as_json=True)
    assert len(made) < 2 * logline.LINE_LIMIT
    assert "(1000000 characters)" in made


@pytest.mark.parametrize(
    ("text", "expect"),
    [
        (line(as_json=True), "pod created"),
        (line("the launcher ended", as_json=True, raised="no\nroom"), "the launcher ended: room"),
        ("    | ValueError: no", "ValueError: no"),
        ("a script's own", "a script's own"),
        ('{"time": "now"}', '{"time": "now"}'),
        ('{"time": "' + "[" * 100_000, '{"time": "' + "[" * 100_000),
    ],
    ids=["json", "json with an exception", "the end of a traceback", "another's", "another's json", "deep"],
)
def test_what_a_line_says(text: str, expect: str) -> None:
    assert logline.message(text) == expect


def test_the_environment_is_read_as_it_is_made() -> None:
    chosen = LogSettings(LogFormat.JSON, "debug")
    assert from_environment(environment(chosen), LogSettings()) == chosen
    assert from_environment({}, chosen) == chosen
    assert from_environment({"DRIVETRAIN_LOG_LEVEL": ""}, chosen) == chosen


@pytest.mark.parametrize(("variable", "value"), [("DRIVETRAIN_LOG_FORMAT", "xml"), ("DRIVETRAIN_LOG_LEVEL", "INFO")])
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(LogSettingsError, match=f"{variable} must be one of .*, not '{value}'"):
        from_environment({variable: value}, LogSettings())


PROCESS = """
import logging, threading
from drivetrain_api.logline import LogFormat
from drivetrain_api.logs import LogSettings, configure
configure("operator", LogSettings(LogFormat("{format}"), "warning"), {{"job": "lm"}})
for name in ("ours", "kopf", "kopf.objects", "aiohttp.access"):
    logging.getLogger(name).info("routine")
logging.getLogger("kopf").warning("heard", extra={{"k8s_ref": {{"name": "x"}}}})
def fail(): raise ValueError("of a thread\\nforged")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise ValueError("of the process\\nforged")
"""


def logged(form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(format=form)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_all_that_a_process_says_is_json_also_how_it_ends(form: str) -> None:
    lines = [json.loads(each) for each in logged(form)]
    assert [(each["level"], each["message"], each["job"]) for each in lines] == [
        ("warning", "heard", "lm"),
        ("critical", "ended by a defect", "lm"),
        ("critical", "ended by a defect", "lm"),
    ]
    assert [each["exception"].splitlines()[-2:] for each in lines[1:]] == [
        ["ValueError: of a thread", "forged"],
        ["ValueError: of the process", "forged"],
    ]


def test_in_text_each_line_is_the_logs_own_or_indented() -> None:
    lines = [each for each in logged("text") if not each.startswith("    | ")]
    assert [each.split(" ", 1)[1] for each in lines] == [
        "warning operator: heard",
        'critical operator: ended by a defect  of_thread="Thread-1 (fail)"',
        "critical operator: ended by a defect",
    ]
