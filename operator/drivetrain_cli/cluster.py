"""Which API server do we talk to, and how? `connect` finds it as kubectl would; `Cluster` asks it."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from drivetrain_api.constants import LABEL_JOB_UID, LABEL_ROLE
from drivetrain_cli import plane
from drivetrain_cli.errors import JobNotFound, NoCluster
from drivetrain_cli.invocation import command
from drivetrain_cli.nearest import suggestion
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import Credentials, find_credentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import CredentialsError, KubeError, NotFound
from drivetrain_operator.kube.resources import EVENTS, LEASES, PODS, TRAININGJOBS, Object
from drivetrain_operator.kube.transport import Request, Timeouts, Transport, received

EMBEDDED: Final = "the embedded plane"
EMBEDDED_HOSTS: Final = "127.96."
_AGENT: Final = "drivetrain-cli"
_FRACTION: Final = re.compile(r"(?<=\d\d):(\d\d)(?:\.(\d+))?(?=Z|[+-])")
_TIMEOUTS: Final = Timeouts(connect=3.0, attempt=10.0, list_page=20.0, total=20.0)
_BACKOFF: Final = Backoff(base=0.2, cap=2.0)
_NO_NAMES: Final = ("", ".", "..")
"""Paths of other things: of all jobs, or of the namespace."""
_NOT_INSTALLED: Final = (
    "this API server knows no TrainingJobs: install the operator (helm install drivetrain charts/drivetrain), "
    "or use the embedded plane (drivetrain up; --embedded)"
)


@dataclass(frozen=True, slots=True)
class Where:
    """What the flags say about the API server."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    embedded: bool = False
    state: Path | None = None


class Cluster:
    """One API server and one namespace in it."""

    def __init__(self, credentials: Credentials, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        """Such as `the embedded plane`, for people."""
        clock, rng = SystemClock(), random.Random()
        self.client = KubeClient(credentials, clock, rng, user_agent=_AGENT, timeouts=_TIMEOUTS, backoff=_BACKOFF)
        # KubeClient speaks JSON only, and logs are text.
        self._text = Transport(
            credentials,
            clock,
            rng,
            user_agent=_AGENT,
            timeouts=_TIMEOUTS,
            backoff=_BACKOFF,
            attempts=1,
            observer=None,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()
        await self._text.close()

    async def job(self, name: str) -> Object:
        """The TrainingJob. Raises JobNotFound, NoCluster."""
        try:
            if name in _NO_NAMES:
                raise NotFound(404, message="no name")
            return await self.client.get(TRAININGJOBS, name, self.namespace)
        except NotFound as error:
            here = [str(each["metadata"]["name"]) for each in await self.jobs()]
            told = f"no TrainingJob {name!r} in namespace {self.namespace!r} (-n) of {self.name}"
            raise JobNotFound(told + suggestion(name, here, await self._elsewhere())) from error

    async def jobs(self, namespace: str | None = "", *, selector: str | None = None) -> list[Object]:
        """All TrainingJobs of this namespace, by name; of another one; or with None, of all. Raises NoCluster if the
        CRD is not installed."""
        where = self.namespace if namespace == "" else namespace
        try:
            page = await self.client.list(TRAININGJOBS, where, label_selector=selector)
        except NotFound as error:
            raise NoCluster(_NOT_INSTALLED) from error
        return sorted(page.items, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))

    async def _elsewhere(self) -> list[tuple[str, str]]:
        """(namespace, name) of all jobs, as far as they may be seen."""
        try:
            return [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in await self.jobs(None)]
        except KubeError:
            return []  # who may see one namespace only is told of that one

    async def knows_jobs(self) -> None:
        """Raises NoCluster if the CRD is not installed."""
        try:
            async with contextlib.aclosing(self.client.pages(TRAININGJOBS, self.namespace, limit=1)) as pages:
                async for _ in pages:
                    return
        except NotFound as error:
            raise NoCluster(_NOT_INSTALLED) from error

    async def pods(self, job: Object, of_role: str | None = None) -> list[Object]:
        """The job's pods, all or those of one role, by name."""
        uid = job["metadata"]["uid"]
        page = await self.client.list(PODS, self.namespace, label_selector=f"{LABEL_JOB_UID}={uid}")
        found = [p for p in page.items if of_role is None or of_role == role(p)]
        return sorted(found, key=lambda p: str(p["metadata"]["name"]))

    async def events(self, uids: set[str]) -> list[Object]:
        """Events about these objects, oldest first."""
        return [each for each in await self.all_events() if (each.get("involvedObject") or {}).get("uid") in uids]

    async def all_events(self) -> list[Object]:
        """Events of the namespace, oldest first."""
        return sorted((await self.client.list(EVENTS, self.namespace)).items, key=event_time)

    async def lease(self, namespace: str, name: str) -> tuple[bytes, str]:
        """A Lease as JSON, and the API server's time of day when it answered. Raises KubeError."""
        request = Request("get", "leases", "GET", LEASES.path(namespace, name), {})
        async with self._text.open(request, limit=_TIMEOUTS.attempt) as response:
            return b"".join([piece async for piece in received(request, response)]), response.headers.get("Date", "")

    async def log(
        self, pod: str, container: str, *, follow: bool, since: str = "", tail: int | None = None
    ) -> AsyncGenerator[tuple[str, str]]:
        """(RFC 3339 time, line) of a container's log. Raises KubeError."""
        params = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
        params |= {"sinceTime": since} if since else {}
        params |= {"tailLines": str(tail)} if tail is not None else {}
        path = PODS.path(self.namespace, pod, "log")
        request = Request("get", "pods/log", "GET", path, params)
        pending = b""
        async with self._text.open(request, limit=None) as response:
            async for piece in received(request, response):
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    yield _stamped(line)
        if pending:
            yield _stamped(pending)


@contextlib.asynccontextmanager
async def connect(where: Where, *, start: bool = False) -> AsyncIterator[Cluster]:
    """The cluster that kubectl would use, else the embedded plane. `start` starts that if it does not run, and says so.

    Raises NoCluster.
    """
    cluster = await _find(where, start=start)
    try:
        yield cluster
    finally:
        await cluster.close()


async def _find(where: Where, *, start: bool) -> Cluster:
    try:
        if not where.embedded:
            credentials = find_credentials(SystemClock(), kubeconfig=where.kubeconfig, context=where.context)
            access = await credentials.access()
            return Cluster(credentials, where.namespace or access.namespace, _name(access.server))
    except CredentialsError as error:
        if where.kubeconfig or where.context:
            raise NoCluster(f"--kubeconfig or --context: {error}") from error
        if "no API server is known" not in str(error):
            raise NoCluster(f"{error}; to use the embedded plane, give --embedded") from error
    state = where.state or plane.default_state()
    kubeconfig = plane.running(state)
    if kubeconfig is None and start:
        print(
            f"No cluster is configured: starting the embedded plane on this machine ({command()} down ends it).",
            flush=True,
        )
        kubeconfig = await plane.start(state)
    if kubeconfig is None:
        raise NoCluster(f"no cluster is configured (KUBECONFIG), and the embedded plane does not run: {command()} up")
    credentials = find_credentials(SystemClock(), kubeconfig=str(kubeconfig))
    return Cluster(credentials, where.namespace or "default", EMBEDDED)


def _name(server: str) -> str:
    """Address for people: without the path, which may be a secret, as the embedded plane's is."""
    parts = urlsplit(server)
    return EMBEDDED if (parts.hostname or "").startswith(EMBEDDED_HOSTS) else f"{parts.scheme}://{parts.netloc}"


async def reachable(cluster: Cluster) -> str | None:
    """The server's version, or None if it does not answer."""
    try:
        return str((await cluster.client.version(timeout=5.0)).get("gitVersion", "?"))
    except KubeError:
        return None


def event_time(event: Object) -> str:
    """When an event happened last; RFC 3339 sorts as text."""
    series = event.get("series") or {}
    stamp = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(stamp or event["metadata"].get("creationTimestamp") or "")


def role(pod: Object) -> str:
    """`constants.ROLE_WORKER` or `ROLE_COORDINATOR`."""
    return str((pod["metadata"].get("labels") or {}).get(LABEL_ROLE, ""))


def _stamped(line: bytes) -> tuple[str, str]:
    stamp, _, text = line.decode(errors="replace").partition(" ")
    return sortable(stamp), text


def sortable(stamp: str) -> str:
    """An RFC 3339 time with nine digits after the second, so that times of one zone sort as text."""
    return _FRACTION.sub(lambda found: f":{found[1]}.{(found[2] or '').ljust(9, '0')}", stamp, count=1)
