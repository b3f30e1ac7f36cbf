"""`python -m drivetrain.snapshot`: look at snapshots, check, export and prune them. `drivetrain-snapshots` is the same.

Exit codes: 0 done, and nothing is damaged; 1 something is damaged, or could not be done; 2 an argument cannot work.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from drivetrain.errors import DrivetrainError, UsageError
from drivetrain.snapshot.found import Found
from drivetrain.snapshot.hand.request import FORMATS
from drivetrain.snapshot.hand.run_script import exported
from drivetrain.snapshot.hand.survey import Survey
from drivetrain.snapshot.hand.table import size, told
from drivetrain.snapshot.hand.verify import Progress, verified
from drivetrain.snapshot.names import pinned
from drivetrain.snapshot.prune import surplus
from drivetrain.snapshot.storage import Storage
from drivetrain.snapshot.storage.place import storage_at, storage_of
from drivetrain_api.constants import ENV_SPEC
from drivetrain_api.runtime import RuntimeSpec

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
_SHOWN: Final = 20
"""Names of objects that go, unless all are asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    parsed = _parser().parse_args(given[:at])
    parsed.script = given[at + 1 :]
    try:
        if parsed.script and parsed.command is not _export:
            raise UsageError("only export runs a script")
        return int(parsed.command(parsed))
    except UsageError as error:
        print(f"drivetrain: {error}", file=sys.stderr)
        return USAGE
    except DrivetrainError as error:
        print(f"drivetrain: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # `… list | head`: nobody reads on, and that is fine
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="drivetrain-snapshots", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("list", _list, "bases, runs, and the steps that can be gone back to"),
        ("verify", _verify, "read everything and say what is damaged"),
        ("prune", _prune, "delete what only older bases need"),
        ("export", _export, "write model and optimizer as they were at a step, in a format of others"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("storage", nargs="?", help="where the snapshots are (default: those of this pod's job)")
        sub.set_defaults(command=command)
        if name in ("list", "verify"):
            sub.add_argument("-o", "--output", choices=("table", "json"), default="table")
        if name == "verify":
            sub.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
        if name == "prune":
            sub.add_argument("--keep", type=_at_least_one, required=True, metavar="N", help="newest bases that stay")
            sub.add_argument("--unpin", action="store_true", help="delete the pins of readers first: if none is left")
            sub.add_argument("--dry-run", action="store_true", help="say what would go, delete nothing")
        if name == "export":
            sub.usage = "drivetrain-snapshots export [STORAGE] [--step N] --to PATH [--format …] -- COMMAND …"
            sub.epilog = "COMMAND is the script's own, as it is trained with: it makes the model, and does not train."
            sub.add_argument("--step", type=_at_least_zero, help="the step (default: the newest)")
            sub.add_argument("--to", type=Path, required=True, help="FILE.safetensors, or a folder for dcp")
            sub.add_argument("--format", choices=FORMATS, help="default: by the name of --to")
    return parser


def _list(given: argparse.Namespace) -> int:
    return _shown(Survey.of(Found.of(_storage(given.storage))), given.output)


def _verify(given: argparse.Namespace) -> int:
    progress = Progress()
    survey = verified(_storage(given.storage), (lambda done, total: None) if given.quiet else progress)
    progress.end()
    code = _shown(survey, given.output)
    return FAILED if survey.newest is None or survey.newest < (survey.promised or 0) else code


def _shown(survey: Survey, output: str) -> int:
    print(json.dumps(survey.told(), indent=2) if output == "json" else told(survey))
    return FAILED if survey.damaged else OK


def _prune(given: argparse.Namespace) -> int:
    storage = _storage(given.storage)
    found = Found.of(storage)
    if found.verified() is None:  # what is damaged does not count as a base that is kept
        print(f"drivetrain: {storage}: no step can be gone back to; nothing is deleted", file=sys.stderr)
        return FAILED
    sizes = storage.list("")
    pins = [name for name in sizes if pinned(name) is not None]
    if pins and not given.unpin:
        kept = f"{len(pins)} readers have pins here, which keep what they read; --unpin, if none of them is left"
        print(f"drivetrain: {storage}: {kept}", file=sys.stderr)
        pins = []
    gone = [*pins, *surplus(found, sizes.keys() - pins, given.keep)]
    if not given.dry_run:
        storage.delete(gone)
    for name in sorted(gone)[:_SHOWN]:
        print(name)
    if len(gone) > _SHOWN:
        print(f"… and {len(gone) - _SHOWN} more")
    what = "would go" if given.dry_run else "deleted"
    print(f"{len(gone)} objects, {size(sum(sizes[name] for name in gone))}: {what}")
    return OK


def _export(given: argparse.Namespace) -> int:
    if not given.script:
        raise UsageError("export: give the script's own command after --, such as: -- python train.py")
    done = exported(given.script, given.to, given.format, given.step, given.storage)
    print(f"step {done['step']}: {done['tensors']} tensors, {size(done['bytes'])}, in {given.to}")
    if done["left_out"]:
        print(f"left out, because it is no tensor: {', '.join(done['left_out'])}")
    return OK


def _storage(place: str | None) -> Storage:
    if place is None:
        text = os.environ.get(ENV_SPEC)
        snapshots = RuntimeSpec.model_validate_json(text).snapshots if text else None
        if snapshots is None:
            raise UsageError("STORAGE: say where the snapshots are; this is no pod of a job that keeps any")
        return storage_of(snapshots)
    return storage_at(place)


def _at_least_one(text: str) -> int:
    return _number(text, 1)


def _at_least_zero(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"want a number of at least {least}, not {text!r}")
    return int(text)
