"""How does a call of `submit` become what `drivetrain run` makes a job of? By its own flags, and its own reading."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from drivetrain_cli import run
from drivetrain_cli.errors import UsageError
from drivetrain_cli.pack import Code, Wish
from drivetrain_cli.pack.sources import read_text
from drivetrain_client.function import folder_of, script_of

Json = dict[str, Any]


class _Flags(argparse.ArgumentParser):
    """Raises, where a program would end."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def wish_of(
    program: str | Path | Callable[..., object],
    arguments: Sequence[str] | Mapping[str, Any],
    *,
    options: Mapping[str, object],
    flags: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
    env: Mapping[str, str],
) -> Wish:
    """Raises UsageError that names the flag of `drivetrain run`, or what cannot be sent."""
    code, name, words = _program(program, arguments)
    parser = _Flags(prog="submit", add_help=False, allow_abbrev=False)
    run.add_arguments(parser)
    given = [f"{flag}={value}" for flag, value in options.items() if value is not None]
    given += [f"--env={key}={value}" for key, value in env.items()]
    parsed = parser.parse_args([*given, *flags, name])
    if parsed.dry_run:
        raise UsageError("flags: --dry-run is the command line's: submit creates the job")
    parsed.arguments = list(words)
    wish = run.wished(parsed, code)
    return wish if training is None else dataclasses.replace(wish, training=_merged(wish.training, training))


def _program(
    program: str | Path | Callable[..., object], arguments: Sequence[str] | Mapping[str, Any]
) -> tuple[Code | None, str, Sequence[str]]:
    """(code, unless it is read from disk; its name; arguments of a script)"""
    if isinstance(program, str | Path):
        if isinstance(arguments, Mapping | str):
            raise UsageError("arguments: of a script they are a list of words, as on its command line")
        return None, str(program), [str(each) for each in arguments]
    if not callable(program):
        raise UsageError(f"program: {program!r} is neither a path nor a function")
    if not isinstance(arguments, Mapping) and len(arguments):
        raise UsageError("arguments: of a function they are a dict, by its parameters' names")
    text = script_of(program, arguments if isinstance(arguments, Mapping) else {})
    file = f"{getattr(program, '__name__', 'train')}.py"
    return read_text(file, text, folder_of(program)), file, ()


def _merged(flags: Mapping[str, Any], given: Mapping[str, Any]) -> Json:
    """spec.training of both; what `training` says wins."""
    found: Json = dict(flags)
    for key, value in given.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found
