"""Change the number of workers of a job, and say what that does. Refused where it breaks a bound of spec.elastic."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from drivetrain_cli import where as which
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.follow import finished
from drivetrain_cli.life import patience
from drivetrain_cli.life.change import changed
from drivetrain_cli.life.outlook import check_size, scaled
from drivetrain_operator.kube.resources import Object

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain scale`."""
    parser.add_argument("job", help="name of the TrainingJob")
    parser.add_argument("workers", type=int, metavar="N", help="workers that it should have")
    parser.add_argument("--wait", action="store_true", help="wait until as many take part")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="with --wait: seconds at most (default: %(default)g; exit code 1)"
    )
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 once the API server has the new number; with --wait, once all take part."""
    patience.check(arguments)
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        check_size(job, arguments.workers)
        for line in await scale(cluster, job, arguments.workers):
            print(line, flush=True)
        if arguments.wait and job["spec"].get("suspend"):
            raise UsageError("--wait: the job is suspended, so nothing starts before it is resumed")
        if arguments.wait:
            await wait(cluster, arguments.job, arguments.workers, arguments.timeout)
        return Exit.OK


async def scale(cluster: Cluster, job: Object, workers: int) -> list[str]:
    """Set spec.workers; what that does. Raises UsageError, CliError, KubeError."""
    check_size(job, workers)
    if workers != job["spec"].get("workers", 1):
        await changed(cluster, job, {"workers": workers})
    return scaled(job, workers)


async def wait(cluster: Cluster, name: str, workers: int, seconds: float) -> None:
    """Until so many take part. Raises CliError if the job ends before."""

    def there(job: Object) -> bool:
        counts = (job.get("status") or {}).get("workers") or {}
        return finished(job) or counts.get("target") == counts.get("ready") == workers

    job = await patience.until(cluster, name, there, seconds, f"having {workers} workers that take part")
    if finished(job):
        raise CliError(f"{name} ended before it had {workers} workers")
    print(f"{name} has {workers} workers that take part.")
