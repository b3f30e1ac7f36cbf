"""The informer: no ghosts, nothing lost, nothing hot, whatever lists and watches do to it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_local.apiserver import ApiServer, Fault
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.resources import CONFIGMAPS
from unit.operator.informer_log import config, informing
from unit.operator.wire_server import (
    until,
)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def writer(api: ApiServer) -> AsyncIterator[KubeClient]:
    async with KubeClient(FixedCredentials(api.address, token=api.token)) as client:
        yield client


OWN: dict[str, Any] = {
    "label_selector": "app=x",
    "owner": lambda obj: obj["metadata"].get("annotations", {}).get("owner"),
}


async def test_it_lists_follows_and_indexes(api: ApiServer, writer: KubeClient) -> None:
    for n in range(5):
        await writer.create(CONFIGMAPS, config(f"c{n}", "0", owner=f"job-{n % 2}"), "default")
    async with informing(api.address, api.token, CONFIGMAPS, page_size=2, **OWN) as (informer, log):
        await informer.wait_synced(5)
        assert sorted(log.short) == ["+c0", "+c1", "+c2", "+c3", "+c4"]
        assert sorted(view.name for view in informer.owned_by("job-0")) == ["c0", "c2", "c4"]
        written = await writer.merge_patch(CONFIGMAPS, "c0", {"data": {"value": "1"}}, "default")
        await until(lambda: informer.has_seen(written["metadata"]["resourceVersion"]))
        found = informer.get("default", "c0")
        assert found is not None
        assert found.value == "1"
        await writer.delete(CONFIGMAPS, "c2", "default")
        await until(lambda: len(informer) == 4)
        assert sorted(view.name for view in informer.owned_by("job-0")) == ["c0", "c4"]
        assert informer.owned_by("nobody") == ()
        assert {v.name for v in informer.views()} == {"c0", "c1", "c3", "c4"} == set(log.state)
        age = informer.last_event_age()
        assert age is not None
        assert age < 5


async def test_an_object_that_leaves_the_selector_is_gone(api: ApiServer, writer: KubeClient) -> None:
    await writer.create(CONFIGMAPS, config("c", "0"), "default")
    async with informing(api.address, api.token, CONFIGMAPS, **OWN) as (informer, log):
        await until(lambda: len(informer) == 1)
        await writer.merge_patch(CONFIGMAPS, "c", {"metadata": {"labels": {"app": "y"}}}, "default")
        await until(lambda: log.short == ["+c", "-c"])


async def test_a_delete_during_a_410_is_told(api: ApiServer, writer: KubeClient) -> None:
    """kopf keeps such an object for ever."""
    for name in ("stays", "goes", "returns"):
        await writer.create(CONFIGMAPS, config(name, "0"), "default")
    async with informing(api.address, api.token, CONFIGMAPS, **OWN) as (informer, log):
        await until(lambda: len(informer) == 3 and api.faults.watches)
        api.faults.add(Fault(verb="watch", resource="configmaps", error=503, times=None))
        api.faults.break_watches()
        await writer.delete(CONFIGMAPS, "goes", "default")
        await writer.delete(CONFIGMAPS, "returns", "default")
        await writer.create(CONFIGMAPS, config("returns", "1"), "default")
        api.compact()
        api.faults.clear()
        await until(lambda: "goes" not in log.state)
        await until(lambda: (v := informer.get("default", "returns")) is not None and v.value == "1")
        assert sorted(log.short[3:]) == ["+returns", "-goes", "-returns"]
        assert log.lists == ["start", "gone"]


async def test_a_broken_watch_goes_on_where_it_was_without_a_list(api: ApiServer, writer: KubeClient) -> None:
    async with informing(api.address, api.token, CONFIGMAPS, **OWN) as (_, log):
        for n in range(10):
            await until(lambda: api.faults.watches)
            await writer.create(CONFIGMAPS, config(f"c{n}", "0"), "default")
            api.faults.break_watches()
        await until(lambda: len(log.state) == 10)
        assert log.lists == ["start"]
        assert log.short == [f"+c{n}" for n in range(10)]


STEP = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "break", "compact", "refuse", "heal", "rest"]),
    st.sampled_from("abcd"),
    st.integers(0, 9),
)


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_after_any_history_it_shows_what_is_there(steps: list[tuple[str, str, int]]) -> None:
    """Writes mixed with cut watches, refused requests and compaction; then quiet: cache, handler and server agree."""

    async def history() -> None:
        async with (
            ApiServer() as api,
            KubeClient(FixedCredentials(api.address, token=api.token)) as writer,
            informing(api.address, api.token, CONFIGMAPS, page_size=2, **OWN) as (informer, log),
        ):
            there: dict[str, str] = {}
            for action, name, value in steps:
                match action:
                    case "put" if name in there:
                        await writer.merge_patch(CONFIGMAPS, name, {"data": {"value": str(value)}}, "default")
                        there[name] = str(value)
                    case "put":
                        await writer.create(CONFIGMAPS, config(name, str(value)), "default")
                        there[name] = str(value)
                    case "delete":
                        await writer.delete(CONFIGMAPS, name, "default")
                        there.pop(name, None)
                    case "break":
                        api.faults.break_watches()
                    case "compact":
                        api.compact()
                    case "refuse":
                        verb = "list" if value % 2 else "watch"
                        code = (410, 500, 429, 403)[value % 4]
                        api.faults.add(Fault(verb=verb, resource="configmaps", error=code, times=value))
                    case "heal":
                        api.faults.clear()
                    case _:
                        await asyncio.sleep(0.005)
            api.faults.clear()
            await until(lambda: informer.synced and {v.name: v.value for v in informer.views()} == there)
            assert {name: seen.value for name, seen in log.state.items()} == there
            assert {v.name for v in informer.owned_by("job-1")} == set(there)

    asyncio.run(history())
