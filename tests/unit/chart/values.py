"""What values.yaml and its schema say of each value: where it stands, and whether it may be absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import yaml

from harness.helm import CHART

DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text())
FREE: Final = (
    "podSecurityContext",
    "securityContext",
    "resources.requests",
    "resources.limits",
    "nodeAgent.resources.requests",
    "nodeAgent.resources.limits",
)
"""Maps of Kubernetes' own whose defaults may be taken away one by one."""


def schema(path: str) -> dict[str, Any]:
    """What the schema says of a value."""
    found = SCHEMA
    for name in path.split("."):
        found = found["properties"][name]
        if "$ref" in found:
            found = SCHEMA["definitions"][found["$ref"].rpartition("/")[2]]
    return found


def sections(values: dict[str, Any] | None = None, before: str = "") -> Iterator[str]:
    """Values that consist of others of the chart's own."""
    for name, value in (DEFAULTS if values is None else values).items():
        path = f"{before}{name}"
        if isinstance(value, dict) and value and path not in FREE and not _is_map(path):
            yield path
            yield from sections(value, f"{path}.")


def leaves() -> list[str]:
    """All others."""
    found: list[str] = []

    def walk(values: dict[str, Any], before: str) -> None:
        for name, value in values.items():
            path = f"{before}{name}"
            if path in every_section:
                walk(value, f"{path}.")
            else:
                found.append(path)

    every_section = set(sections())
    walk(DEFAULTS, "")
    return found


def _is_map(path: str) -> bool:
    """Keys are the user's."""
    return "patternProperties" in schema(path) or "properties" not in schema(path)
