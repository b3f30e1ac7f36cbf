"""How are all workers' logs followed at once? Waits for pods, survives cut connections, and goes on with replacements.

Lines come as they are written, each exactly once. It ends when the job has ended and every log was read to its end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from drivetrain_api.constants import ROLE_WORKER, WORKER_CONTAINER
from drivetrain_cli.attendance import Attendance
from drivetrain_cli.cluster import Cluster, role
from drivetrain_cli.errors import JobNotFound
from drivetrain_cli.lines import Cursor, Line
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.errors import ApiError, KubeError, NotFound
from drivetrain_operator.kube.resources import PODS, Object

_LOOK_SECONDS: Final = 0.5
_REST_SECONDS: Final = 10.0
"""How long logs may take to end once the job is over."""
_BACKOFF: Final = Backoff(base=0.3, cap=5.0)

Notice = Callable[[Object, Sequence[Object], str | None], None]
"""Told of the job and its pods whenever they were looked at, and that no operator looks after it, if none does."""


async def follow(
    cluster: Cluster, job: str, *, tail: int | None = None, notice: Notice | None = None
) -> AsyncGenerator[Line]:
    """All lines of all worker pods. Raises JobNotFound if the job is deleted, KubeError if it never was."""
    lines: asyncio.Queue[Line | None] = asyncio.Queue(maxsize=1000)
    watcher = asyncio.create_task(_watch(cluster, job, lines, tail, notice), name="follow")
    try:
        while True:
            line = await lines.get()
            if line is None:
                break
            yield line
        await watcher
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


def started(pod: Object) -> bool:
    """Whether the worker container has a log."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("name") == WORKER_CONTAINER:
            state = status.get("state") or {}
            return bool(state.get("running") or state.get("terminated"))
    return False


def finished(job: Object) -> bool:
    """Whether the job is over."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in conditions)


def succeeded(job: Object) -> bool:
    """Whether it is over and well."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Complete" and c.get("status") == "True" for c in conditions)


async def _watch(
    cluster: Cluster, name: str, lines: asyncio.Queue[Line | None], tail: int | None, notice: Notice | None
) -> None:
    """Start a reader for every pod that comes; put None when all is over."""
    readers: dict[str, asyncio.Task[None]] = {}
    failures, seen = 0, False
    attendance = Attendance()
    asking = asyncio.create_task(attendance.watch(cluster), name="attendance")
    try:
        while True:
            try:
                job = attendance.job = await cluster.job(name)
                pods = await cluster.pods(job)
                for pod in (pod for pod in pods if role(pod) == ROLE_WORKER):
                    uid = pod["metadata"]["uid"]
                    if uid not in readers and started(pod):
                        readers[uid] = asyncio.create_task(read_log(cluster, pod, lines, tail), name=f"log of {uid}")
            except (KubeError, JobNotFound) as error:
                if not seen or isinstance(error, JobNotFound) or not getattr(error, "retryable", True):
                    raise
                failures += 1  # an API server that is away for a while ends nothing
            else:
                failures, seen = 0, True
                if notice is not None:
                    notice(job, pods, attendance.missing)
                if finished(job):
                    break
            await asyncio.sleep(max(_LOOK_SECONDS, _BACKOFF.delay(failures, random.Random()) if failures else 0.0))
        if readers:
            await asyncio.wait(readers.values(), timeout=_REST_SECONDS)
    finally:
        for task in (asking, *readers.values()):
            task.cancel()
        await asyncio.gather(asking, *readers.values(), return_exceptions=True)
        await lines.put(None)


async def read_log(cluster: Cluster, pod: Object, lines: asyncio.Queue[Line | None], tail: int | None = None) -> None:
    """One pod's log to its end, over as many connections as that takes."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    cursor, failures = Cursor(), 0
    while True:
        try:
            async for time, text in cluster.log(
                name, WORKER_CONTAINER, follow=True, since=cursor.since, tail=None if cursor.since else tail
            ):
                failures = 0
                if cursor.new(time):
                    await lines.put(Line(time, name, text))
            if not await _runs(cluster, name, uid):
                return
        except NotFound:
            return  # deleted, as a job that failed deletes its pods
        except KubeError as error:
            if isinstance(error, ApiError) and not error.retryable and error.status != 400:
                return  # 400: its container does not run yet, or not any more
            failures += 1
            if failures > 8:
                return
        cursor.reconnected()
        await asyncio.sleep(_BACKOFF.delay(failures + 1, random.Random()))


async def _runs(cluster: Cluster, name: str, uid: str) -> bool:
    """Whether there may be more: the same pod, with its container not terminated."""
    pod = await cluster.client.get(PODS, name, cluster.namespace)
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ended = any(s.get("name") == WORKER_CONTAINER and (s.get("state") or {}).get("terminated") for s in statuses)
    return pod["metadata"]["uid"] == uid and not ended
