"""How do the node agent and the controllers talk to the API server? Over HTTP like everybody else.

Small on purpose: JSON in, JSON out, one error type, and `Mirror`, a list+watch that keeps a local copy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from drivetrain_local.objects import Obj, meta

_log = logging.getLogger(__name__)
_REQUEST_SECONDS = 15.0
_WATCH_SECONDS = 300
_MAX_LINE = 8 * 1024 * 1024
MERGE = "application/merge-patch+json"

OnChange = Callable[[str, Obj], None]
"""Called with ADDED, MODIFIED or DELETED and the object."""


class ApiFailure(Exception):
    """A Status from the server."""

    def __init__(self, status: Obj) -> None:
        super().__init__(status.get("message", ""))
        self.code = int(status.get("code", 0))
        self.reason = str(status.get("reason", ""))


RETRYABLE = (ApiFailure, aiohttp.ClientError, TimeoutError, ConnectionError)
"""What a loop that will try again may catch."""


class Client:
    """A connection to one API server, closed with `close`."""

    def __init__(self, address: str, token: str, *, user_agent: str) -> None:
        self._address = address.rstrip("/")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": user_agent}
        self._session = aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=0), read_bufsize=2**18
        )

    @staticmethod
    def from_kubeconfig(path: Path, *, user_agent: str) -> Client:
        """A client for the first cluster and user of a kubeconfig that `ApiServer.write_kubeconfig` wrote."""
        config = yaml.safe_load(path.read_text())
        server, user = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]
        return Client(server, user["token"], user_agent=user_agent)

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Any = None, *, query: dict[str, str] | None = None, content_type: str = ""
    ) -> Obj:
        """One request. Raises ApiFailure, or aiohttp's errors where there was no answer."""
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        headers = {"Content-Type": content_type or "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, self._address + path, data=data, params=query, headers=headers, timeout=timeout
        ) as answer:
            content: Obj = await answer.json()
            if answer.status >= 400:
                raise ApiFailure(content)
            return content

    async def get(self, path: str, query: dict[str, str] | None = None) -> Obj:
        return await self.call("GET", path, query=query)

    async def post(self, path: str, body: Obj) -> Obj:
        return await self.call("POST", path, body)

    async def patch(self, path: str, body: Obj) -> Obj:
        """A merge patch."""
        return await self.call("PATCH", path, body, content_type=MERGE)

    async def delete(self, path: str, options: Obj | None = None) -> Obj:
        return await self.call("DELETE", path, options)

    async def watch(self, path: str, query: dict[str, str]) -> AsyncGenerator[Obj, None]:
        """The events of one watch connection, until the server ends it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_REQUEST_SECONDS, sock_read=_WATCH_SECONDS + 30)
        params = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        async with self._session.get(self._address + path, params=params, timeout=timeout) as answer:
            if answer.status >= 400:
                raise ApiFailure(await answer.json())
            pending = b""
            async for chunk in answer.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


class Mirror:
    """A local copy of a collection that follows the server, through 410s, restarts and lost connections.

    What vanished unseen is told as DELETED after the next list, so nothing stays as a ghost.
    """

    def __init__(self, client: Client, path: str, on_change: OnChange, query: dict[str, str] | None = None) -> None:
        self.objects: dict[tuple[str, str], Obj] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._path = path
        self._on_change = on_change
        self._query = query or {}

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            try:
                revision = await self._list()
                failures = 0
                while revision:
                    revision = await self._follow(revision)
            except RETRYABLE as error:
                failures = min(failures + 1, 6)
                _log.info("mirror interrupted", extra={"path": self._path, "error": str(error)})
                await asyncio.sleep(random.uniform(0.02, 0.05) * 2**failures)

    async def _list(self) -> str:
        listed = await self._client.get(self._path, self._query)
        present = {_key(item): item for item in listed["items"]}
        for key in [key for key in self.objects if key not in present]:
            self._on_change("DELETED", self.objects.pop(key))
        for key, item in present.items():
            known = self.objects.get(key)
            if known is not None and meta(known)["uid"] != meta(item)["uid"]:
                self._on_change("DELETED", self.objects.pop(key))
                known = None
            if known is None or meta(known)["resourceVersion"] != meta(item)["resourceVersion"]:
                self.objects[key] = item
                self._on_change("ADDED" if known is None else "MODIFIED", item)
        self.synced.set()
        return str(listed["metadata"]["resourceVersion"])

    async def _follow(self, revision: str) -> str:
        """Apply one watch connection. Returns where to go on, or "" when a new list is needed."""
        async for event in self._client.watch(self._path, {**self._query, "resourceVersion": revision}):
            obj = event["object"]
            if event["type"] == "ERROR":
                return ""
            revision = meta(obj)["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self.objects.pop(_key(obj), None)
            else:
                self.objects[_key(obj)] = obj
            self._on_change(event["type"], obj)
        return revision


def _key(obj: Obj) -> tuple[str, str]:
    return meta(obj).get("namespace", ""), meta(obj)["name"]
