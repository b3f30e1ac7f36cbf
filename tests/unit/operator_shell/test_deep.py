"""A tenant's job of a thousand levels, beside others: it is told that it is too deep, and they train."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from drivetrain_operator.clock import SystemClock
from drivetrain_operator.jobwatch import KopfWatch
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.resources import TRAININGJOBS, Object
from harness.patience import patiently
from unit.operator_shell.world import NAMESPACE, World, a_job


def deep(levels: int) -> str:
    metadata = {"name": "deep", "namespace": NAMESPACE, "uid": "d", "resourceVersion": "1"}
    job = {**a_job("deep"), "metadata": metadata}
    nested = '{"a":' * levels + "1" + "}" * levels
    return json.dumps({**job, "spec": {**job["spec"], "podTemplate": "HERE"}}).replace('"HERE"', nested)


@asynccontextmanager
async def with_a_deep_job(world: World, levels: int) -> AsyncIterator[str]:
    """A server that tells the same as the world's, and of one more job: the embedded one cannot hold it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        address = f"{world.api.address}{request.rel_url}"
        async with ClientSession() as http, http.get(address, headers={**request.headers, "Host": "x"}) as answer:
            if request.query.get("watch"):
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(f'{{"type":"MODIFIED","object":{deep(levels)}}}\n'.encode())
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
            body = await answer.json()
            text = json.dumps(body)
            if request.path.endswith("/trainingjobs"):
                text = json.dumps({**body, "items": [*body["items"], "HERE"]}).replace('"HERE"', deep(levels))
            return web.Response(text=text, status=answer.status, content_type="application/json")

    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("levels", [600, 1_100, 9_000])
async def test_the_watch_goes_on(levels: int, world: World) -> None:
    heard: list[str] = []

    def observe(_: str | None, obj: Object) -> None:
        heard.append(obj["metadata"]["name"])

    await world.create_job(a_job())
    stop = asyncio.Event()
    async with with_a_deep_job(world, levels) as address:
        watch = KopfWatch(FixedCredentials(address, token=world.api.token), (), SystemClock())
        running = asyncio.create_task(watch.run(observe, stop))
        async with patiently(20):
            while not {"charlm", "deep"} <= set(heard):
                await asyncio.sleep(0.05)
        await world.create_job(a_job("other"))
        async with patiently(20):
            while "other" not in heard:
                await asyncio.sleep(0.05)
        stop.set()
        await running


@pytest.mark.parametrize("levels", [600, 1_100, 9_000])
async def test_and_so_do_lists(levels: int, world: World) -> None:
    await world.create_job(a_job())
    async with with_a_deep_job(world, levels) as address:
        client = KubeClient(FixedCredentials(address, token=world.api.token), SystemClock())
        page = await client.list(TRAININGJOBS)
        await client.close()
    assert {obj["metadata"]["name"] for obj in page.items} == {"charlm", "deep"}
