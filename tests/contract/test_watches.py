"""What does a WATCH tell? Every change after a resourceVersion, once and in order, or that it cannot any more."""

from __future__ import annotations

import json

from contract.kit import TABLE, Obj, Server, config_map, widget


def _told(events: list[Obj]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def _version(server: Server, plural: str = "widgets") -> str:
    return str((await server.get(plural))["metadata"]["resourceVersion"])


async def test_changes_after_a_version_in_order(server: Server) -> None:
    await server.create("widgets", widget("old"))
    version = await _version(server)
    await server.create("widgets", widget("a"))
    await server.patch("widgets", "a", {"spec": {"workers": 2}})
    await server.delete("widgets", "a")
    events = await server.events("widgets", 3, resourceVersion=version)
    assert _told(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)
    assert events[2]["object"]["spec"]["workers"] == 2
    assert events[0]["object"]["kind"] == "Widget"


async def test_without_a_version_the_present_comes_first(server: Server) -> None:
    await server.create("widgets", widget("a"))
    await server.create("widgets", widget("b"))
    assert sorted(_told(await server.events("widgets", 2))) == [("ADDED", "a"), ("ADDED", "b")]


async def test_what_begins_and_ceases_to_match_comes_and_goes(server: Server) -> None:
    version = await _version(server, "configmaps")
    await server.create("configmaps", config_map("a", {"on": "no"}))
    await server.patch("configmaps", "a", {"metadata": {"labels": {"on": "yes"}}})
    await server.patch("configmaps", "a", {"data": {"k": "v"}})
    last = await server.patch("configmaps", "a", {"metadata": {"labels": {"on": "no"}}})
    events = await server.events("configmaps", 3, resourceVersion=version, labelSelector="on=yes")
    assert _told(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert events[2]["object"]["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]


async def test_one_object_by_field_selector(server: Server) -> None:
    version = await _version(server)
    await server.create("widgets", widget("a"))
    await server.create("widgets", widget("b"))
    events = await server.events("widgets", 1, resourceVersion=version, fieldSelector="metadata.name=b")
    assert _told(events) == [("ADDED", "b")]


async def test_a_version_from_long_ago_is_expired(server: Server) -> None:
    (event,) = await server.events("widgets", 1, resourceVersion="1")
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")


async def test_it_ends_in_time_and_says_how_far_it_got(server: Server) -> None:
    """A bookmark comes before the requested end, so that a quiet watch can go on from there."""
    version = await _version(server)
    made = await server.create("configmaps", config_map("elsewhere"))
    query = {"resourceVersion": version, "allowWatchBookmarks": "true"}
    events: list[Obj] = []
    for seconds in ("4", "10", "10"):
        # A real one says nothing older than what was asked for, and its cache of a quiet kind may be behind: it hears
        # from etcd every 5 s only how far that is.
        events = [event async for event in server.watch("widgets", timeoutSeconds=seconds, **query)]
        if events:
            break
    assert events, "no bookmark"
    assert {event["type"] for event in events} == {"BOOKMARK"}
    bookmark = events[-1]["object"]
    assert bookmark["kind"] == "Widget"
    assert int(bookmark["metadata"]["resourceVersion"]) >= int(version)
    assert int(made["metadata"]["resourceVersion"]) > int(version)


async def test_the_list_version_is_where_a_watch_begins(server: Server) -> None:
    """List, then watch from its version: nothing between the two is lost or told twice."""
    for index in range(3):
        await server.create("widgets", widget(f"a{index}"))
    listed = await server.get("widgets")
    await server.create("widgets", widget("b"))
    events = await server.events("widgets", 1, resourceVersion=listed["metadata"]["resourceVersion"])
    assert _told(events) == [("ADDED", "b")]


async def test_the_initial_events_end_with_a_mark(server: Server) -> None:
    await server.create("widgets", widget("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    events = await server.events("widgets", 2, **query)
    assert _told(events[:1]) == [("ADDED", "a")]
    assert events[1]["type"] == "BOOKMARK"
    assert events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"


async def test_rows_are_watched_as_tables(server: Server) -> None:
    await server.create("widgets", widget("a", workers=2))
    params = {"watch": "true", "timeoutSeconds": "10"}
    url = server.address + server.path("widgets")
    async with server.http.get(url, params=params, headers={"Accept": TABLE}) as answer:
        event = json.loads(await answer.content.readline())
    assert event["type"] == "ADDED"
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"


async def test_other_namespaces_are_not_told(server: Server) -> None:
    version = await _version(server, "configmaps")
    await server.call("POST", "/api/v1/namespaces/default/configmaps", config_map(f"x-{server.namespace}"))
    await server.create("configmaps", config_map("mine"))
    events = await server.events("configmaps", 1, resourceVersion=version)
    assert _told(events) == [("ADDED", "mine")]
    await server.call("DELETE", f"/api/v1/namespaces/default/configmaps/x-{server.namespace}")
