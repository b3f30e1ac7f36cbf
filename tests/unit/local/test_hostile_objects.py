"""Objects that are none, of every kind, by whoever has the token: each is an answer, and none is a traceback."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from drivetrain_api.constants import API_VERSION, PLURAL
from drivetrain_api.crd import custom_resource_definition
from drivetrain_local.apiserver import ApiServer
from unit.api.cases import job

_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    [None],
    ["x"],
    [{}],
    {},
    {"a": None},
    {"": {}},
]


def _mutated(chance: random.Random, value: Any) -> Any:
    """The value with something else in one place."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        return {**value, key: _mutated(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        return [*value[:index], _mutated(chance, value[index]), *value[index + 1 :]]
    return chance.choice(_VALUES)


_META: Any = {
    "name": "a",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "finalizers": ["a/b"],
    "generateName": "a-",
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}],
}
_OBJECTS: dict[str, Any] = {
    "/api/v1/namespaces/default/configmaps": {"metadata": _META, "data": {"a": "b"}, "immutable": False},
    "/api/v1/namespaces/default/secrets": {"metadata": _META, "data": {"a": "YQ=="}, "stringData": {"b": "c"}},
    "/api/v1/namespaces/default/pods": {
        "metadata": _META,
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "a"}],
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [
                {
                    "name": "c",
                    "image": "x",
                    "ports": [{"containerPort": 1}],
                    "command": ["a"],
                    "env": [
                        {"name": "A", "value": "b"},
                        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": 1}},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                }
            ],
        },
    },
    "/api/v1/namespaces/default/services": {
        "metadata": _META,
        "spec": {"ports": [{"port": 1, "targetPort": "a", "name": "x"}], "selector": {"a": "b"}, "clusterIP": ""},
    },
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {
        "metadata": _META,
        "addressType": "IPv4",
        "ports": [{"port": 1}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    },
    "/apis/coordination.k8s.io/v1/namespaces/default/leases": {
        "metadata": _META,
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"},
    },
    "/api/v1/namespaces/default/events": {
        "metadata": _META,
        "involvedObject": {"kind": "Pod", "name": "a"},
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "a"},
    },
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets": {
        "metadata": _META,
        "spec": {
            "minAvailable": 1,
            "selector": {
                "matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
            },
        },
    },
    "/api/v1/nodes": {
        "metadata": _META,
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "capacity": {"cpu": "1"}},
    },
    "/api/v1/namespaces": {"metadata": _META, "spec": {"finalizers": ["kubernetes"]}},
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
        "metadata": {"name": "as.t.dev"},
        "spec": {
            "group": "t.dev",
            "scope": "Cluster",
            "names": {"plural": "as", "kind": "A", "shortNames": ["a"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"},
                    },
                    "additionalPrinterColumns": [{"name": "N", "type": "string", "jsonPath": ".spec.n"}],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "required": ["n"],
                                    "x-kubernetes-validations": [{"rule": "self.n > 0", "message": "m"}],
                                    "properties": {
                                        "n": {"type": "integer", "maximum": 3, "enum": [1, 2], "default": 1},
                                        "s": {"type": "string", "pattern": "^a$"},
                                    },
                                }
                            },
                        }
                    },
                }
            ],
        },
    },
    f"/apis/{API_VERSION}/namespaces/default/{PLURAL}": job(
        "a", workers=2, training={"parallel": {"tensor": 2}}, elastic={"minWorkers": 2, "maxWorkers": 3}
    ),
}


@pytest.mark.parametrize("path", _OBJECTS, ids=lambda p: p.rpartition("/")[2])
async def test_objects_that_are_none(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Some place of an object holds something else; it is created, patched in three ways, replaced and deleted."""
    chance = random.Random(7)
    merge, json_patch = "application/merge-patch+json", "application/json-patch+json"
    strategic = "application/strategic-merge-patch+json"
    bad: list[Any] = []
    async with ApiServer(crds=[custom_resource_definition()]) as api, api.session() as http:

        async def send(method: str, where: str, body: Any, kind: str = "application/json") -> None:
            async with http.request(method, where, data=json.dumps(body), headers={"Content-Type": kind}) as answer:
                content = await answer.json()
                if answer.status >= 500 and answer.status != 501:
                    bad.append((method, kind, body, content["message"]))

        name = _OBJECTS[path]["metadata"]["name"]
        for _ in range(80):
            await send("POST", path, _OBJECTS[path])
            changed = _mutated(chance, _OBJECTS[path])
            await send("POST", path, changed)
            await send("PUT", f"{path}/{name}", changed)
            await send("PATCH", f"{path}/{name}", changed, merge)
            await send("PATCH", f"{path}/{name}", changed, strategic)
            await send("PATCH", f"{path}/{name}/status", changed, merge)
            await send("PATCH", f"{path}/{name}/scale", _mutated(chance, {"spec": {"replicas": 1}}), merge)
            operation = {
                "op": chance.choice(["add", "remove", "replace", "test", "move", "copy", "x"]),
                "path": chance.choice(
                    [
                        "/metadata/labels/a",
                        "/spec",
                        "",
                        "/x/y",
                        "/metadata/finalizers/0",
                        "/metadata/finalizers/-",
                        "/metadata/finalizers/x",
                        "/-",
                    ]
                ),
                "from": "/metadata/labels",
                "value": chance.choice(_VALUES),
            }
            await send("PATCH", f"{path}/{name}", _mutated(chance, [operation]), json_patch)
            await send("PATCH", f"{path}/{name}", [operation], json_patch)
            await send("GET", path, None)
            options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background", "preconditions": {"uid": "u"}}
            await send("DELETE", f"{path}/{name}", _mutated(chance, options))
            await send("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, merge)
            await send("DELETE", f"{path}/{name}", None)
    assert bad == []
    assert caplog.records == []
