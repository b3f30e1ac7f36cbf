"""What can a test make the API server do wrong, and does the server itself misbehave only when asked to?"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from drivetrain_local.apiserver import ApiServer, Fault
from drivetrain_local.client import Client, Mirror
from drivetrain_local.objects import now
from harness.patience import patiently

_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def http(api: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with api.session() as session:
        yield session


async def _create(http: aiohttp.ClientSession, name: str) -> tuple[int, dict[str, Any]]:
    async with http.post(_MAPS, json={"metadata": {"name": name}}) as answer:
        return answer.status, await answer.json()


async def test_a_fault_hits_the_chosen_requests_only(api: ApiServer, http: aiohttp.ClientSession) -> None:
    api.faults.add(Fault(verb="create", resource="configmaps", skip=1, times=2, error=503))
    assert [(await _create(http, f"m{i}"))[0] for i in range(4)] == [201, 503, 503, 201]
    assert api.store.get("configmaps", "default", "m1") is None


async def test_too_many_requests_says_when_to_come_again(api: ApiServer, http: aiohttp.ClientSession) -> None:
    api.faults.add(Fault(verb="list", error=429, retry_after=3))
    async with http.get(_MAPS) as answer:
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "3"
        assert (await answer.json())["details"]["retryAfterSeconds"] == 3


async def test_a_lost_answer_is_a_write_that_took_effect(api: ApiServer, http: aiohttp.ClientSession) -> None:
    api.faults.add(Fault(verb="create", when="after", drop=True))
    with pytest.raises(aiohttp.ClientError):
        await _create(http, "a")
    assert api.store.get("configmaps", "default", "a") is not None
    assert (await _create(http, "a"))[1]["reason"] == "AlreadyExists"


async def test_a_dropped_request_has_no_effect(api: ApiServer, http: aiohttp.ClientSession) -> None:
    api.faults.add(Fault(verb="create", when="before", drop=True))
    with pytest.raises(aiohttp.ClientError):
        await _create(http, "a")
    assert api.store.get("configmaps", "default", "a") is None


async def test_a_delay_is_waited_for(api: ApiServer, http: aiohttp.ClientSession) -> None:
    api.faults.add(Fault(verb="create", delay=0.2))
    started = time.monotonic()
    assert (await _create(http, "a"))[0] == 201
    assert time.monotonic() - started >= 0.2


async def test_writes_are_counted(api: ApiServer, http: aiohttp.ClientSession) -> None:
    await _create(http, "a")
    async with http.get(_MAPS):
        pass
    async with http.delete(f"{_MAPS}/a"):
        pass
    assert [(seen.verb, seen.name) for seen in api.faults.writes()] == [("create", ""), ("delete", "a")]


async def test_without_the_token_nothing_is_said(api: ApiServer) -> None:
    async with aiohttp.ClientSession() as stranger:
        for path in ("/api/v1/pods", "/apis", f"/wrong-{api.token}/api/v1/pods"):
            async with stranger.get(api.address + path) as answer:
                assert answer.status == 401
                assert (await answer.json())["reason"] == "Unauthorized"
        async with stranger.get(api.url + "/api/v1/pods") as answer:
            assert answer.status == 200


async def test_the_kubeconfig_is_private(api: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    api.write_kubeconfig(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(file.read_text())["clusters"][0]["cluster"]["server"] == api.url


@pytest.mark.parametrize(
    "path",
    ["/apis/apps/v1/deployments", "/api/v1/persistentvolumes", "/apis/rbac.authorization.k8s.io/v1/roles",
     "/api/v1/namespaces/default/pods/a/exec"],
)  # fmt: skip
async def test_what_is_left_out_names_the_real_thing(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.status == 501
        assert "`make cluster`" in (await answer.json())["message"]


async def test_server_side_apply_is_left_out(http: aiohttp.ClientSession) -> None:
    await _create(http, "a")
    headers = {"Content-Type": "application/apply-patch+yaml"}
    async with http.patch(f"{_MAPS}/a", data="{}", headers=headers) as answer:
        assert answer.status == 501


async def test_forgotten_history_is_410_for_watches_and_pages(api: ApiServer, http: aiohttp.ClientSession) -> None:
    for name in ("a", "b", "c"):
        await _create(http, name)
    async with http.get(_MAPS, params={"limit": "1"}) as answer:
        page = (await answer.json())["metadata"]
    await _create(http, "d")
    api.compact()
    async with http.get(_MAPS, params={"limit": "1", "continue": page["continue"]}) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (410, "Expired")
    async with http.get(_MAPS, params={"watch": "1", "resourceVersion": page["resourceVersion"]}) as answer:
        event = json.loads(await answer.content.readline())
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    # The present is never too old.
    now = str(api.store.revision)
    async with http.get(_MAPS, params={"watch": "1", "resourceVersion": now, "timeoutSeconds": "1"}) as answer:
        assert await answer.read() == b""


async def test_a_short_history_forgets_by_itself() -> None:
    async with ApiServer(history=2) as api, api.session() as http:
        start = str(api.store.revision)
        for name in ("a", "b", "c"):
            await _create(http, name)
        async with http.get(_MAPS, params={"watch": "1", "resourceVersion": start}) as answer:
            assert json.loads(await answer.content.readline())["type"] == "ERROR"


async def test_a_mirror_tells_deletions_that_it_never_saw(api: ApiServer, http: aiohttp.ClientSession) -> None:
    """Watch broken, object deleted and made anew, history gone: no ghost, and the new one is told as new."""
    told: list[tuple[str, str]] = []
    changed = asyncio.Event()

    def note(kind: str, obj: dict[str, Any]) -> None:
        told.append((kind, obj["metadata"]["name"]))
        changed.set()

    client = Client(api.address, api.token, user_agent="test")
    mirror = Mirror(client, _MAPS, note)
    task = asyncio.create_task(mirror.run())
    try:
        await _create(http, "gone")
        await _create(http, "again")
        async with patiently(10):
            while len(told) < 2 or not api.faults.watches:
                changed.clear()
                if len(told) < 2:
                    await changed.wait()
                else:
                    await asyncio.sleep(0.01)
        told.clear()
        api.faults.add(Fault(verb="watch", resource="configmaps", error=500, times=1))
        api.faults.break_watches("configmaps")
        for name in ("gone", "again"):
            async with http.delete(f"{_MAPS}/{name}"):
                pass
        await _create(http, "again")
        api.compact()
        async with patiently(10):
            while len(told) < 3:
                changed.clear()
                await changed.wait()
        assert sorted(told) == [("ADDED", "again"), ("DELETED", "again"), ("DELETED", "gone")]
        assert [name for _, name in mirror.objects] == ["again"]
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()


async def test_a_mirror_survives_a_server_that_is_away_for_a_while(tmp_path: Path) -> None:
    """A server that starts anew is empty; what it does not have any more is told as deleted."""
    async with ApiServer(token="t") as first, first.session() as http:
        await _create(http, "a")
        port = int(first.address.rpartition(":")[2])
        told: list[tuple[str, str]] = []
        new = asyncio.Event()

        def note(kind: str, obj: dict[str, Any]) -> None:
            told.append((kind, obj["metadata"]["name"]))
            if told[-1] == ("ADDED", "b"):
                new.set()

        client = Client(first.address, "t", user_agent="test")
        mirror = Mirror(client, _MAPS, note)
        task = asyncio.create_task(mirror.run())
        async with patiently(10):
            await mirror.synced.wait()
    try:
        async with ApiServer(token="t", port=port) as second, second.session() as http:
            await _create(http, "b")
            async with patiently(20):
                await new.wait()
        assert told == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b")]
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.close()


async def test_old_events_expire(api: ApiServer, http: aiohttp.ClientSession) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}}
    async with http.post("/api/v1/namespaces/default/events", json=event) as answer:
        assert answer.status == 201
    api.collector.expire_events(now() - dt.timedelta(hours=1))
    assert api.store.get("events", "default", "e") is not None
    api.collector.expire_events(now() + dt.timedelta(seconds=1))
    assert api.store.get("events", "default", "e") is None
