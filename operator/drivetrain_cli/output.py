"""How is an object printed for programs? `-o json`, `-o yaml`, as kubectl does."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

import yaml

FORMATS: Final = ("json", "yaml")


def add_argument(parser: argparse.ArgumentParser, *more: str) -> None:
    """-o, with other choices before json and yaml."""
    parser.add_argument("-o", "--output", choices=(*more, *FORMATS), help="default: for people")


def dumped(found: Any, output: str) -> str:
    """Text without a line end."""
    if output == "json":
        return json.dumps(found, indent=2)
    return yaml.safe_dump(found, sort_keys=False).rstrip("\n")


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """What kubectl prints several objects as."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
