"""Print the logs of all workers of a job, each line with its rank; -f waits for pods, follows all of them through
replacements, and ends with the job (exit code 0: it succeeded). Of pods that are gone, the end of what failed
processes printed is kept in the job's status and is printed instead."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from drivetrain_api.constants import ROLE_WORKER, WORKER_CONTAINER
from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.follow import finished, follow, started, succeeded
from drivetrain_cli.lines import Line, merged, shown
from drivetrain_cli.printable import printable_lines
from drivetrain_cli.reasons import failures, state
from drivetrain_cli.stale import Doubts, differences
from drivetrain_operator.kube.errors import ApiError, NotFound
from drivetrain_operator.kube.resources import Object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain logs`."""
    parser.add_argument("job", help="name of the TrainingJob")
    parser.add_argument("-f", "--follow", action="store_true", help="follow until the job ends")
    parser.add_argument("--tail", type=int, help="only the last lines of each pod (default: all)")
    parser.add_argument("--pods", action="store_true", help="name the pod on every line, also where the rank is known")
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, or with -f: 1 if the job failed."""
    if arguments.tail is not None and arguments.tail < 0:
        raise UsageError("--tail: at least 0")
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        if arguments.follow and not finished(job):
            return await print_followed(cluster, arguments.job, tail=arguments.tail, pods=arguments.pods)
        await _print_once(cluster, job, arguments.tail, pods=arguments.pods)
        return Exit.OK if not arguments.follow or succeeded(job) else Exit.FAILED


async def print_followed(cluster: Cluster, name: str, *, tail: int | None = None, pods: bool = False) -> int:
    """Follow on stdout; what holds the job up, and whether status still holds, goes to stderr once each time that it
    changes."""
    said: set[str] = set()
    job: Object = {}
    doubts = Doubts()

    def notice(now: Object, found: Sequence[Object], absent: str | None) -> None:
        nonlocal said, job
        job = now
        told = [state(now), *doubts.standing(differences(now, found), time.monotonic())]
        if absent is not None and not finished(now):
            told.append(absent)
        for text in told:
            if text not in said:
                print(f"-- {printable_lines(text)}", file=sys.stderr, flush=True)
        said = set(told)

    async for line in follow(cluster, name, tail=tail, notice=notice):
        print(shown(line.pod, line.text, pods=pods), flush=True)
    if not succeeded(job):
        for text in failures(job, last=1):
            print(text, file=sys.stderr, flush=True)
    return Exit.OK if succeeded(job) else Exit.FAILED


@dataclass(frozen=True, slots=True)
class Collected:
    """What workers have printed so far."""

    lines: list[Line]
    missed: list[str]
    """Pods whose log was refused, and why."""
    any: bool
    """Whether some pod has a log, empty as it may be."""


async def collected(cluster: Cluster, job: Object, tail: int | None) -> Collected:
    """The logs of the pods that are there, as one in the order of time. Raises KubeError if none can be asked for."""
    found: dict[str, list[tuple[str, str]]] = {}
    missed: list[str] = []
    for pod in await cluster.pods(job, ROLE_WORKER):
        name = pod["metadata"]["name"]
        try:
            if started(pod):
                log = cluster.log(name, WORKER_CONTAINER, follow=False, tail=tail)
                found[name] = [entry async for entry in log]
        except (NotFound, ApiError) as error:
            missed.append(f"no log of {name}: {error}")
    return Collected(merged(found), missed, bool(found))


async def _print_once(cluster: Cluster, job: Object, tail: int | None, *, pods: bool) -> None:
    found = await collected(cluster, job, tail)
    for text in found.missed:
        print(f"-- {printable_lines(text)}", file=sys.stderr)
    for line in found.lines:
        print(shown(line.pod, line.text, pods=pods))
    if found.any:
        return
    kept = failures(job)
    if not kept:
        raise CliError(f"no worker of {job['metadata']['name']} has printed anything yet: {state(job)}")
    print("-- the pods are gone; this is what the job's status keeps of its failures", file=sys.stderr)
    for text in kept:
        print(text)
