"""What does a pod say that looks at what a job has in storage (`looker.py`)? It is made, asked, and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_cli.cluster import Cluster
from drivetrain_cli.errors import CliError, Exit, UsageError
from drivetrain_cli.follow import read_log, started
from drivetrain_cli.lines import Line
from drivetrain_cli.looker import LABEL_LOOKS_AT
from drivetrain_cli.printable import printable, printable_lines
from drivetrain_operator.kube.errors import Forbidden, Invalid, KubeError
from drivetrain_operator.kube.resources import PODS, Object

_LOOK_SECONDS: Final = 0.3
START_SECONDS: Final = 300.0
"""An image has to be pulled."""
_MOUNT_SECONDS: Final = 10.0
"""A pod that still does not start then may have a volume that cannot be mounted, which only events tell."""
_DELETE_SECONDS: Final = 10.0


Show = Callable[[str], None]


def _print(line: str) -> None:
    print(printable_lines(line), flush=True)


async def result_of(
    cluster: Cluster,
    job: Object,
    make: Callable[[Object | None], Object],
    show: Show = _print,
    *,
    signals: bool = True,
) -> int:
    """Exit code of the pod that `make(a worker's pod, or None)` describes; `show` gets the lines of its log.

    Raises CliError, KubeError."""
    async with standing(cluster, job, make, signals=signals) as made:
        return await _outcome(cluster, made, show)


@contextlib.asynccontextmanager
async def standing(
    cluster: Cluster, job: Object, make: Callable[[Object | None], Object], *, signals: bool = True
) -> AsyncIterator[Object]:
    """A pod that `make(a worker's pod, or None)` describes and whose container has started; deleted at the end, after
    Ctrl-C too. Without `signals` they are somebody else's, who cancels us. Raises CliError, KubeError."""
    await _sweep(cluster, job)
    workers = await cluster.pods(job, ROLE_WORKER)
    running = [each for each in workers if (each.get("status") or {}).get("phase") == "Running"]
    like = next(iter([*running, *workers]), None)
    try:
        made = await cluster.client.create(PODS, make(like), cluster.namespace)
    except (Forbidden, Invalid) as error:
        raise CliError(f"the storage is seen by a pod only, which cannot be made: {error}") from error
    with _ended_by_signals() if signals else contextlib.nullcontext():
        try:
            await _start(cluster, str(made["metadata"]["name"]))
            yield made
        finally:
            await asyncio.shield(_delete(cluster, made))


async def _outcome(cluster: Cluster, pod: Object, show: Show) -> int:
    name = str(pod["metadata"]["name"])
    lines: asyncio.Queue[Line | None] = asyncio.Queue(maxsize=1000)
    reading = asyncio.create_task(_read(cluster, pod, lines), name="log")
    try:
        while (line := await lines.get()) is not None:
            show(line.text)
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    until = time.monotonic() + START_SECONDS
    while (code := _exit_code(found := await cluster.client.get(PODS, name, cluster.namespace))) is None:
        status = found.get("status") or {}
        if status.get("phase") == "Failed":
            raise CliError(f"pod {name}: {status.get('reason') or 'failed'}: {status.get('message') or ''}")
        if time.monotonic() > until:
            raise CliError(f"pod {name} does not end; its log was read to the end")
        await asyncio.sleep(_LOOK_SECONDS)
    if code == Exit.USAGE:
        raise UsageError("the worker's image says that it cannot do this; see above")
    return Exit.OK if code == 0 else Exit.FAILED


async def _read(cluster: Cluster, pod: Object, lines: asyncio.Queue[Line | None]) -> None:
    try:
        await read_log(cluster, pod, lines)
    finally:
        await lines.put(None)


async def _start(cluster: Cluster, name: str) -> None:
    """Wait until its container has a log; what holds it up goes to stderr once each time that it changes."""
    until, said = time.monotonic() + START_SECONDS, ""
    while True:
        pod = await cluster.client.get(PODS, name, cluster.namespace)
        if started(pod) or (pod.get("status") or {}).get("phase") == "Failed":
            return
        held = _held_up_by(pod)
        if not held and time.monotonic() > until - START_SECONDS + _MOUNT_SECONDS:
            held = await _warned(cluster, pod)
        if time.monotonic() > until:
            raise CliError(f"pod {name} has not started in {START_SECONDS:.0f} s: {held or 'nobody says why'}")
        if held and held != said:
            print(f"-- pod {name}: {printable(held)}", file=sys.stderr, flush=True)
            said = held
        await asyncio.sleep(_LOOK_SECONDS)


async def _warned(cluster: Cluster, pod: Object) -> str:
    """What events say of a pod that its status says nothing of: a volume that cannot be mounted."""
    found = [each for each in await cluster.events({pod["metadata"]["uid"]}) if each.get("type") == "Warning"]
    return f"{found[-1].get('reason')}: {found[-1].get('message')}" if found else ""


def _held_up_by(pod: Object) -> str:
    status: dict[str, Any] = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for each in status.get("containerStatuses") or ():
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    return ""


def _exit_code(pod: Object) -> int | None:
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        if (terminated := (each.get("state") or {}).get("terminated")) is not None:
            return int(terminated.get("exitCode", 1))
    return None


async def _sweep(cluster: Cluster, job: Object) -> None:
    """Those of callers that were killed."""
    page = await cluster.client.list(
        PODS, cluster.namespace, label_selector=f"{LABEL_LOOKS_AT}={job['metadata']['uid']}"
    )
    for pod in page.items:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            await _delete(cluster, pod)


async def _delete(cluster: Cluster, pod: Object) -> None:
    meta = pod["metadata"]
    with contextlib.suppress(KubeError):  # it ends by itself, and goes with the job
        await cluster.client.delete(
            PODS, meta["name"], cluster.namespace, uid=meta["uid"], grace_seconds=0, timeout=_DELETE_SECONDS
        )


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C cancels what runs, so that the pod is deleted."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
