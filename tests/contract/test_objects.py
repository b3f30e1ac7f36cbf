"""What is an object after its creation, and which creations are refused?"""

from __future__ import annotations

import re

import pytest

from contract.kit import GROUP, Obj, Server, causes, config_map, pod, widget


async def test_the_server_decides_identity(server: Server) -> None:
    given = widget("a")
    given["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}
    made = (await server.create("widgets", given))["metadata"]
    assert made["uid"] != "mine"
    assert not made["creationTimestamp"].startswith("2001")
    assert made["generation"] == 1
    assert int(made["resourceVersion"]) > 0
    assert made["namespace"] == server.namespace


async def test_status_of_a_new_object_is_dropped(server: Server) -> None:
    made = await server.create("widgets", {**widget("a"), "status": {"phase": "Running"}})
    assert "status" not in made


async def test_generate_name_adds_five_letters(server: Server) -> None:
    given = config_map("")
    given["metadata"] = {"generateName": "run-"}
    names = {(await server.create("configmaps", given))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"run-[a-z0-9]{5}", name) for name in names)


async def test_a_taken_name_is_a_conflict_that_names_the_resource(server: Server) -> None:
    await server.create("widgets", widget("a"))
    refused = await server.create("widgets", widget("a"), status=409)
    assert refused["reason"] == "AlreadyExists"
    assert refused["message"] == f'widgets.{GROUP} "a" already exists'
    assert refused["details"] == {"name": "a", "group": GROUP, "kind": "widgets"}


async def test_a_taken_pod_name_is_a_conflict(server: Server) -> None:
    held = pod("a", server.image, nodeSelector={"nowhere": "true"})
    await server.create("pods", held)
    refused = await server.create("pods", held, status=409)
    assert (refused["reason"], refused["message"]) == ("AlreadyExists", 'pods "a" already exists')
    assert refused["details"] == {"name": "a", "kind": "pods"}


async def test_a_missing_object_is_named(server: Server) -> None:
    refused = await server.get("widgets", "nope", status=404)
    assert refused["kind"] == "Status"
    assert (refused["status"], refused["reason"], refused["code"]) == ("Failure", "NotFound", 404)
    assert refused["message"] == f'widgets.{GROUP} "nope" not found'
    assert refused["details"] == {"name": "nope", "group": GROUP, "kind": "widgets"}


async def test_a_missing_namespace_is_not_found(server: Server) -> None:
    refused = await server.call("POST", "/api/v1/namespaces/none-such/configmaps", config_map("a"), status=404)
    assert (refused["reason"], refused["details"]["kind"]) == ("NotFound", "namespaces")


async def test_an_unknown_resource_is_not_found(server: Server) -> None:
    await server.call("GET", "/apis/nobody.example.com/v1/things", status=404)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "Upper"}, "metadata.name"),
        ({"name": "under_score"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"name": "a", "labels": {"k": "not ok!"}}, "metadata.labels"),
        ({"name": "a", "labels": {"bad key": "v"}}, "metadata.labels"),
        ({"name": "a", "labels": {"k": "v" * 64}}, "metadata.labels"),
    ],
)
async def test_bad_metadata_is_invalid(server: Server, metadata: Obj, field: str) -> None:
    refused = await server.create("configmaps", {**config_map("x"), "metadata": metadata}, status=422)
    assert refused["reason"] == "Invalid"
    assert refused["details"]["kind"] == "ConfigMap"
    assert (field, "FieldValueInvalid") in causes(refused)


async def test_no_name_at_all_is_invalid(server: Server) -> None:
    given = {**config_map("x"), "metadata": {}}
    refused = await server.create("configmaps", given, status=422)
    assert ("metadata.name", "FieldValueRequired") in causes(refused)


async def test_the_kind_must_be_that_of_the_path(server: Server) -> None:
    refused = await server.create("configmaps", {**config_map("a"), "kind": "Secret"}, status=400)
    assert refused["reason"] == "BadRequest"


async def test_dry_run_checks_and_stores_nothing(server: Server) -> None:
    query = {"dryRun": "All"}
    made = await server.create("widgets", widget("a"), query=query)
    assert made["metadata"]["uid"]
    assert made["spec"]["workers"] == 1
    await server.get("widgets", "a", status=404)
    refused = await server.create("widgets", widget("b", workers=0), query=query, status=422)
    assert ("spec.workers", "FieldValueInvalid") in causes(refused)


@pytest.mark.parametrize(
    ("container", "field", "reason"),
    [
        ({"image": ""}, "spec.containers[0].image", "FieldValueRequired"),
        ({"name": "Bad_Name"}, "spec.containers[0].name", "FieldValueInvalid"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, "spec.containers[0].volumeMounts[0].name",
         "FieldValueNotFound"),
        ({"env": [{"name": "", "value": "x"}]}, "spec.containers[0].env[0].name", "FieldValueRequired"),
        ({"ports": [{"containerPort": 70000}]}, "spec.containers[0].ports[0].containerPort", "FieldValueInvalid"),
        ({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
         "spec.containers[0].resources.requests", "FieldValueInvalid"),
        ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, "spec.containers[0].resources.limits",
         "FieldValueRequired"),
        ({"imagePullPolicy": "Sometimes"}, "spec.containers[0].imagePullPolicy", "FieldValueNotSupported"),
    ],
)  # fmt: skip
async def test_a_bad_pod_template_is_found_by_a_dry_run(
    server: Server, container: Obj, field: str, reason: str
) -> None:
    given = pod("a", server.image, container=container)
    refused = await server.create("pods", given, query={"dryRun": "All"}, status=422)
    assert refused["reason"] == "Invalid"
    assert (field, reason) in causes(refused)


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"containers": []}, "spec.containers", "FieldValueRequired"),
        ({"restartPolicy": "Perhaps"}, "spec.restartPolicy", "FieldValueNotSupported"),
        ({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}, "spec.volumes[1].name",
         "FieldValueDuplicate"),
    ],
)  # fmt: skip
async def test_a_bad_pod_spec_is_found_by_a_dry_run(server: Server, spec: Obj, field: str, reason: str) -> None:
    refused = await server.create("pods", pod("a", server.image, **spec), query={"dryRun": "All"}, status=422)
    assert (field, reason) in causes(refused)


async def test_an_unknown_field_of_a_pod_is_dropped_or_refused(server: Server) -> None:
    given = pod("a", server.image, nodeSelector={"nowhere": "true"}, container={"imagePullSecret": "typo"})
    strict = {"fieldValidation": "Strict", "dryRun": "All"}
    refused = await server.create("pods", given, query=strict, status=400)
    assert 'strict decoding error: unknown field "spec.containers[0].imagePullSecret"' in refused["message"]
    made = await server.create("pods", given)
    assert "imagePullSecret" not in made["spec"]["containers"][0]


@pytest.mark.parametrize(
    "spec",
    [
        {"restartPolicy": 3},
        {"nodeSelector": {"gpus": 4}},
        {"containers": {"name": "a"}},
        {"terminationGracePeriodSeconds": "soon"},
        {"hostNetwork": "yes"},
        {"tolerations": ["all"]},
    ],
)
async def test_a_value_of_the_wrong_type_does_not_decode(server: Server, spec: Obj) -> None:
    refused = await server.create("pods", pod("a", server.image, **spec), query={"dryRun": "All"}, status=400)
    assert refused["reason"] == "BadRequest"
    assert 'Pod in version "v1" cannot be handled as a Pod: ' in refused["message"]


async def test_labels_are_text_in_every_kind(server: Server) -> None:
    for plural, given in (("configmaps", config_map("a")), ("widgets", widget("a"))):
        given["metadata"]["labels"] = {"gpus": 4}
        assert (await server.create(plural, given, status=400))["reason"] == "BadRequest"


async def test_the_spec_of_a_pod_is_fixed(server: Server) -> None:
    await server.create("pods", pod("a", server.image, nodeSelector={"nowhere": "true"}))
    refused = await server.patch("pods", "a", {"spec": {"restartPolicy": "Always"}}, status=422)
    assert causes(refused) == {("spec", "FieldValueForbidden")}
