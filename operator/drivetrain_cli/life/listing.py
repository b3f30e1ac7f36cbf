"""List jobs, with what holds them up. -A: of all namespaces."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from drivetrain_cli import output
from drivetrain_cli import where as which
from drivetrain_cli.cluster import connect
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.reasons import short
from drivetrain_cli.table import age, aligned
from drivetrain_operator.kube.errors import BadRequest, Forbidden

Json = dict[str, Any]
_WIDTH: Final = 60
"""Of WHY, without -o wide."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `drivetrain list`."""
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="jobs of all namespaces")
    parser.add_argument("-l", "--selector", help="only jobs with these labels, such as team=vision")
    output.add_argument(parser, "wide", "name")
    which.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, also if there is no job."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with connect(which.where(arguments)) as cluster:
        namespace = None if arguments.all_namespaces else cluster.namespace
        try:
            jobs = await cluster.jobs(namespace, selector=arguments.selector)
        except BadRequest as error:
            raise UsageError(f"-l: {error.message}") from error
        except Forbidden as error:
            where = "-A: jobs of all namespaces" if namespace is None else f"-n: jobs of namespace {namespace!r}"
            raise CliError(f"{where} may not be listed by you: {error.message}") from error
        if arguments.output in output.FORMATS:
            print(output.dumped(output.as_list(jobs), arguments.output))
        elif arguments.output == "name":
            for job in jobs:
                print(job["metadata"]["name"])
        elif not jobs:
            of = "any namespace" if namespace is None else f"namespace {namespace!r}"
            print(f"No TrainingJobs in {of} of {cluster.name}.")
        else:
            print(rows(jobs, datetime.now(UTC), namespaces=namespace is None, wide=arguments.output == "wide"))
        return Exit.OK


def rows(jobs: list[Json], now: datetime, *, namespaces: bool = False, wide: bool = False) -> str:
    """PURE: header and one row a job."""
    header = [
        "NAME",
        "PHASE",
        "WORKERS",
        "STEP",
        "PROGRESS",
        *(["ETA", "LOSS", "DURABLE"] if wide else []),
        "AGE",
        "WHY",
    ]
    table = [["NAMESPACE", *header] if namespaces else header]
    for job in jobs:
        meta, status = job["metadata"], job.get("status") or {}
        progress = status.get("progress") or {}
        more = [_cell(progress.get(key)) for key in ("eta", "loss", "durableStep")] if wide else []
        row = [
            str(meta["name"]),
            status.get("phase") or "New",
            _workers(job),
            _cell(progress.get("step")),
            progress.get("summary") or "-",
            *more,
            age(meta["creationTimestamp"], now),
            short(job, width=None if wide else _WIDTH),
        ]
        table.append([str(meta["namespace"]), *row] if namespaces else row)
    return aligned(table)


def _workers(job: Json) -> str:
    """Ready ones of those wanted, as far as an operator has said."""
    summary = ((job.get("status") or {}).get("workers") or {}).get("summary")
    return str(summary) if summary else f"0/{job['spec'].get('workers', 1)}"


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
