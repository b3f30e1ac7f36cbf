"""The informer against a server that misbehaves on the wire."""

import asyncio
import random
import time
from typing import Any

import pytest

from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import FixedCredentials
from drivetrain_operator.kube.backoff import Backoff
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.informer import Informer
from drivetrain_operator.kube.resources import PODS, Object
from unit.operator.informer_log import Seen, informing, project
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
        assert not informer.synced
