"""When does an update go through, and what does it change? Optimistic concurrency, generation, patches, status."""

from __future__ import annotations

from contract.kit import GROUP, JSON_PATCH, STRATEGIC, Server, causes, config_map, widget

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


async def test_a_stale_put_is_a_conflict(server: Server) -> None:
    first = await server.create("widgets", widget("a"))
    await server.patch("widgets", "a", {"spec": {"workers": 2}})
    first["spec"]["workers"] = 3
    refused = await server.put("widgets", "a", first, status=409)
    assert refused["reason"] == "Conflict"
    assert refused["message"] == f'Operation cannot be fulfilled on widgets.{GROUP} "a": {_MODIFIED}'
    assert refused["details"] == {"name": "a", "group": GROUP, "kind": "widgets"}


async def test_a_stale_patch_is_a_conflict(server: Server) -> None:
    first = await server.create("widgets", widget("a"))
    await server.patch("widgets", "a", {"spec": {"workers": 2}})
    version = first["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "status": {"phase": "Running"}}
    refused = await server.patch("widgets", "a", body, "status", status=409)
    assert refused["reason"] == "Conflict"
    assert "status" not in await server.get("widgets", "a")


async def test_a_fresh_patch_goes_through_and_moves_the_version(server: Server) -> None:
    first = await server.create("widgets", widget("a"))
    version = first["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "status": {"phase": "Running"}}
    after = await server.patch("widgets", "a", body, "status")
    assert after["metadata"]["resourceVersion"] != version
    assert after["status"] == {"phase": "Running"}


async def test_a_custom_resource_needs_a_version_to_be_put(server: Server) -> None:
    await server.create("widgets", widget("a"))
    refused = await server.put("widgets", "a", widget("a", workers=2), status=422)
    assert ("metadata.resourceVersion", "FieldValueInvalid") in causes(refused)


async def test_a_config_map_needs_none(server: Server) -> None:
    await server.create("configmaps", config_map("a", k="1"))
    after = await server.put("configmaps", "a", config_map("a", k="2"))
    assert after["data"] == {"k": "2"}


async def test_a_put_for_another_uid_is_a_conflict(server: Server) -> None:
    made = await server.create("configmaps", config_map("a"))
    made["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    refused = await server.put("configmaps", "a", made, status=409)
    assert refused["reason"] == "Conflict"
    assert "Precondition failed: UID in precondition" in refused["message"]


async def test_a_patch_of_the_uid_is_refused(server: Server) -> None:
    await server.create("widgets", widget("a"))
    body = {"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}, "spec": {"workers": 2}}
    refused = await server.patch("widgets", "a", body, status=(409, 422))
    assert refused["reason"] in ("Conflict", "Invalid")
    assert (await server.get("widgets", "a"))["spec"]["workers"] == 1


async def test_generation_counts_the_spec_alone(server: Server) -> None:
    await server.create("widgets", widget("a"))

    async def generation() -> int:
        return int((await server.get("widgets", "a"))["metadata"]["generation"])

    await server.patch("widgets", "a", {"metadata": {"labels": {"a": "b"}}})
    assert await generation() == 1
    await server.patch("widgets", "a", {"status": {"phase": "Running"}}, "status")
    assert await generation() == 1
    await server.patch("widgets", "a", {"spec": {"workers": 2}})
    assert await generation() == 2
    await server.patch("widgets", "a", {"spec": {"replicas": 4}}, "scale")
    assert await generation() == 3


async def test_a_change_of_nothing_writes_nothing(server: Server) -> None:
    first = await server.create("widgets", widget("a", workers=2))
    after = await server.patch("widgets", "a", {"spec": {"workers": 2}})
    assert after["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_status_and_spec_are_written_apart(server: Server) -> None:
    await server.create("widgets", widget("a"))
    await server.patch("widgets", "a", {"status": {"phase": "Main"}, "spec": {"workers": 2}})
    assert "status" not in await server.get("widgets", "a")
    body = {"status": {"phase": "Sub"}, "spec": {"workers": 9}, "metadata": {"labels": {"x": "y"}}}
    after = await server.patch("widgets", "a", body, "status")
    assert after["status"] == {"phase": "Sub"}
    assert after["spec"]["workers"] == 2
    assert "labels" not in after["metadata"]


async def test_a_uid_in_a_custom_status_patch_checks_nothing(server: Server) -> None:
    """Metadata of a custom status update is ignored whole, so only resourceVersion protects a status write."""
    await server.create("widgets", widget("a"))
    body = {"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}, "status": {"phase": "Running"}}
    after = await server.patch("widgets", "a", body, "status")
    assert after["status"] == {"phase": "Running"}


async def test_merge_patch_deletes_by_null_and_replaces_lists(server: Server) -> None:
    await server.create("widgets", widget("a", mode="fast", tags=["x", "y"], template={"keep": 1, "drop": 2}))
    body = {"spec": {"mode": None, "tags": ["z"], "template": {"drop": None, "add": {"deep": None, "kept": 1}}}}
    after = (await server.patch("widgets", "a", body))["spec"]
    assert "mode" not in after
    assert after["tags"] == ["z"]
    assert after["template"] == {"keep": 1, "add": {"kept": 1}}


async def test_json_patch_tests_before_it_acts(server: Server) -> None:
    await server.create("widgets", widget("a", workers=2))
    good = [{"op": "test", "path": "/spec/workers", "value": 2}, {"op": "replace", "path": "/spec/workers", "value": 3}]
    after = await server.patch("widgets", "a", good, content_type=JSON_PATCH)
    assert after["spec"]["workers"] == 3
    refused = await server.patch("widgets", "a", good, content_type=JSON_PATCH, status=422)
    assert refused["reason"] == "Invalid"
    assert (await server.get("widgets", "a"))["spec"]["workers"] == 3


async def test_strategic_merge_is_for_built_in_kinds(server: Server) -> None:
    await server.create("configmaps", config_map("a", keep="1"))
    after = await server.patch("configmaps", "a", {"data": {"more": "2"}}, content_type=STRATEGIC)
    assert after["data"] == {"keep": "1", "more": "2"}
    await server.create("widgets", widget("a"))
    refused = await server.patch("widgets", "a", {"spec": {"workers": 2}}, content_type=STRATEGIC, status=415)
    assert refused["reason"] == "UnsupportedMediaType"


async def test_the_name_in_the_body_must_be_that_of_the_path(server: Server) -> None:
    made = await server.create("configmaps", config_map("a"))
    made["metadata"]["name"] = "b"
    refused = await server.put("configmaps", "a", made, status=400)
    assert refused["reason"] == "BadRequest"


async def test_an_update_cannot_bring_an_object_back(server: Server) -> None:
    refused = await server.patch("widgets", "gone", {"spec": {"workers": 2}}, status=404)
    assert refused["reason"] == "NotFound"
