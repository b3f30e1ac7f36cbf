"""Bring files of a job's storage (spec.storage) to this machine: of one that runs or has ended. Without a file, or with
--list, say what is there. A file that is there already is replaced, once the new one is whole."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_cli import where as which
from drivetrain_cli.cluster import EMBEDDED, Cluster, connect
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.inside import result_of, standing
from drivetrain_cli.intermixed import allow_flags_between
from drivetrain_cli.printable import printable
from drivetrain_cli.results.fetch import Progress, chosen, fetch, human
from drivetrain_cli.results.here import Here
from drivetrain_cli.results.pod import asked, place_of, pod, told
from drivetrain_cli.results.remote import Remote
from drivetrain_cli.results.source import Entry, Source, entry_of
from drivetrain_cli.table import aligned
from drivetrain_operator.kube.resources import Object

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain get`."""
    parser.add_argument("source", metavar="JOB:[PATH]", help="a file or a folder in the job's storage; JOB: lists it")
    parser.add_argument("to", nargs="?", metavar="TO", help="file or folder here (default, with a PATH: .)")
    parser.add_argument("-l", "--list", action="store_true", help="say what is there, and bring nothing")
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="how it is listed")
    which.add_arguments(parser)
    allow_flags_between(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 if something could not be brought."""
    job, colon, path = arguments.source.partition(":")
    if not colon or not job:
        raise UsageError(f"want JOB:PATH, such as {arguments.source or 'lm'}:model.pt; {arguments.source}: lists all")
    check_path(path)
    lists = arguments.list or (not path.strip("/") and arguments.to is None)
    if lists and arguments.to is not None:
        raise UsageError("--list: brings nothing, so it has no use for a place to bring it to")
    return asyncio.run(_run(arguments, job, path, lists))


def check_path(path: str) -> None:
    """Raises UsageError."""
    if any(part in (".", "..") for part in path.split("/")):
        raise UsageError(f"{path}: a path in the job's storage has no . or .. in it")


async def _run(arguments: argparse.Namespace, name: str, path: str, lists: bool) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(name)
        async with opened(cluster, job, None if lists else path.strip("/")) as source:
            if lists:
                print(_listed(await source.entries(), path.strip("/"), source, arguments.output))
            else:
                await _bring(source, name, path, arguments.to or ".")
        await _note_of_writers(cluster, job)
    return Exit.OK


async def _bring(source: Source, job: str, path: str, to: str) -> None:
    wishes = chosen(await source.entries(), path, Path(to), job=job, into=to.endswith("/"))
    progress = Progress(lambda text: print(text, file=sys.stderr, flush=True))
    for wish in wishes:
        await fetch(source, wish, progress)
        print(f"{printable(str(wish.target))}  {human(wish.entry.size)}", flush=True)


@contextlib.asynccontextmanager
async def opened(cluster: Cluster, job: Object, wanted: str | None, *, signals: bool = True) -> AsyncIterator[Source]:
    """The job's storage. `wanted`: what will be read of it; None: nothing. `signals`: Ctrl-C is ours to take. Raises
    CliError, KubeError."""
    place, suffix = place_of(job), "".join(random.choices(_ALPHABET, k=5))
    if cluster.name != EMBEDDED:
        async with standing(cluster, job, lambda worker: pod(job, worker, suffix), signals=signals) as made:
            yield Remote(cluster, made, asked(place), place.url or place.folder)
        return
    with tempfile.TemporaryDirectory(prefix="drivetrain-get-") as folder:
        lines: list[str] = []
        question = told(place, ["where"])
        if place.url is not None:
            # Not the bare path: that is below a mount of the pod's, and would be taken for the pod's.
            question = told(place, ["list"] if wanted is None else ["bring", f"to:{folder}", wanted])
        code = await result_of(
            cluster, job, lambda worker: pod(job, worker, suffix, question), lines.append, signals=signals
        )
        if code:
            raise CliError(f"{place.url or place.folder}: {lines[-1] if lines else 'its reader says nothing'}")
        if place.url is None:
            yield Here(Path(json.loads(lines[-1])["folder"]))
        else:
            yield Here(Path(folder), place.url, [entry_of(line) for line in lines if line.startswith("{")])


async def _note_of_writers(cluster: Cluster, job: Object) -> None:
    """What workers have may be newer."""
    pods = await cluster.pods(job, ROLE_WORKER)
    running = [each for each in pods if (each.get("status") or {}).get("phase") == "Running"]
    if running and (job["spec"].get("storage") or {}).get("url"):
        told_of = f"{len(running)} {'worker' if len(running) == 1 else 'workers'}"
        print(
            f"-- {told_of} still running: what they write is copied once a minute, and when they end", file=sys.stderr
        )


def _listed(entries: Sequence[Entry], path: str, source: Source, output: str) -> str:
    found = [each for each in entries if not path or each.name == path or each.name.startswith(f"{path}/")]
    if output == "json":
        files = [
            {"name": each.name, "size": each.size, "time": _time(each), **({"link": each.link} if each.link else {})}
            for each in found
        ]
        return json.dumps({"storage": str(source), "files": files}, indent=2)
    if not found:
        what = f"no {path}" if path and entries else "nothing"
        return f"There is {what} in {printable(str(source))} yet."
    rows = [["NAME", "SIZE", "WRITTEN"], *([_named(each), human(each.size), _time(each)] for each in found)]
    own = [each for each in found if not each.link]
    count = f"{len(own)} {'file' if len(own) == 1 else 'files'}, {human(sum(each.size for each in own))}"
    links = f", and {len(found) - len(own)} by links" if len(found) > len(own) else ""
    return f"{aligned(rows)}\n\n{count}{links}, in {printable(str(source))}"


def _named(entry: Entry) -> str:
    return f"{entry.name} -> {entry.link}" if entry.link else entry.name


def _time(entry: Entry) -> str:
    try:
        return f"{datetime.fromtimestamp(entry.time, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (OSError, OverflowError, ValueError):
        return "-"  # no year of a calendar


__all__ = ["add_arguments", "run"]
