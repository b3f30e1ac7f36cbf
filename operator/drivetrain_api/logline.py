"""PURE: one line of a log, made and read. Operator, coordinator, launcher, ranks and command-line tools write the same.

A line is text for a person, or a JSON object for whatever collects lines. Names that several of them use: `time` (RFC
3339, UTC), `level`, `component`, `message`, and of what the line is about `namespace`, `job`, `uid`, `attempt`, `pod`,
`rank`, `step`. Jobs, messages and exceptions are named by whoever can write them, so nothing of a value may end a line,
begin another field, or be obeyed by a terminal.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from drivetrain_api import constants
from drivetrain_api.older_python import UTC, StrEnum

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
SETTABLE: Final = LEVELS[:-1]
LINE_LIMIT: Final = 64 << 10
"""Characters of a value that are written: collectors cut, or drop, what is much longer."""
SEPARATOR: Final = "\x1e"
"""Before a JSON line that a rank sends through its launcher, which takes it off (as in RFC 7464): so the launcher knows
its own people's lines from what scripts print."""

_OF_POD: Final = {
    "namespace": constants.ENV_NAMESPACE,
    "job": constants.ENV_JOB,
    "uid": constants.ENV_JOB_UID,
    "pod": constants.ENV_POD_NAME,
}
_LABELS: Final = {"rank": "drivetrain", "cli": "drivetrain"}
"""What text calls a component, where it is not its own name."""
_FIRST: Final = ("time", "level", "component", "message", "namespace", "job", "uid", "attempt", "pod", "rank", "step")
_BELOW: Final = "    | "
_PLAIN: Final = re.compile(r"""[^\s"=\\]+""")


class LogFormat(StrEnum):
    """How lines look. `auto` is `text` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


def stamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, UTC, with milliseconds."""
    return dt.datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_pod(env: Mapping[str, str]) -> dict[str, object]:
    """What the operator has told a pod of itself, by the names of a line."""
    found: dict[str, object] = {name: env[variable] for name, variable in _OF_POD.items() if variable in env}
    attempt = env.get(constants.ENV_ATTEMPT, "")
    return found | ({"attempt": int(attempt)} if attempt.isdecimal() and len(attempt) < 16 else {})


def escaped(text: str) -> str:
    """Of one line, that does nothing to a terminal: what cannot be printed is written as Python writes it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(fields: Mapping[str, object]) -> str:
    """One object in ASCII, the common names first."""
    ordered = {name: fields[name] for name in _FIRST if name in fields} | dict(fields)
    return json.dumps({name: _bounded(value) for name, value in ordered.items()}, default=str, allow_nan=False)


def as_text(fields: Mapping[str, object], *, short: bool) -> str:
    """`TIME LEVEL COMPONENT: MESSAGE  name=value …`, and each line of an exception below it, indented. `short` is
    without time and level, for lines amid those of a script, which have their time from elsewhere."""
    component = str(fields.get("component", ""))
    label = escaped(_LABELS.get(component, component))
    begin = f"{label}: " if short else f"{fields['time']} {fields['level']:<7} {label}: "
    left_out = {"time", "level", "component", "message", "logger", "exception"}
    rest = [f"{escaped(name)}={_value(value)}" for name, value in fields.items() if name not in left_out]
    line = f"{begin}{escaped(str(_bounded(fields['message'])))}{'  ' if rest else ''}{' '.join(rest)}"
    below = str(_bounded(fields.get("exception", ""))).rstrip("\n")
    return "\n".join([line, *(f"{_BELOW}{escaped(each)}" for each in below.split("\n"))]) if below else line


def read(line: str) -> dict[str, Any] | None:
    """The fields of a JSON line of ours; None for any other line."""
    if not line.startswith('{"time": "'):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not {"level", "component", "message"} <= fields.keys():
        return None
    return fields


def message(line: str) -> str:
    """What a line says, whoever wrote it and in whatever format; of an exception, what it says itself."""
    fields = read(line)
    if fields is None:
        return line.removeprefix(_BELOW)
    said = str(fields.get("exception", "")).rstrip().rpartition("\n")[2]
    return f"{fields['message']}: {said}" if said else str(fields["message"])


def _value(value: object) -> str:
    text = str(_bounded(value))
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _bounded(value: object) -> object:
    """As it is, or as text where JSON has no such value, or where it is too long for a line."""
    if isinstance(value, StrEnum):
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in value]
    text = str(value)
    return text if len(text) <= LINE_LIMIT else f"{text[:LINE_LIMIT]}… ({len(text)} characters)"
