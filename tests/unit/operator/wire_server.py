"""A server that says exactly the bytes that a test wants: faults that no well-behaved API server can be asked for."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from harness.patience import patiently

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def until(condition: Callable[[], object]) -> None:
    """Waits, 10 s at most, until a state holds."""
    async with patiently(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.003)


@dataclass
class WireServer:
    """Answers requests with `script`, one each, the last one for ever. `seen` keeps (method, path?query)."""

    script: list[Answer]
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        self.headers.append(dict(request.headers))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await answer(request)

    @property
    def watches(self) -> int:
        return sum("watch=true" in path for _, path in self.seen)

    @property
    def lists(self) -> int:
        return sum("limit=" in path for _, path in self.seen)


@asynccontextmanager
async def serving(*script: Answer) -> AsyncIterator[WireServer]:
    server = WireServer(list(script))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def status(code: int, reason: str = "", message: str = "no", **headers: str) -> Answer:
    """A Status object as Kubernetes answers it."""

    async def answer(_: web.Request) -> web.StreamResponse:
        body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
        return web.json_response(body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def ok(body: Any) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body)

    return answer


def text(code: int, body: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=body)

    return answer


async def silent(_: web.Request) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.sleep(3600)
    raise AssertionError("the client waited for an hour")


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Takes the request and closes the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def stream(*pieces: bytes, then: str = "end") -> Answer:
    """Sends pieces of a watch; `then` is end (politely), cut (the connection breaks) or silence."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.001)
        if then == "cut":
            assert request.transport is not None
            await asyncio.sleep(0.02)  # what was written shall arrive before the reset
            request.transport.abort()
        elif then == "silence":
            await asyncio.sleep(3600)
        return response

    return answer


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def expired() -> bytes:
    return event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


def pod(
    name: str, version: int, *, uid: str | None = None, owner: str | None = "job-1", **extra: Any
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
    }
    if owner:
        meta["ownerReferences"] = [{"uid": owner, "controller": True, "kind": "TrainingJob", "name": "j"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, **extra}


def pod_list(version: int, *pods: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {
        "kind": "PodList",
        "metadata": {"resourceVersion": str(version), **({"continue": more} if more else {})},
        "items": list(pods),
    }
