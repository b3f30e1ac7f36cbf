"""What does the same training come to when nobody disturbs it? And what did the ranks of a job print?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from drivetrain_api.constants import ROLE_WORKER, WORKER_CONTAINER
from drivetrain_api.resolve import to_runtime
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_cli.cluster import Cluster
from drivetrain_local.node.images import python_environment
from drivetrain_operator.kube.resources import Object

LIMIT: Final = 360.0
"""Seconds that it may take."""


@contextlib.asynccontextmanager
async def reference_of(script: Path, folder: Path, job: Object) -> AsyncIterator[asyncio.Task[list[str]]]:
    """The same training in one process, at low priority; a task of its output lines. It ends with the block."""
    runtime = to_runtime(TrainingJobSpec.model_validate({**job["spec"], "snapshots": None}))
    environment = {
        **python_environment(),
        "DRIVETRAIN_SPEC": runtime.model_dump_json(exclude_none=True),
        "OUTPUT": str(folder),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, 5)
    task = asyncio.create_task(_output(process), name="uninterrupted run")
    try:
        yield task
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await process.wait()


async def _output(process: asyncio.subprocess.Process) -> list[str]:
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    return out.decode(errors="replace").splitlines()


async def logs_of(cluster: Cluster, job: Object) -> list[str]:
    """What all ranks printed."""
    lines: list[str] = []
    for pod in await cluster.pods(job, ROLE_WORKER):
        async for _, line in cluster.log(pod["metadata"]["name"], WORKER_CONTAINER, follow=False):
            lines.append(line)
    return lines
