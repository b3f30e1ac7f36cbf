"""What may stand at the cursor? Asked by the scripts of `completion`, and by kubectl, with the words so far.

The parser itself says what there is, so that nothing has to be kept in step with it. Names of jobs come from the
cluster, within two seconds or not at all; nothing that goes wrong here is ever shown to who presses a key.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from drivetrain_cli import plane
from drivetrain_cli.cluster import Where, connect

JOBS: Final = ("job", "jobs")
"""Positional arguments of commands that are names of jobs."""
FILES: Final = ":files"
"""In place of candidates: the shell knows them better."""
_SECONDS: Final = 2.0
_FILE_FLAGS: Final = ("--kubeconfig", "--state", "--runtimes")
_FILES: Final = ("files", "program", "arguments")
"""Arguments that are files, or may be."""
_NO_FILE_COMP: Final = 4
_DEFAULT_COMP: Final = 0
"""Directives of cobra, which kubectl understands."""

Candidate = tuple[str, str]
"""(word, what it means)"""


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Prints candidates for the last word, a line each, with a tab before what they mean."""
    for word, text in candidates(parser, words):
        print(f"{word}\t{text}" if text else word)
    return 0


def kubectl() -> int:
    """Entry point of kubectl_complete-drivetrain, which kubectl runs for `kubectl drivetrain …`."""
    from drivetrain_cli.main import make_parser  # that imports this module

    found = candidates(make_parser(), sys.argv[1:] or [""])
    files = (FILES, "") in found
    for word, text in found:
        if word != FILES:
            print(f"{word}\t{text}" if text else word)
    print(f":{_DEFAULT_COMP if files else _NO_FILE_COMP}")
    return 0


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[Candidate]:
    """What the last word may become. `words` begin after the program's name."""
    *before, last = words or [""]
    given: dict[str, str] = {}
    position, waits = 0, None  # positional arguments so far; a flag that waits for its value
    for word in before:
        if waits is not None:
            given[waits.dest], waits = word, None
        elif word.startswith("-") and word != "-":
            flag, equals, value = word.partition("=")
            action = parser._option_string_actions.get(flag)
            if action is not None and equals:
                given[action.dest] = value
            elif action is not None and action.nargs != 0:
                waits = action
            elif action is not None:
                given[action.dest] = "yes"
        elif (inner := _commands(parser).get(word)) is not None:
            parser, position = inner, 0
        else:
            position += 1
    if waits is not None:
        return list(_values(waits, last, given))
    flag, equals, value = last.partition("=")
    if equals and (action := parser._option_string_actions.get(flag)) is not None:
        return [(f"{flag}={word}" if word != FILES else word, text) for word, text in _values(action, value, given)]
    if last.startswith("-"):
        return [each for each in _flags(parser) if each[0].startswith(last)]
    if commands := _commands(parser):
        texts = {each.dest: each.help or "" for each in _choices(parser)}
        return [(name, texts.get(name, "")) for name in commands if name.startswith(last)]
    positional = [each for each in parser._actions if not each.option_strings]
    if not positional:
        return []
    action = positional[min(position, len(positional) - 1)]
    if position >= len(positional) and action.nargs not in ("+", "*", argparse.REMAINDER):
        return []
    return list(_values(action, last, given))


def _values(action: argparse.Action, begun: str, given: dict[str, str]) -> Iterator[Candidate]:
    if action.choices is not None:
        yield from ((str(each), "") for each in action.choices if str(each).startswith(begun))
    elif action.dest in JOBS:
        yield from ((name, text) for name, text in _jobs(given) if name.startswith(begun))
    elif action.type is Path or set(action.option_strings) & set(_FILE_FLAGS) or action.dest in _FILES:
        yield FILES, ""


def _flags(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            text = (action.help or "").split(" (default")[0]
            yield max(action.option_strings, key=len), " ".join(text.split()).replace("%%", "%")


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _choices(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [each for action in parser._actions if isinstance(action, argparse._SubParsersAction)
            for each in action._choices_actions]  # fmt: skip


def _jobs(given: dict[str, str]) -> list[Candidate]:
    """(name, phase) of the jobs in the namespace that the words so far name; nothing where no cluster answers."""
    where = Where(
        given.get("kubeconfig"),
        given.get("context"),
        given.get("namespace"),
        "embedded" in given,
        Path(given["state"]) if "state" in given else plane.default_state(),
    )

    async def asked() -> list[Candidate]:
        async with asyncio.timeout(_SECONDS), connect(where) as cluster:
            found = await cluster.jobs()
        return [(str(job["metadata"]["name"]), str((job.get("status") or {}).get("phase") or "New")) for job in found]

    try:
        return asyncio.run(asked())
    except Exception:  # noqa: BLE001  whoever presses Tab wants candidates, or silence
        return []
