"""Suspend a job, which deletes its pods and keeps its place; resume it later. Both say from which step it goes on."""

from __future__ import annotations

import argparse
import asyncio

from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import Exit
from drivetrain_cli.invocation import command
from drivetrain_cli.life import patience
from drivetrain_cli.life.change import changed
from drivetrain_cli.life.outlook import check_not_over, goes_on_from, phase, suspended
from drivetrain_operator.kube.resources import Object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain suspend` and `resume`."""
    parser.add_argument("job", help="name of the TrainingJob")
    patience.add_arguments(parser, "the operator has done it", 60.0)
    which.add_arguments(parser)


def run_suspend(arguments: argparse.Namespace) -> int:
    """0 once it rests."""
    patience.check(arguments)
    return asyncio.run(_suspend(arguments))


def run_resume(arguments: argparse.Namespace) -> int:
    """0 once it goes on."""
    patience.check(arguments)
    return asyncio.run(_resume(arguments))


async def _suspend(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        already = bool(job["spec"].get("suspend"))
        await suspend(cluster, job)
        if arguments.no_wait:
            print(f"{arguments.job} {'was' if already else 'is'} told to rest; its pods get the time to save.")
            return Exit.OK
        for line in suspended(await until_suspended(cluster, arguments.job, arguments.timeout)):
            print(line)
        return Exit.OK


async def _resume(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        if not job["spec"].get("suspend"):
            check_not_over(job, "resume")
            print(f"{arguments.job} is not suspended; it is {phase(job) or 'new'}.")
            return Exit.OK
        await resume(cluster, job)
        print(f"{arguments.job} is resumed: {goes_on_from(job)}", flush=True)
        if not arguments.no_wait:
            await until_resumed(cluster, arguments.job, arguments.timeout)
        print(f"Follow it: {command()} logs -f {arguments.job}")
        return Exit.OK


async def suspend(cluster: Cluster, job: Object) -> None:
    """Set spec.suspend. Raises CliError for a job that is over."""
    check_not_over(job, "suspend")
    if not job["spec"].get("suspend"):
        await changed(cluster, job, {"suspend": True})


async def resume(cluster: Cluster, job: Object) -> None:
    """Clear spec.suspend. Raises CliError for a job that is over."""
    check_not_over(job, "resume")
    if job["spec"].get("suspend"):
        await changed(cluster, job, {"suspend": False})


async def until_suspended(cluster: Cluster, name: str, seconds: float) -> Object:
    """The job, once the operator says that it rests. Raises CliError."""
    return await patience.until(cluster, name, lambda job: phase(job) == "Suspended", seconds, "coming to rest")


async def until_resumed(cluster: Cluster, name: str, seconds: float) -> Object:
    """The job, once the operator has taken it up again. Raises CliError."""
    return await patience.until(cluster, name, lambda job: phase(job) != "Suspended", seconds, "being taken up again")
