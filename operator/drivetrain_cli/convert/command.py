"""Turn jobs of other operators into TrainingJobs: PyTorchJob (Kubeflow v1), TrainJob (Kubeflow Trainer), batch Job, and
RayJob whose script does without Ray now. YAML goes to stdout; what could not be carried over goes to stderr, field by
field. What would make a job mean something else is refused: exit code 1, and nothing of that job on stdout."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from drivetrain_cli.convert.aliases import TooMuch, check_size
from drivetrain_cli.convert.job import Asked
from drivetrain_cli.convert.sources import Converted, convert
from drivetrain_cli.errors import Exit, UsageError
from drivetrain_cli.manifests import documents
from drivetrain_cli.printable import printable_lines

_MOST_BYTES: Final = 10_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain convert`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="manifests, also runtimes of TrainJobs; - is stdin")
    parser.add_argument(
        "--command", dest="program", metavar="WORDS", help="where a manifest leaves it to the image: its ENTRYPOINT"
    )
    parser.add_argument("--image", help="in place of the runtime's, for TrainJobs")
    parser.add_argument("--name", help="name of the TrainingJob (of one job)")
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="FIELD",
        help="leave out what is refused there, knowingly; may be repeated",
    )
    parser.add_argument("--without-ray", action="store_true", help="the script of a RayJob does not use Ray any more")


def run(arguments: argparse.Namespace) -> int:
    """0 if all jobs were converted, 1 if one was refused."""
    asked = Asked(
        name=arguments.name,
        image=arguments.image,
        command=_words(arguments.program),
        drop=frozenset(arguments.drop),
        without_ray=arguments.without_ray,
    )
    found = convert([each for name in arguments.files for each in _documents(name)], asked)
    jobs = [each for each in found if each.is_job]
    if not jobs:
        raise UsageError(f"{', '.join(arguments.files)}: no job is in there that could be converted")
    if arguments.name and len(jobs) > 1:
        raise UsageError(f"--name: there are {len(jobs)} jobs in there")
    made = [each.job for each in jobs if each.job is not None]
    if made:
        print(yaml.dump_all(made, Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True), end="")
    for each in found:
        _tell(each)
    return Exit.OK if len(made) == len(jobs) else Exit.FAILED


class _Readable(yaml.SafeDumper):
    """Text of several lines, such as a script after -c, as lines."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        found: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", data, style=style)
        return found


_Readable.add_representer(str, _Readable.represent_str)


def _tell(converted: Converted) -> None:
    lines = []
    if not converted.is_job:
        lines.append(f"{converted.source}: is no job, and is needed as it is, or not at all")
    elif converted.job is None:
        lines.append(f"{converted.source}: refused, because it would mean something else")
    else:
        lines.append(f"{converted.source}: converted")
    lines += [f"  cannot   {note.field}: {note.text}" for note in converted.notes.refused]
    lines += [f"  changed  {note.field}: {note.text}" for note in converted.notes.told]
    print(printable_lines("\n".join(lines)), file=sys.stderr)


def _words(given: str | None) -> list[str] | None:
    if given is None:
        return None
    try:
        found = shlex.split(given)
    except ValueError as error:
        raise UsageError(f"--command: {error}") from error
    if not found:
        raise UsageError("--command: has no words")
    return found


def _documents(name: str) -> list[Any]:
    """Raises UsageError that names the file."""
    try:
        text = sys.stdin.read(_MOST_BYTES) if name == "-" else Path(name).read_text("utf-8")
        check_size(text)
        return documents(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {error}") from error
    except TooMuch as error:
        raise UsageError(f"{name}: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: is no YAML: {' '.join(str(error).split())}") from error
