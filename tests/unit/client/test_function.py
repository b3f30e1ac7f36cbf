"""Which functions become scripts, and what is said of those that cannot?

Each script is run, in a fresh interpreter, so that what it needs is there or is missing.
"""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from drivetrain_cli.errors import UsageError
from drivetrain_client.function import script_of

WIDTH = 3
NAMES = ("a", "b")
NEVER = math.inf
OPEN = sys.stdout
MODEL = object()


def alone() -> None:
    print("alone")


def with_arguments(rate: float = 0.5, *, names: Any = None, limit: float = NEVER) -> None:
    print(rate, names, limit)


def with_modules(size: int) -> None:
    print(json.dumps({"sqrt": math.sqrt(size), "kind": OrderedDict.__name__, "inner": [WIDTH for _ in range(2)]}))


def doubled(value: int) -> int:
    return 2 * value if value < WIDTH else doubled(value - 1)


@dataclass
class Point:
    x: int = WIDTH

    def moved(self) -> Point:
        return Point(doubled(self.x))


def with_own() -> None:
    print(Point().moved(), NAMES)


def with_inner() -> None:
    base = 4

    def inner(value: int) -> int:
        return value + base + WIDTH

    print(sorted([3, 1], key=lambda value: inner(value)))


def ran(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("function", "arguments", "printed"),
    [
        (alone, {}, "alone"),
        (with_arguments, {}, "0.5 None inf"),
        (with_arguments, {"rate": 1e-3, "names": {"a": [1, (2, None)]}}, "0.001 {'a': [1, (2, None)]} inf"),
        (with_modules, {"size": 9}, '{"sqrt": 3.0, "kind": "OrderedDict", "inner": [3, 3]}'),
        (with_own, {}, "Point(x=4) ('a', 'b')"),
        (with_inner, {}, "[1, 3]"),
    ],
)
def test_a_function_runs_elsewhere(function: Callable[..., None], arguments: dict[str, Any], printed: str) -> None:
    assert ran(script_of(function, arguments)) == printed


def test_it_does_not_run_where_it_is_imported(tmp_path: Path) -> None:
    """As processes that read data import the script."""
    (tmp_path / "alone.py").write_text(script_of(alone, {}))
    assert ran(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import alone") == ""


def uses_a_file() -> None:
    print("x", file=OPEN)


def uses_an_object() -> None:
    print(MODEL)


def calls_one_that_does() -> None:
    uses_an_object()


def uses_nothing_known() -> None:
    print(no_such_name)  # type: ignore[name-defined]  # noqa: F821  that is what is tried


def yields() -> Iterator[int]:
    yield 1


async def waits() -> None:
    print("never")


class Trainer:
    def train(self) -> None:
        print("x")


def around() -> Callable[[], None]:
    batch, rate = 3, 0.1

    def train() -> None:
        print(batch, rate)

    return train


@pytest.mark.parametrize(
    ("function", "arguments", "why"),
    [
        (lambda: None, {}, "a lambda cannot be sent"),
        (around(), {}, "train uses batch, rate of the function around it (a closure)"),
        (Trainer().train, {}, "is a bound method"),
        (functools.partial(alone), {}, "is a partial"),
        (print, {}, "is a builtin_function_or_method"),
        (yields, {}, "is a generator or `async`"),
        (waits, {}, "is a generator or `async`"),
        (uses_a_file, {}, "uses_a_file uses OPEN, which is a"),
        (uses_an_object, {}, "uses_an_object uses MODEL, which is an object"),
        (calls_one_that_does, {}, "uses_an_object uses MODEL, which is an object"),
        (uses_nothing_known, {}, "uses no_such_name, which is not defined here"),
        (alone, {"rate": 1}, "arguments: alone: got an unexpected keyword argument 'rate'"),
        (with_modules, {}, "arguments: with_modules: missing a required argument: 'size'"),
        (with_arguments, {"names": MODEL}, "arguments: names is an object"),
        (with_arguments, {"names": "x" * 200_000}, "arguments: names has 200002 characters"),
        (FunctionType(compile("def made(): pass", "", "exec").co_consts[0], {}), {}, "the source of made cannot"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_named(function: Callable[..., Any], arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as error:
        script_of(function, arguments)
    assert why in str(error.value)
