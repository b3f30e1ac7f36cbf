"""How does a job stand? One page: phase, what it waits for, conditions, members, progress, recoveries. --watch shows it
again as it changes, until the job ends. Exit code 1 if the job has failed. Without a job: which processes of the
embedded plane run?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from typing import Final

from drivetrain_cli import output, up
from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import Exit, UsageError
from drivetrain_cli.follow import finished
from drivetrain_cli.life.outlook import phase
from drivetrain_cli.life.page import page
from drivetrain_cli.life.patience import patient_job
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import Object

_EVERY_SECONDS: Final = 1.0
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain status`."""
    parser.add_argument("job", nargs="?", help="name of the TrainingJob (default: the embedded plane itself)")
    parser.add_argument("-w", "--watch", action="store_true", help="again as it changes, until the job ends")
    output.add_argument(parser)
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 if the job has failed, or the plane does not run."""
    if arguments.job is None:
        if arguments.watch or arguments.output:
            raise UsageError("--watch and -o: of which job?")
        return up.status(arguments)
    if arguments.watch and arguments.output:
        raise UsageError("-o: cannot be used with --watch")
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        if arguments.watch:
            job = await _watch(cluster, arguments.job)
        else:
            job = await cluster.job(arguments.job)
            if arguments.output:
                print(output.dumped(job, arguments.output))
            else:
                print("\n".join(page(job, await cluster.pods(job), datetime.now(UTC))))
        return Exit.FAILED if phase(job) == "Failed" else Exit.OK


async def _watch(cluster: Cluster, name: str) -> Object:
    """On a terminal in place, every second; elsewhere a page each time that something has changed."""
    terminal, seen = sys.stdout.isatty(), ""
    while True:
        job = await patient_job(cluster, name)
        try:
            pods = await cluster.pods(job)
        except KubeError:
            pods = []
        version = f"{job['metadata']['resourceVersion']} {[each['metadata']['resourceVersion'] for each in pods]}"
        if terminal or version != seen:
            text = "\n".join(page(job, pods, datetime.now(UTC)))
            print(f"{_CLEAR}{text}" if terminal else f"{text}\n---", flush=True)
            seen = version
        if finished(job):
            return job
        await asyncio.sleep(_EVERY_SECONDS)
