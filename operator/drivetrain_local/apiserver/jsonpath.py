"""What does a JSON path of a CRD (`.status.conditions[?(@.type=="Ready")].status`) find?

The subset that printer columns and scale paths use: fields, quoted fields, indices, `[*]` and equality filters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(\s*@\.(?P<key>[\w.\-/]+)\s*==\s*["'](?P<equals>[^"']*)["']\s*\)\]""",
    re.VERBOSE,
)


def find(obj: Any, path: str) -> list[Any]:
    """All values at the path; an empty list where there is none. Raises ValueError on a path outside the subset."""
    found = [obj]
    for step in _steps(path if path.startswith((".", "[")) else f".{path}"):
        found = [value for item in found for value in _follow(item, step)]
    return found


def is_path(path: str) -> bool:
    """Whether a path is inside the subset, and leads to something."""
    try:
        return path.startswith((".", "[")) and bool(_steps(path))
    except ValueError:
        return False


def put(obj: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path of plain fields, in place, making objects on the way."""
    fields = [step["field"].replace("\\.", ".") for step in _steps(path)]
    for field in fields[:-1]:
        obj = obj.setdefault(field, {})
    obj[fields[-1]] = value


def _steps(path: str) -> list[re.Match[str]]:
    steps, position = [], 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise ValueError(f"JSON path {path!r} is not understood at {path[position:]!r}")
        steps.append(step)
        position = step.end()
    return steps


def _follow(item: Any, step: re.Match[str]) -> Iterator[Any]:
    name = step["field"] or step["quoted"]
    if name is not None:
        name = name.replace("\\.", ".")
        if isinstance(item, dict) and item.get(name) is not None:
            yield item[name]
    elif not isinstance(item, list):
        return
    elif step["all"]:
        yield from item
    elif step["index"] is not None:
        index = int(step["index"])
        if -len(item) <= index < len(item):
            yield item[index]
    else:
        for element in item:
            if any(str(value) == step["equals"] for value in find(element, "." + step["key"])):
                yield element
