"""How does a command wait until a job is as it should be? With a limit, and through an API server that is away."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from drivetrain_cli.cluster import Cluster
from drivetrain_cli.errors import TookTooLong, UsageError
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import Object

_LOOK_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 120.0
"""How long an API server may be away while somebody watches."""
_BACKOFF: Final = Backoff(base=0.3, cap=5.0)


def add_arguments(parser: argparse.ArgumentParser, what: str, seconds: float) -> None:
    """--no-wait and --timeout."""
    parser.add_argument("--no-wait", action="store_true", help=f"do not wait until {what}")
    parser.add_argument(
        "--timeout", type=float, default=seconds, help="seconds to wait at most (default: %(default)g; exit code 1)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError."""
    if not arguments.timeout > 0:
        raise UsageError("--timeout: more than 0 seconds")


async def patient_job(cluster: Cluster, name: str, seconds: float = _AWAY_SECONDS) -> Object:
    """The job, also if the API server is away for a while. Raises JobNotFound, KubeError."""
    deadline, failures = time.monotonic() + seconds, 0
    while True:
        try:
            return await cluster.job(name)
        except KubeError as error:
            failures += 1
            delay = _BACKOFF.delay(failures, random.Random())
            if not error.retryable or time.monotonic() + delay > deadline:
                raise
        await asyncio.sleep(delay)


async def until(cluster: Cluster, name: str, holds: Callable[[Object], bool], seconds: float, what: str) -> Object:
    """The job, once `holds` is true of it. Raises TookTooLong that names `what`; JobNotFound, KubeError."""
    deadline = time.monotonic() + seconds
    while True:
        job = await patient_job(cluster, name, max(0.0, deadline - time.monotonic()))
        if holds(job):
            return job
        if time.monotonic() > deadline:
            raise TookTooLong(f"{name}: {what} takes longer than {seconds:g} s (--timeout); it goes on all the same")
        await asyncio.sleep(_LOOK_SECONDS)
