"""Delete jobs. Their pods get SIGTERM and their time to save; snapshots stay where they are, and are named."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Final

from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import CliError, Exit, JobNotFound, TookTooLong
from drivetrain_cli.life import patience
from drivetrain_cli.life.outlook import deleted
from drivetrain_cli.printable import printable
from drivetrain_operator.kube.errors import Conflict
from drivetrain_operator.kube.resources import TRAININGJOBS, Object

_LOOK_SECONDS: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain delete`."""
    parser.add_argument("jobs", nargs="+", metavar="job", help="names of TrainingJobs")
    parser.add_argument("--wait", action="store_true", help="wait until their pods are gone")
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="with --wait: seconds at most (default: %(default)g; exit code 1)"
    )
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 if all were there; else those that were are deleted, and it ends with 4."""
    patience.check(arguments)
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        gone: list[Object] = []
        missing = False
        for name in dict.fromkeys(arguments.jobs):
            try:
                job = await cluster.job(name)
            except JobNotFound as error:
                print(f"drivetrain: {printable(str(error))}", file=sys.stderr)
                missing = True
                continue
            await delete(cluster, job)
            gone.append(job)
            print("\n".join(deleted(job)), flush=True)
        if arguments.wait:
            await until_gone(cluster, gone, arguments.timeout)
        return Exit.NOT_FOUND if missing else Exit.OK


async def delete(cluster: Cluster, job: Object) -> None:
    """This very job, not one that was made under its name meanwhile. Raises CliError."""
    meta = job["metadata"]
    try:
        await cluster.client.delete(TRAININGJOBS, meta["name"], cluster.namespace, uid=meta["uid"])
    except Conflict as error:
        raise CliError(f"{meta['name']} is another one by now: {error.message}") from error


async def until_gone(cluster: Cluster, jobs: list[Object], seconds: float) -> None:
    """Until no pod of them is left. Raises TookTooLong that names those that are."""
    deadline = time.monotonic() + seconds
    while left := [str(pod["metadata"]["name"]) for job in jobs for pod in await cluster.pods(job)]:
        if time.monotonic() > deadline:
            raise TookTooLong(f"after {seconds:g} s (--timeout) pods are left: {', '.join(left)}")
        await asyncio.sleep(_LOOK_SECONDS)
