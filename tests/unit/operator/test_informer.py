"""The informer: no ghosts, nothing lost, nothing hot, whatever lists and watches do to it."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_local.apiserver import ApiServer, Fault
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer
from drivetrain_operator.kube.resources import CONFIGMAPS, PODS, Object, Resource
from unit.operator.wire_server import (
    Answer,
    bookmark,
    event,
    expired,
    hang_up,
    ok,
    pod,
    pod_list,
    serving,
    status,
    stream,
    until,
)

QUICK = Backoff(base=0.002, cap=0.02)


@dataclass(frozen=True)
class Seen:
    """The projection: name, uid and one datum."""

    name: str
    uid: str
    value: str


def project(obj: Object) -> Seen:
    data = obj.get("data") or {}
    return Seen(obj["metadata"]["name"], obj["metadata"]["uid"], data.get("value", ""))


@dataclass
class Log:
    """Handler and observer: what was told, and what it adds up to."""

    changes: list[tuple[Seen | None, Seen | None]] = field(default_factory=list)
    state: dict[str, Seen] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)
    interruptions: list[str] = field(default_factory=list)

    def __call__(self, old: Seen | None, new: Seen | None) -> None:
        self.changes.append((old, new))
        if old is not None:
            assert self.state.pop(old.name) == old, "what changes is what was told before"
        if new is not None:
            assert new.name not in self.state, "a beginning follows an end"
            self.state[new.name] = new
        if old is not None and new is not None:
            assert old.uid == new.uid, "another uid is another object"

    @property
    def short(self) -> list[str]:
        return [f"{'-' if n is None else '+' if o is None else '~'}{(n or o).name}" for o, n in self.changes]  # type: ignore[union-attr]

    def event(self, resource: str, kind: str) -> None: ...

    def listed(self, resource: str, reason: str) -> None:
        self.lists.append(reason)

    def interrupted(self, resource: str, reason: str) -> None:
        self.interruptions.append(reason)


@contextlib.asynccontextmanager
async def informing(
    url: str, token: str = "t", resource: Resource = PODS, log: Log | None = None, **options: Any
) -> AsyncIterator[tuple[Informer[Seen], Log]]:
    log = log if log is not None else Log()
    clock, rng = SystemClock(), random.Random(1)
    async with KubeClient(FixedCredentials(url, token=token), clock, rng, backoff=QUICK, attempts=1) as client:
        given: dict[str, Any] = {"handler": log, "observer": log, "backoff": QUICK, "project": project} | options
        informer: Informer[Seen] = Informer(client, resource, clock=clock, rng=rng, **given)
        task = asyncio.ensure_future(informer.run())
        try:
            yield informer, log
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def config(name: str, value: str, owner: str = "job-1") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "x"}, "annotations": {"owner": owner}},
        "data": {"value": value},
    }


# --- against a well-behaved API server -------------------------------------------------------------------------------


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


# --- against a server that misbehaves on the wire ---------------------------------------------------------------------


A, B = pod("a", 5), pod("b", 6)
LIST = ok(pod_list(6, A, B))
QUIET = stream(then="silence")

WIRE: dict[str, tuple[list[Answer], list[str], list[str]]] = {
    "half a line, then cut": (
        [
            LIST,
            stream(event("ADDED", pod("c", 7))[:40], then="cut"),
            stream(event("ADDED", pod("c", 7)), then="silence"),
        ],
        ["+a", "+b", "+c"],
        ["start"],
    ),
    "half a line, then a polite end": (
        [LIST, stream(event("ADDED", pod("c", 7))[:40]), stream(event("ADDED", pod("c", 7)), then="silence")],
        ["+a", "+b", "+c"],
        ["start"],
    ),
    "a line in many pieces": (
        [LIST, stream(*[bytes([x]) for x in event("DELETED", pod("b", 7))], then="silence")],
        ["+a", "+b", "-b"],
        ["start"],
    ),
    "401 in mid-watch": (
        [LIST, stream(event("DELETED", pod("b", 7))), status(401), status(401), stream(bookmark(8), then="silence")],
        ["+a", "+b", "-b"],
        ["start"],
    ),
    "410 with a missed delete": (
        [LIST, stream(expired()), ok(pod_list(9, A)), QUIET],
        ["+a", "+b", "-b"],
        ["start", "gone"],
    ),
    "410 as a status, and another uid under the name": (
        [LIST, status(410, "Expired"), ok(pod_list(9, A, pod("b", 9, uid="other"))), QUIET],
        ["+a", "+b", "-b", "+b"],
        ["start", "gone"],
    ),
    "a list twice, reordered": (
        [LIST, stream(expired()), ok(pod_list(9, B, A)), stream(expired()), ok(pod_list(9, A, B)), QUIET],
        ["+a", "+b"],
        ["start", "gone", "gone"],
    ),
    "events replayed and reordered": (
        [
            LIST,
            stream(
                event("MODIFIED", pod("a", 8)),
                event("MODIFIED", pod("a", 7)),
                event("ADDED", pod("a", 8)),
                then="silence",
            ),
        ],
        ["+a", "+b", "~a"],
        ["start"],
    ),
    "a late delete of an earlier uid": (
        [
            LIST,
            stream(event("ADDED", pod("a", 8, uid="new")), event("DELETED", pod("a", 9, uid="uid-a")), then="silence"),
        ],
        ["+a", "+b", "-a", "+a"],
        ["start"],
    ),
    "a delete that is told twice": (
        [LIST, stream(event("DELETED", pod("a", 8)), event("DELETED", pod("a", 8)), then="silence")],
        ["+a", "+b", "-a"],
        ["start"],
    ),
    "rubbish": (
        [LIST, stream(b"<html>\n"), stream(event("DELETED", pod("a", 8)), then="silence")],
        ["+a", "+b", "-a"],
        ["start"],
    ),
    "the first list fails": ([hang_up, status(503), status(403), LIST, QUIET], ["+a", "+b"], ["start"]),
    "a page expires": (
        [ok(pod_list(6, A, more="x")), status(410, "Expired"), ok(pod_list(6, A, more="x")), ok(pod_list(6, B)), QUIET],
        ["+a", "+b"],
        ["gone"],
    ),
    "a version that the server disowns for ever": (
        [LIST, *[status(400, "BadRequest")] * 5, ok(pod_list(2, A)), QUIET],
        ["+a", "+b", "-b"],
        ["start", "failures"],
    ),
}


@pytest.mark.parametrize(("script", "changes", "lists"), WIRE.values(), ids=WIRE.keys())
async def test_wire_faults(script: list[Answer], changes: list[str], lists: list[str]) -> None:
    async with serving(*script) as server, informing(server.url) as (informer, log):
        await until(lambda: len(log.changes) >= len(changes) and log.lists == lists and len(server.script) == 1)
        await asyncio.sleep(0.05)  # nothing may follow
        assert log.short == changes
        assert {v.name for v in informer.views()} == set(log.state)
        assert {v.name for v in informer.owned_by("job-1")} == set(log.state)


async def test_silence_is_noticed_and_the_watch_opened_again_where_it_was() -> None:
    script = [LIST, stream(bookmark(40), then="silence"), QUIET]
    async with serving(*script) as server, informing(server.url, inactivity=0.1) as (_, log):
        await until(lambda: server.watches >= 2)
        assert "WatchSilent" in log.interruptions
        assert "resourceVersion=6&" in next(p for _, p in server.seen if "watch=true" in p)
        assert "resourceVersion=40&" in server.seen[-1][1]


async def test_a_storm_of_410_is_met_with_growing_pauses() -> None:
    async def always_expired(request: Any) -> Any:
        return await (stream(expired()) if "watch" in request.query else LIST)(request)

    slow = Backoff(base=0.05, cap=1.0)
    async with serving(always_expired) as server, informing(server.url, backoff=slow) as (informer, log):
        began = time.monotonic()
        await asyncio.sleep(1.0)
        await until(lambda: server.lists >= 3)
        assert server.lists <= 7 + (time.monotonic() - began), "0.05, 0.1, 0.2, 0.4 … and not a list for each answer"
        assert log.short == ["+a", "+b"]
        assert informer.synced


async def test_watches_that_end_at_once_do_not_make_a_hot_loop() -> None:
    async def polite(request: Any) -> Any:
        return await (stream() if "watch" in request.query else LIST)(request)

    slow = Backoff(base=0.05, cap=1.0)
    async with serving(polite) as server, informing(server.url, backoff=slow):
        began = time.monotonic()
        await asyncio.sleep(1.0)
        await until(lambda: server.watches >= 3)
        assert server.watches <= 9 + (time.monotonic() - began)
        assert server.lists == 1


async def test_readers_see_the_old_list_until_the_new_one_is_complete() -> None:
    release = asyncio.Event()

    async def second_page(request: Any) -> Any:
        await release.wait()
        return await ok(pod_list(9, pod("z", 9)))(request)

    script = [LIST, stream(expired()), ok(pod_list(9, pod("y", 9), more="x")), second_page, QUIET]
    async with serving(*script) as server, informing(server.url) as (informer, log):
        await until(lambda: len(server.script) == 1)
        assert {v.name for v in informer.views()} == {"a", "b"}
        release.set()
        await until(lambda: {v.name for v in informer.views()} == {"y", "z"})
        assert sorted(log.short) == sorted(["+a", "+b", "-a", "-b", "+y", "+z"])


async def test_one_object_that_cannot_be_read_does_not_blind_us(caplog: pytest.LogCaptureFixture) -> None:
    def picky(obj: Object) -> Seen:
        if obj["metadata"]["name"] == "a":
            raise KeyError("spec")
        return project(obj)

    script = [LIST, stream(event("MODIFIED", pod("a", 7)), event("ADDED", pod("c", 8)), then="silence")]
    async with serving(*script) as server, informing(server.url, project=picky) as (_, log):
        await until(lambda: log.short == ["+b", "+c"])
    assert "object left out of the cache" in caplog.text


async def test_a_handler_that_fails_ends_the_informer() -> None:
    def broken(old: Seen | None, new: Seen | None) -> None:
        raise RuntimeError("lost a change")

    async with (
        serving(LIST, QUIET) as server,
        KubeClient(FixedCredentials(server.url)) as client,
    ):
        informer = Informer(client, PODS, project, SystemClock(), random.Random(1), handler=broken)
        with pytest.raises(RuntimeError, match="lost a change"):
            async with asyncio.timeout(5):
                await informer.run()


@pytest.mark.parametrize(
    ("version", "seen"), [("6", True), ("5", True), ("7", False), ("abc", True), ("99999999999999999999", False)]
)
async def test_has_seen(version: str, seen: bool) -> None:
    async with serving(LIST, QUIET) as server, informing(server.url) as (informer, _):
        assert not informer.has_seen("1"), "nothing was seen before the first list"
        await informer.wait_synced(5)
        assert informer.has_seen(version) is seen


async def test_wait_synced_has_a_limit() -> None:
    async with serving(status(503)) as server, informing(server.url) as (informer, _):
        with pytest.raises(TimeoutError):
            await informer.wait_synced(0.05)
        assert informer.last_event_age() is None
