"""Say why a job does not run, why it restarted, or why it failed: conditions, what its pods wait for, what failed with
the end of its traceback, who was taken by the cluster, its warnings, and what can be done about it; and whether what
status says still holds. Exit code 1 if the job has failed."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime

from drivetrain_cli import where as which
from drivetrain_cli.attendance import attended
from drivetrain_cli.cluster import Cluster, connect
from drivetrain_cli.errors import Exit
from drivetrain_cli.reasons import explain
from drivetrain_operator.kube.errors import Forbidden
from drivetrain_operator.kube.resources import NODES, Object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain why`."""
    parser.add_argument("job", help="name of the TrainingJob")
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """1 if the job has failed."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        job = await cluster.job(arguments.job)
        for line in await reasons_of(cluster, job):
            print(line)
        return Exit.FAILED if (job.get("status") or {}).get("phase") == "Failed" else Exit.OK


async def reasons_of(cluster: Cluster, job: Object) -> list[str]:
    """The answer, line by line. Raises KubeError."""
    absent = asyncio.create_task(attended(cluster, job))
    try:
        pods = await cluster.pods(job)
        try:
            events = await cluster.events({job["metadata"]["uid"], *(pod["metadata"]["uid"] for pod in pods)})
        except Forbidden:
            events = []  # status alone says most of it
        nodes: list[Object] | None = None
        try:
            nodes = (await cluster.client.list(NODES)).items
        except Forbidden:
            pass  # users of one namespace may not see nodes
        return explain(job, pods, events, nodes, datetime.now(UTC), absent=await absent)
    finally:
        absent.cancel()
