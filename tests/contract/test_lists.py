"""Which objects does a LIST return, and in which form? Selectors, pages, tables."""

from __future__ import annotations

import pytest

from contract.kit import TABLE, Server, config_map, pod, widget

_LABELLED = {
    "red-1": {"color": "red", "size": "1"},
    "red-2": {"color": "red", "size": "2"},
    "blue-1": {"color": "blue", "size": "1"},
    "plain": {},
}


@pytest.mark.parametrize(
    ("selector", "expect"),
    [
        ("color=red", ["red-1", "red-2"]),
        ("color==red,size=1", ["red-1"]),
        ("color!=red,color", ["blue-1"]),
        ("color!=red,kind=test", ["blue-1", "plain"]),
        ("color in (red, blue),size notin (2),kind=test", ["blue-1", "red-1"]),
        ("color notin (red),kind=test", ["blue-1", "plain"]),
        ("!color,kind=test", ["plain"]),
        ("color", ["blue-1", "red-1", "red-2"]),
        ("size>1", ["red-2"]),
        ("size<2", ["blue-1", "red-1"]),
    ],
)
async def test_label_selectors(server: Server, selector: str, expect: list[str]) -> None:
    for name, labels in _LABELLED.items():
        await server.create("configmaps", config_map(name, {**labels, "kind": "test"}))
    assert await server.names("configmaps", labelSelector=selector) == expect


async def test_a_label_selector_that_is_none_is_refused(server: Server) -> None:
    refused = await server.get("configmaps", query={"labelSelector": "a b c"}, status=400)
    assert refused["reason"] == "BadRequest"


async def test_field_selectors(server: Server) -> None:
    nowhere = {"nowhere": "true"}
    for name in ("a", "b"):
        await server.create("pods", pod(name, server.image, nodeSelector=nowhere))
    assert await server.names("pods", fieldSelector="metadata.name=a") == ["a"]
    assert await server.names("pods", fieldSelector="metadata.name!=a") == ["b"]
    assert await server.names("pods", fieldSelector="status.phase=Pending,metadata.name=b") == ["b"]
    assert await server.names("pods", fieldSelector="status.phase!=Pending") == []
    assert await server.names("pods", fieldSelector="spec.nodeName=") == ["a", "b"]
    refused = await server.get("pods", query={"fieldSelector": "spec.volumes=a"}, status=400)
    assert refused["reason"] == "BadRequest"


async def test_items_of_built_in_lists_carry_no_kind(server: Server) -> None:
    await server.create("configmaps", config_map("a"))
    listed = await server.get("configmaps", query={"fieldSelector": "metadata.name=a"})
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert not {"kind", "apiVersion"} & set(listed["items"][0])


async def test_items_of_custom_lists_carry_their_kind(server: Server) -> None:
    await server.create("widgets", widget("a"))
    listed = await server.get("widgets")
    assert listed["kind"] == "WidgetList"
    assert listed["items"][0]["kind"] == "Widget"


async def test_pages_are_one_snapshot(server: Server) -> None:
    for index in range(5):
        await server.create("widgets", widget(f"w{index}"))
    first = await server.get("widgets", query={"limit": "2"})
    assert [item["metadata"]["name"] for item in first["items"]] == ["w0", "w1"]
    assert first["metadata"]["remainingItemCount"] == 3
    await server.delete("widgets", "w3")
    await server.create("widgets", widget("w9"))
    second = await server.get("widgets", query={"limit": "2", "continue": first["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in second["items"]] == ["w2", "w3"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = await server.get("widgets", query={"limit": "2", "continue": second["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in third["items"]] == ["w4"]
    assert not third["metadata"].get("continue")


async def test_a_list_is_at_least_as_new_as_the_last_write(server: Server) -> None:
    made = await server.create("widgets", widget("a"))
    listed = await server.get("widgets")
    assert int(listed["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


async def test_custom_tables_have_the_columns_of_the_crd(server: Server) -> None:
    await server.create("widgets", widget("a", workers=3, mode="fast"))
    await server.patch("widgets", "a", {"status": {"phase": "Running"}}, "status")
    table = await server.get("widgets", accept=TABLE)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    heads = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    assert heads == [("Name", 0), ("Phase", 0), ("Workers", 0), ("Mode", 1), ("Age", 0)]
    (row,) = table["rows"]
    assert row["cells"][:4] == ["a", "Running", 3, "fast"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "a"


async def test_a_missing_value_is_an_empty_cell(server: Server) -> None:
    await server.create("widgets", widget("a"))
    table = await server.get("widgets", "a", accept=TABLE)
    assert table["rows"][0]["cells"][:2] == ["a", None]


async def test_pod_tables_have_the_columns_of_kubectl(server: Server) -> None:
    await server.create("pods", pod("a", server.image, nodeSelector={"nowhere": "true"}))
    table = await server.get("pods", accept=TABLE)
    heads = [column["name"] for column in table["columnDefinitions"] if column["priority"] == 0]
    assert heads == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", "0/1", "Pending"]


async def test_whole_objects_in_a_table_on_request(server: Server) -> None:
    await server.create("widgets", widget("a"))
    table = await server.get("widgets", accept=TABLE, query={"includeObject": "Object"})
    assert table["rows"][0]["object"]["spec"]["image"] == "img"
