"""`AsyncClient`: a job's life, for code with an event loop. Each call is the command line's own code.

    async with AsyncClient() as client:
        job = await client.submit("train.py", workers=3)
        async for line in client.logs(job):
            print(line)
        await client.wait(job)

A wait ends with its limit, or when its task is cancelled; the job goes on then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from drivetrain_api.choices import RuntimeName
from drivetrain_cli import logs, why
from drivetrain_cli.cluster import Cluster, Where, connect
from drivetrain_cli.errors import JobNotFound
from drivetrain_cli.errors import TookTooLong as WaitTimeout
from drivetrain_cli.follow import finished, follow
from drivetrain_cli.life import delete, events, page, patience, rest, scale
from drivetrain_cli.plane import default_state
from drivetrain_cli.results.command import check_path, opened
from drivetrain_cli.results.fetch import chosen, fetch
from drivetrain_cli.run import create
from drivetrain_client.errors import JobFailed, told
from drivetrain_client.job import Event, Job, LogLine, Result, event_of, job_of, kept_of, line_of, result_of
from drivetrain_client.submission import wish_of

Name: TypeAlias = "str | Job"
"""Of a job; a Job stands for its name."""
Jobs: TypeAlias = "list[Job]"
Events: TypeAlias = "list[Event]"
Results: TypeAlias = "list[Result]"
Paths: TypeAlias = "list[Path]"
DAY: Final = 86400.0
_LOOK_SECONDS: Final = 1.0


class AsyncClient:
    """Talks to the API server that kubectl would talk to, else to the embedded plane of this machine."""

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        embedded: bool = False,
        state: Path | None = None,
        start: bool = False,
    ) -> None:
        """`embedded`: the embedded plane, whatever KUBECONFIG says; `state`: its folder; `start`: start it if no
        cluster is configured and it does not run. Connects when it is first asked something."""
        path = str(kubeconfig) if kubeconfig is not None else None
        self._where = Where(path, context, namespace, embedded, state or default_state())
        self._start = start
        self._stack = contextlib.AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._cluster: Cluster | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Another call opens them again."""
        self._cluster = None
        await self._stack.aclose()

    async def submit(
        self,
        program: str | Path | Callable[..., object],
        *,
        arguments: Sequence[str] | Mapping[str, Any] = (),
        name: str | None = None,
        workers: int = 1,
        elastic: tuple[int, int] | None = None,
        image: str | None = None,
        gpus: int | None = None,
        processes_per_worker: int | None = None,
        runtime: RuntimeName | None = None,
        training: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        requirements: str | Path | None = None,
        folder: str | Path | None = None,
        flags: Sequence[str] = (),
    ) -> Job:
        """A script, a folder with a `__main__.py`, or a function, as a job; it is not waited for.

        `arguments`: words for a script, keywords for a function. `training`: as `spec.training`. `flags`: any further
        ones of `drivetrain run`, as on its command line. Raises UsageError, which names what cannot work.
        """
        wish = wish_of(
            program,
            arguments,
            flags=flags,
            training=training,
            env=env or {},
            options={
                "--name": name,
                "--workers": workers,
                "--elastic": f"{elastic[0]}:{elastic[1]}" if elastic is not None else None,
                "--image": image,
                "--gpus": gpus,
                "--processes-per-worker": processes_per_worker,
                "--runtime": runtime,
                "--requirements": requirements,
                "--folder": folder,
            },
        )
        async with self._use() as cluster:
            await cluster.knows_jobs()
            await create(cluster, wish)
            return job_of(await cluster.job(wish.name))

    async def get(self, job: Name) -> Job:
        """How it is now. Raises JobNotFound, with the nearest names."""
        async with self._use() as cluster:
            return job_of(await cluster.job(_name(job)))

    async def list(self, *, all_namespaces: bool = False, selector: str | None = None) -> Jobs:
        """All jobs, by name. `selector`: of their labels, such as "team=vision"."""
        async with self._use() as cluster:
            namespace = None if all_namespaces else cluster.namespace
            return [job_of(each) for each in await cluster.jobs(namespace, selector=selector)]

    async def describe(self, job: Name) -> str:
        """The page that `drivetrain status JOB` prints."""
        async with self._use() as cluster:
            found = await cluster.job(_name(job))
            return "\n".join(page.page(found, await cluster.pods(found), datetime.now(UTC)))

    async def why(self, job: Name) -> str:
        """Why it does not run, restarted or failed, and what can be done: what `drivetrain why JOB` prints."""
        async with self._use() as cluster:
            return "\n".join(await why.reasons_of(cluster, await cluster.job(_name(job))))

    async def wait(
        self,
        job: Name,
        *,
        phases: Sequence[str] = ("Succeeded",),
        timeout: float = DAY,
        on_change: Callable[[Job], object] | None = None,
    ) -> Job:
        """Until the job is in one of these phases; `on_change` is called with it each time that it has changed.

        Raises JobFailed when it fails (unless "Failed" is one of them) or is deleted, or has succeeded without having
        been in any of them; WaitTimeout after `timeout` seconds.
        """
        deadline, seen, last = time.monotonic() + timeout, "", None
        async with self._use() as cluster:
            while True:
                try:
                    left = max(0.0, deadline - time.monotonic())
                    found = await patience.patient_job(cluster, _name(job), left)
                except JobNotFound as error:
                    if last is None:
                        raise
                    raise JobFailed(f"{last.name} was deleted while it was waited for", last) from error
                last = job_of(found)
                if on_change is not None and (version := found["metadata"]["resourceVersion"]) != seen:
                    seen = version
                    on_change(last)
                if last.phase in phases:
                    return last
                if finished(found):
                    raise JobFailed(f"{last}; waited for was {' or '.join(phases)}", last)
                if time.monotonic() + _LOOK_SECONDS > deadline:
                    raise WaitTimeout(
                        f"{last}; it was not {' or '.join(phases)} within {timeout:g} s (timeout), and goes on"
                    )
                await asyncio.sleep(_LOOK_SECONDS)

    async def logs(self, job: Name, *, follow: bool = True, tail: int | None = None) -> AsyncGenerator[LogLine]:
        """Lines of all workers. With `follow` as they are written, until the job ends: it waits for pods, goes on with
        their replacements, and outlives cut connections; each line comes once. `tail`: only the last of each pod first.
        Of pods that are gone, what status keeps of failures. Raises JobNotFound."""
        async with self._use() as cluster:
            found = await cluster.job(_name(job))
            if follow and not finished(found):
                async with contextlib.aclosing(_follow(cluster, _name(job), tail)) as lines:
                    async for line in lines:
                        yield line
                return
            there = await logs.collected(cluster, found, tail)
            for entry in there.lines if there.any else kept_of(found):
                yield line_of(entry)

    async def events(self, job: Name) -> Events:
        """What the cluster and the operator say about the job and its pods, oldest first."""
        async with self._use() as cluster:
            found = await cluster.job(_name(job))
            return [event_of(each) for each in events.about(found, await cluster.all_events())]

    async def results(self, job: Name) -> Results:
        """Files in the job's storage (spec.storage), while it runs or after it has ended. Raises ClientError."""
        async with (
            self._use() as cluster,
            opened(cluster, await cluster.job(_name(job)), None, signals=False) as source,
        ):
            return [result_of(each) for each in await source.entries()]

    async def fetch(self, job: Name, path: str = "", to: str | Path = ".") -> Paths:
        """Bring a file of the job's storage, a folder, or all of it, to this machine, as `drivetrain get JOB:PATH TO`;
        where they are now. Raises UsageError with the nearest names, ClientError."""
        name, target = path.strip("/"), Path(to)
        check_path(path)
        async with (
            self._use() as cluster,
            opened(cluster, await cluster.job(_name(job)), name, signals=False) as source,
        ):
            into = str(to).endswith("/")
            wishes = chosen(await source.entries(), name, target, job=_name(job), into=into)
            for wish in wishes:
                await fetch(source, wish, lambda entry, size: None)
            return [wish.target for wish in wishes]

    async def scale(self, job: Name, workers: int) -> Job:
        """Change the number of workers. Raises UsageError that names the bound which this breaks."""
        async with self._use() as cluster:
            await scale.scale(cluster, await cluster.job(_name(job)), workers)
            return job_of(await cluster.job(_name(job)))

    async def suspend(self, job: Name, *, timeout: float = 60.0) -> Job:
        """Stop it for a while; back once it rests. `resume` goes on from its last snapshot, or its last run.save."""
        async with self._use() as cluster:
            await rest.suspend(cluster, await cluster.job(_name(job)))
            return job_of(await rest.until_suspended(cluster, _name(job), timeout))

    async def resume(self, job: Name, *, timeout: float = 60.0) -> Job:
        """Let it go on; back once the operator has taken it up."""
        async with self._use() as cluster:
            await rest.resume(cluster, await cluster.job(_name(job)))
            return job_of(await rest.until_resumed(cluster, _name(job), timeout))

    async def delete(self, job: Name, *, wait: bool = False, timeout: float = 120.0) -> None:
        """Delete it and its pods; snapshots stay. With `wait`, back once the pods are gone."""
        async with self._use() as cluster:
            found = await cluster.job(_name(job))
            await delete.delete(cluster, found)
            if wait:
                await delete.until_gone(cluster, [found], timeout)

    @contextlib.asynccontextmanager
    async def _use(self) -> AsyncIterator[Cluster]:
        with told():
            async with self._connecting:
                if self._cluster is None:
                    self._cluster = await self._stack.enter_async_context(connect(self._where, start=self._start))
            yield self._cluster


def _name(job: Name) -> str:
    return job if isinstance(job, str) else job.name


async def _follow(cluster: Cluster, name: str, tail: int | None) -> AsyncGenerator[LogLine]:
    async with contextlib.aclosing(follow(cluster, name, tail=tail)) as lines:
        async for line in lines:
            yield line_of(line)
