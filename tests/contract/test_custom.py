"""What does a CRD do to its objects? Pruning, defaults, validation, rules in CEL, scale."""

from __future__ import annotations

from typing import Any

import pytest

from contract.kit import GROUP, JSON_PATCH, MERGE, Obj, Server, causes, widget


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


def _broken(status: Obj) -> list[tuple[str, str]]:
    """(field, message) of each finding of a 422."""
    assert (status["reason"], status["code"]) == ("Invalid", 422)
    return [(cause["field"], cause["message"]) for cause in status["details"]["causes"]]


_CROSSED = [("spec", "Invalid value: low must not exceed high")]
_CHANGED = [("spec.fixed", 'Invalid value: "b": fixed is fixed')]


async def test_rules_are_kept_on_creation(server: Server) -> None:
    refused = await server.create("widgets", widget("a", low=2, high=1), status=422)
    assert _broken(refused) == _CROSSED
    refused = await server.create("widgets", widget("never"), status=422)
    assert _broken(refused) == [("<nil>", "Invalid value: no such name")]
    assert refused["message"] == f'Widget.{GROUP} "never" is invalid: <nil>: Invalid value: no such name'
    await server.create("widgets", widget("a", low=1, high=1, fixed="a"))


async def test_rules_are_kept_by_every_way_to_change(server: Server) -> None:
    made = await server.create("widgets", widget("a", low=1, fixed="a"))
    assert _broken(await server.patch("widgets", "a", {"spec": {"high": 0}}, status=422)) == _CROSSED
    operations = [{"op": "add", "path": "/spec/high", "value": 0}]
    assert _broken(await server.patch("widgets", "a", operations, content_type=JSON_PATCH, status=422)) == _CROSSED
    changed = made | {"spec": made["spec"] | {"high": 0, "fixed": "b"}}
    assert sorted(_broken(await server.put("widgets", "a", changed, status=422))) == sorted([*_CROSSED, *_CHANGED])
    # What is not there any more is not compared; what is new has nothing to be compared with.
    await server.patch("widgets", "a", {"spec": {"fixed": None}})
    await server.patch("widgets", "a", {"spec": {"fixed": "b"}})


async def test_rules_are_kept_by_scale_and_status(server: Server) -> None:
    await server.create("widgets", widget("a"))
    scale = server.path("widgets", "a", "scale")
    refused = await server.call("PATCH", scale, {"spec": {"replicas": 60}}, content_type=MERGE, status=422)
    assert _broken(refused) == [("spec", "Invalid value: so many must be slow")]
    refused = await server.patch("widgets", "a", {"status": {"level": -1}}, "status", status=422)
    assert _broken(refused) == [("status", "Invalid value: level must not be negative")]
    await server.patch("widgets", "a", {"spec": {"image": "b"}})
    await server.patch("widgets", "a", {"status": {"started": True}}, "status")
    refused = await server.patch("widgets", "a", {"spec": {"image": "c"}}, status=422)
    assert _broken(refused) == [("<nil>", "Invalid value: a started widget keeps its image")]
    await server.patch("widgets", "a", {"spec": {"mode": "slow"}})


async def test_rules_wait_until_the_schema_is_kept(server: Server) -> None:
    refused = await server.create("widgets", widget("a", low="2", high=1), status=422)
    assert {("spec.low", "FieldValueTypeInvalid"), ("<nil>", "FieldValueInvalid")} == causes(refused)
    assert "some validation rules were not checked because the object was invalid" in refused["message"]


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
