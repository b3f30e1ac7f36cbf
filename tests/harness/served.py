"""The embedded API server in a thread, for programs with an event loop of their own, such as the CLI's commands."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from drivetrain_api.crd import custom_resource_definition
from drivetrain_local.apiserver import ApiServer
from drivetrain_local.client import Client

Json = dict[str, Any]
JOBS = "/apis/drivetrain.dev/v1alpha1/namespaces/{}/trainingjobs"
_CRD = custom_resource_definition()
_T = TypeVar("_T")


@dataclass
class Served:
    """One running API server with TrainingJobs, and no operator: what an operator would write, a test writes."""

    server: ApiServer
    kubeconfig: Path
    _loop: asyncio.AbstractEventLoop

    def put(self, job: Json) -> Json:
        """Create a job, and give it its status."""
        return self._ask(self._put(job))

    def say(self, name: str, status: Json, namespace: str = "default") -> Json:
        """Change the job's status, as its operator would."""
        path = f"{JOBS.format(namespace)}/{name}/status"
        return self._ask(self._call("patch", path, {"status": status}))

    def get(self, path: str) -> Json:
        """Any object or list."""
        return self._ask(self._call("get", path))

    def job(self, name: str, namespace: str = "default") -> Json:
        """A job as it is stored."""
        return self.get(f"{JOBS.format(namespace)}/{name}")

    def post(self, path: str, body: Json) -> Json:
        """Create any object."""
        return self._ask(self._call("post", path, body))

    def patch(self, path: str, body: Json) -> Json:
        """Change any object."""
        return self._ask(self._call("patch", path, body))

    async def _put(self, job: Json) -> Json:
        path = JOBS.format(job["metadata"].get("namespace", "default"))
        made: Json = await self._call("post", path, {key: job[key] for key in job if key != "status"})
        if "status" in job:
            made = await self._call("patch", f"{path}/{made['metadata']['name']}/status", {"status": job["status"]})
        return made

    async def _call(self, verb: str, path: str, *body: Json) -> Json:
        client = Client.from_kubeconfig(self.kubeconfig, user_agent="test")
        try:
            answer: Json = await getattr(client, verb)(path, *body)
            return answer
        finally:
            await client.close()

    def _ask(self, asked: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Started in a thread of its own, ended on leaving."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="apiserver")
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(_started(), loop).result(30)
        server.write_kubeconfig(folder / "kubeconfig")
        try:
            yield Served(server, folder / "kubeconfig", loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@contextlib.contextmanager
def obeyed(api: Served, every: float = 0.5) -> Iterator[None]:
    """Jobs succeed as if an operator was there and their scripts did nothing; those that are suspended rest."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            for job in api.get(JOBS.format("default"))["items"]:
                before = (job.get("status") or {}).get("phase")
                phase = "Suspended" if job["spec"].get("suspend") else "Succeeded" if before == "Running" else "Running"
                if before not in (phase, "Succeeded"):
                    api.say(job["metadata"]["name"], {"phase": phase, "conditions": _complete(phase)})

    thread = threading.Thread(target=look, name="operator")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def _complete(phase: str) -> list[Json]:
    since = "2026-01-01T00:00:00Z"
    condition = {"type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": since}
    return [condition] if phase == "Succeeded" else []


async def _started() -> ApiServer:
    server = ApiServer(crds=[_CRD])
    await server.start()
    return server
