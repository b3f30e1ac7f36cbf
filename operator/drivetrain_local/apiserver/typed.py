"""What does an object gain on its way through Go's types? Zero values where a field may not be missing, and one form of
time. Typed clients count on both: the official Python client refuses a whole list for one node without a bootID.

`required.json` holds the plain fields (text, numbers, booleans) that Kubernetes' own OpenAPI document requires, by
definition. To make it again:

    python -m drivetrain_local.apiserver.typed api/openapi-spec/swagger.json > required.json
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any, Final

from drivetrain_local.apiserver.fields import WrongType
from drivetrain_local.objects import Obj, parse_time, rfc3339, rfc3339_micro

_ZEROS: Final[dict[str, Any]] = {"string": "", "integer": 0, "boolean": False, "quantity": "0"}
_TIMES: Final = ("creationTimestamp", "deletionTimestamp", "startTime", "startedAt", "finishedAt", "firstTimestamp",
                 "lastTimestamp", "lastProbeTime", "lastTransitionTime", "lastHeartbeatTime", "timeAdded")  # fmt: skip
_MICRO_TIMES: Final = ("eventTime", "renewTime", "acquireTime", "lastObservedTime")


def complete(kind: str, obj: Obj) -> None:
    """Do it, in place, to a decoded object of a built-in kind. Raises WrongType for what is no time."""
    _filled(obj, kind)
    _completed_metadata(obj)


def complete_metadata(obj: Obj) -> None:
    """The same for the metadata of any kind."""
    _completed_metadata(obj)
    _filled(obj["metadata"], "ObjectMeta")


def _completed_metadata(obj: Obj) -> None:
    if obj.get("metadata") is None:
        obj["metadata"] = {}


def _filled(value: Any, kind: str) -> Any:
    """The value with zeros where Go has them: in a list or a map, a null is one, too."""
    if kind.startswith("[]") and isinstance(value, list):
        value[:] = [_filled(_zero(kind[2:]) if item is None else item, kind[2:]) for item in value]
    elif kind.startswith("{}") and isinstance(value, dict):
        for name, item in value.items():
            value[name] = _filled(_zero(kind[2:]) if item is None else item, kind[2:])
    elif kind == "schema-or-bool":
        _filled(value, "JSONSchemaProps")
    elif (definition := _table("fields").get(kind)) is not None and isinstance(value, dict):
        for name in _table("required").get(kind, ()):
            value.setdefault(name, _ZEROS[definition[name]])
        for name, inner in value.items():
            if name in _TIMES or name in _MICRO_TIMES:
                value[name] = _time(inner, f"{kind}.{name}", micro=name in _MICRO_TIMES)
            elif inner is not None:
                _filled(inner, definition[name])
    return value


def _zero(kind: str) -> Any:
    return {} if kind in _table("fields") else _ZEROS.get(kind)


def _time(value: Any, field: str, *, micro: bool) -> Any:
    if not isinstance(value, str):
        return value
    try:
        moment = parse_time(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return rfc3339_micro(moment) if micro else rfc3339(moment)
    except (ValueError, OverflowError) as error:
        layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
        raise WrongType(f'{field}: parsing time "{value}" as "{layout}": cannot parse') from error


@functools.cache
def _table(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name(f"{name}.json").read_text())
    return loaded


def _extract(swagger: Obj) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for full in sorted(swagger["definitions"], key=lambda name: not name.startswith("io.k8s.api.core.")):
        short = full.rpartition(".")[2]
        known = _table("fields").get(short, {})
        wanted = [
            name
            for name in swagger["definitions"][full].get("required", ())
            if known.get(name) in ("string", "integer", "boolean") and name not in (*_TIMES, *_MICRO_TIMES)
        ]
        # Two kinds of one name share an entry: required is what both require.
        found[short] = [name for name in found.get(short, wanted) if name in wanted]
    return {short: wanted for short, wanted in sorted(found.items()) if wanted}


if __name__ == "__main__":
    json.dump(_extract(json.loads(Path(sys.argv[1]).read_text())), sys.stdout, indent=1)
    print()
