"""Where does a request enter? Authentication, faults, the paths that describe the server, and then `handlers.py`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from aiohttp import web

from drivetrain_local.apiserver import discovery, errors, openapi
from drivetrain_local.apiserver.deletes import Deletes
from drivetrain_local.apiserver.errors import ApiError
from drivetrain_local.apiserver.faults import DropConnection, Faults, RequestSeen
from drivetrain_local.apiserver.gc import GarbageCollector
from drivetrain_local.apiserver.handlers import Handlers
from drivetrain_local.apiserver.kinds import Kinds
from drivetrain_local.apiserver.lists import Lists
from drivetrain_local.apiserver.request import Target, parse
from drivetrain_local.apiserver.resources import Registry
from drivetrain_local.apiserver.store import Store
from drivetrain_local.apiserver.watches import Watches
from drivetrain_local.apiserver.writes import WriteOptions, Writes
from drivetrain_local.objects import Obj
from drivetrain_local.ports import LIMITS, loopback, same
from drivetrain_local.tasks import ended
from drivetrain_serving.listener import Listener
from drivetrain_serving.refusals import Refusals

_log = logging.getLogger(__name__)
_OPEN_PATHS = ("/healthz", "/readyz", "/livez", "/version")
"""What anybody on this machine may know: that there is a server, and which."""


class ApiServer:
    """One API server in this event loop. See the package's docstring for its use."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        crds: Iterable[Path | Obj] = (),
        faults: Faults | None = None,
        history: int = 10_000,
        bookmark_seconds: float = 30.0,
        service_cidr: str = "127.96.0.0/16",
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self.faults = faults or Faults()
        self.store = Store(history=history)
        self._host, self._port = loopback(host), port
        self._registry = Registry()
        self._writes = Writes(self.store, self._registry, Kinds(service_cidr))
        deletes = Deletes(self.store, self._writes)
        self._lists = Lists(self.store)
        watches = Watches(self.store, bookmark_seconds=bookmark_seconds)
        self._handlers = Handlers(
            self.store, self._registry, self._writes, deletes, self._lists, watches, self.faults, self.token
        )
        self.collector = GarbageCollector(self.store, self._registry, self._writes, deletes)
        self._gc_task: asyncio.Task[None] | None = None
        self._listener = Listener(self._serve, LIMITS, Refusals("apiserver", time.monotonic))
        self._found_cluster(crds)

    @property
    def address(self) -> str:
        """http://host:port, without credentials."""
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The server URL with the token as its first path segment.

        kubectl sends no bearer token over plain HTTP, so the path carries it; `Authorization: Bearer` works as well,
        with or without the path.
        """
        return f"{self.address}/{self.token}"

    async def start(self) -> None:
        """Listen. The port is known afterwards."""
        self._port = await self._listener.start(self._host, self._port)
        self._gc_task = asyncio.create_task(self.collector.run(), name="garbage-collector")

    async def stop(self) -> None:
        """Drop every connection and stop; the objects stay readable in `store`."""
        if self._gc_task is not None:
            await ended(self._gc_task)
        self.faults.break_watches()
        await self._listener.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def session(self) -> aiohttp.ClientSession:
        """A client session with the token and this server as its base URL; the caller closes it."""
        return aiohttp.ClientSession(self.address, headers={"Authorization": f"Bearer {self.token}"})

    def compact(self, resource: str | None = None) -> None:
        """Forget history and continue tokens: what asks for the past gets 410. `resource` is a storage key."""
        self.store.compact(resource)
        self._lists.forget()

    def write_kubeconfig(self, path: Path) -> None:
        """Write a kubeconfig that only its owner can read, in one step."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "drivetrain-local", "cluster": {"server": self.url}}],
            "users": [{"name": "drivetrain-local", "user": {"token": self.token}}],
            "contexts": [
                {
                    "name": "drivetrain-local",
                    "context": {"cluster": "drivetrain-local", "user": "drivetrain-local", "namespace": "default"},
                }
            ],
            "current-context": "drivetrain-local",
        }
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        # Made anew: one that lies there already may be open in somebody's hands, or lead elsewhere.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
        draft.replace(path)

    def _found_cluster(self, crds: Iterable[Path | Obj]) -> None:
        """The objects that every cluster has from its start."""
        for namespace in ("default", "kube-system", "kube-public"):
            self._create("namespaces", "", {"metadata": {"name": namespace}})
            self._create("serviceaccounts", namespace, {"metadata": {"name": "default"}})
        for source in crds:
            for crd in [source] if isinstance(source, dict) else _read(source):
                self._create("apiextensions.k8s.io/customresourcedefinitions", "", crd)

    def _create(self, storage: str, namespace: str, obj: Obj) -> None:
        self._writes.create(self._registry.of_storage(storage), namespace, obj, WriteOptions())

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Always an answer: nothing that a caller sends may end in a traceback."""
        try:
            path = self._path_of_a_known_caller(request)
            if (known := self._about(path, request)) is not None:
                return known
            target = parse(request.method, path, dict(request.query), self._registry)
            return await self._with_faults(request, target)
        except DropConnection:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        except ApiError as error:
            return _failure(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001
            # A bug here must reach the client as a 500 with its text and the log with its trace, as a panic of the
            # real server does; otherwise a test would see an unexplained dropped connection.
            _log.exception("request failed", extra={"method": request.method, "path": request.path})
            return _failure(ApiError(500, "InternalError", f"Internal error occurred: {error!r}"))

    async def _with_faults(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        seen = RequestSeen(
            verb=target.verb,
            group=target.resource.group,
            resource=target.resource.plural,
            subresource=target.subresource,
            namespace=target.namespace or "",
            name=target.name,
            user_agent=request.headers.get("User-Agent", ""),
        )
        await self.faults.strike(seen, "before")
        response = await self._handlers.answer(request, target)
        await self.faults.strike(seen, "after")
        return response

    def _path_of_a_known_caller(self, request: web.BaseRequest) -> str:
        """The path without the token. Raises 401; whoever may ask without one asks once a connection."""
        path = request.path
        head, _, rest = path.lstrip("/").partition("/")
        if same(head, self.token):
            path = f"/{rest}"
        elif not same(request.headers.get("Authorization", ""), f"Bearer {self.token}"):
            if path in _OPEN_PATHS and request.method == "GET":
                return path
            raise errors.unauthorized()
        if not self._listener.admit(request, "token"):
            raise errors.too_many_requests(1)
        return path

    def _about(self, path: str, request: web.BaseRequest) -> web.Response | None:
        """Answers that describe the server itself; None when the path is for a resource."""
        parts = [part for part in path.split("/") if part]
        match parts:
            case ["healthz" | "readyz" | "livez", *_]:
                return _once(request, web.Response(text="ok"))
            case ["version"]:
                return _once(request, _ok(discovery.version()))
            case ["api"]:
                return _ok(discovery.api_versions(self.address.removeprefix("http://")))
            case ["apis"]:
                return _ok(discovery.groups(self._registry))
            case ["api", "v1"]:
                return _ok(discovery.resources(self._registry, "", "v1"))
            case ["apis", group]:
                return _ok(discovery.group(self._registry, group))
            case ["apis", group, version]:
                return _ok(discovery.resources(self._registry, group, version))
            case ["openapi", "v3"]:
                return _ok(openapi.index(self._registry))
            case ["openapi", "v3", *rest]:
                return _ok(openapi.document(self._registry, "/".join(rest)))
            case ["openapi", "v2"]:
                raise errors.not_here("OpenAPI v2")
            case []:
                return _ok({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]})
            case _:
                return None


def _read(path: Path) -> list[Obj]:
    """The CustomResourceDefinitions in a YAML file, or in all of a directory."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in documents if document and document.get("kind") == "CustomResourceDefinition"]


def _ok(obj: Obj) -> web.Response:
    return web.Response(body=json.dumps(obj).encode(), content_type="application/json")


def _failure(error: ApiError) -> web.Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = json.dumps(error.status()).encode()
    response = web.Response(body=body, status=error.code, content_type="application/json", headers=headers)
    if error.code in (401, 408, 413):
        # What else comes on this connection is not read: it belongs to a stranger, or is the rest of a body.
        response.force_close()
    return response


def _once(request: web.BaseRequest, response: web.Response) -> web.Response:
    """An answer for anybody: a stranger keeps no connection."""
    if "Authorization" not in request.headers:
        response.force_close()
    return response
