"""What does a CRD do to its objects? Pruning, defaults, validation, scale; CEL is left to the real server."""

from __future__ import annotations

from typing import Any

import pytest

from contract.kit import GROUP, MERGE, Obj, Server, causes, widget


async def test_defaults_are_stored(server: Server) -> None:
    made = await server.create("widgets", widget("a"))
    assert made["spec"] == {"image": "img", "workers": 1, "nested": {"spares": 1}}


async def test_unknown_fields_are_pruned(server: Server) -> None:
    given = widget("a", typo=1, nested={"note": "x", "typo": 2}, template={"free": {"as": "it likes"}})
    made = await server.create("widgets", given)
    assert made["spec"]["nested"] == {"note": "x", "spares": 1}
    assert "typo" not in made["spec"]
    assert made["spec"]["template"] == {"free": {"as": "it likes"}}


async def test_strict_validation_names_unknown_fields(server: Server) -> None:
    refused = await server.create(
        "widgets", widget("a", typo=1, nested={"bad": 2}), query={"fieldValidation": "Strict"}, status=400
    )
    assert refused["reason"] == "BadRequest"
    assert "strict decoding error: " in refused["message"]
    assert 'unknown field "spec.typo"' in refused["message"]
    assert 'unknown field "spec.nested.bad"' in refused["message"]


async def test_a_strict_patch_names_unknown_fields(server: Server) -> None:
    await server.create("widgets", widget("a"))
    refused = await server.patch("widgets", "a", {"spec": {"typo": 1}}, query={"fieldValidation": "Strict"}, status=422)
    assert 'unknown field "spec.typo"' in refused["message"]


@pytest.mark.parametrize("port", [80, "http"])
async def test_int_or_string_takes_both(server: Server, port: int | str) -> None:
    assert (await server.create("widgets", widget("a", port=port)))["spec"]["port"] == port


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"image": None}, "spec.image", "FieldValueRequired"),
        ({"image": ""}, "spec.image", "FieldValueInvalid"),
        ({"image": "x" * 21}, "spec.image", "FieldValueTooLong"),
        ({"workers": 0}, "spec.workers", "FieldValueInvalid"),
        ({"workers": 65}, "spec.workers", "FieldValueInvalid"),
        ({"workers": "3"}, "spec.workers", "FieldValueTypeInvalid"),
        ({"workers": True}, "spec.workers", "FieldValueTypeInvalid"),
        ({"mode": "medium"}, "spec.mode", "FieldValueNotSupported"),
        ({"tags": ["a", "b", "c"]}, "spec.tags", "FieldValueTooMany"),
        ({"tags": ["UPPER"]}, "spec.tags[0]", "FieldValueInvalid"),
        ({"tags": "a"}, "spec.tags", "FieldValueTypeInvalid"),
        ({"limits": {"cpu": "x"}}, "spec.limits.cpu", "FieldValueTypeInvalid"),
    ],
)
async def test_values_outside_the_schema_are_invalid(
    server: Server, spec: dict[str, Any], field: str, reason: str
) -> None:
    refused = await server.create("widgets", widget("a", **spec), status=422)
    assert (refused["reason"], refused["code"]) == ("Invalid", 422)
    assert refused["message"].startswith(f'Widget.{GROUP} "a" is invalid: ')
    assert f"{field}: " in refused["message"]
    assert {key: refused["details"][key] for key in ("name", "group", "kind")} == {
        "name": "a",
        "group": GROUP,
        "kind": "Widget",
    }
    assert (field, reason) in causes(refused)


async def test_all_findings_come_at_once(server: Server) -> None:
    refused = await server.create("widgets", widget("a", workers=0, mode="medium"), status=422)
    assert {("spec.workers", "FieldValueInvalid"), ("spec.mode", "FieldValueNotSupported")} <= causes(refused)
    assert " is invalid: [" in refused["message"]


async def test_an_update_is_validated_too(server: Server) -> None:
    await server.create("widgets", widget("a"))
    refused = await server.patch("widgets", "a", {"spec": {"workers": 99}}, status=422)
    assert ("spec.workers", "FieldValueInvalid") in causes(refused)


async def test_scale_shows_and_sets_the_replicas(server: Server) -> None:
    await server.create("widgets", widget("a", workers=2))
    await server.patch("widgets", "a", {"status": {"ready": 1, "selector": "job=a"}}, "status")
    path = server.path("widgets", "a", "scale")
    scale = await server.call("GET", path)
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 1, "selector": "job=a"}
    scale["spec"]["replicas"] = 5
    assert (await server.call("PUT", path, scale))["spec"] == {"replicas": 5}
    assert (await server.get("widgets", "a"))["spec"]["workers"] == 5
    stale = await server.call("PUT", path, scale, status=409)
    assert stale["reason"] == "Conflict"
    after = await server.call("PATCH", path, {"spec": {"replicas": 3}}, content_type=MERGE)
    assert after["spec"] == {"replicas": 3}
    assert (await server.get("widgets", "a"))["metadata"]["generation"] == 3


async def test_scale_obeys_the_schema(server: Server) -> None:
    await server.create("widgets", widget("a"))
    path = server.path("widgets", "a", "scale")
    refused = await server.call("PATCH", path, {"spec": {"replicas": 65}}, content_type=MERGE, status=422)
    assert refused["reason"] == "Invalid"


async def test_discovery_lists_the_resource_and_its_subresources(server: Server) -> None:
    listed = await server.call("GET", f"/apis/{GROUP}/v1")
    found: dict[str, Obj] = {entry["name"]: entry for entry in listed["resources"]}
    assert set(found) == {"widgets", "widgets/status", "widgets/scale"}
    assert found["widgets"]["shortNames"] == ["wd"]
    assert found["widgets/scale"]["kind"] == "Scale"
