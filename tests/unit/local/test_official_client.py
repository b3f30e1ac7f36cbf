"""Does the official Python client understand the plane? Every kind and verb, and what the plane's own parts write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api.constants import GROUP, PLURAL, VERSION
from drivetrain_api.crd import custom_resource_definition
from drivetrain_local.apiserver.resources import BUILTIN, Resource
from drivetrain_local.cluster import LocalCluster
from harness.official import APIS, Typed, connected, everything, kubernetes
from harness.patience import patiently
from unit.api.cases import job

Obj = dict[str, Any]
_POD: Obj = {"spec": {"restartPolicy": "Never", "containers": [
    {"name": "c", "image": "drivetrain-worker", "command": ["true"]}]}}  # fmt: skip
_MISSING: Obj = {"configMapKeyRef": {"name": "no-such", "key": "k"}}
_VERSION: Obj = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
_BODIES: dict[str, list[Obj]] = {
    "/namespaces": [{}],
    "/nodes": [{"status": {"nodeInfo": {"osImage": "x"}, "conditions": [{"type": "Ready"}], "addresses": [{}]}}, {}],
    "/pods": [_POD],
    "/services": [
        {"spec": {"ports": [{"port": 80}]}},
        {"spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}]}},
    ],
    "/endpoints": [{}, {"subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80}]}]}],
    "/configmaps": [{}, {"data": {"a": "b"}}],
    "/secrets": [{}, {"stringData": {"a": "b"}}],
    "/serviceaccounts": [{}],
    "/persistentvolumeclaims": [
        {"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}},
    ],
    "/events": [
        {},
        {"involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}, "type": "Normal", "count": 1,
         "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"},
    ],
    "events.k8s.io/events": [
        {"eventTime": "2026-01-01T00:00:00.000000Z", "regarding": {"kind": "Pod", "name": "a", "namespace": "default"},
         "action": "x", "reason": "y", "type": "Normal", "reportingController": "c", "reportingInstance": "i",
         "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}
    ],
    "coordination.k8s.io/leases": [
        {},
        {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}},
    ],
    "discovery.k8s.io/endpointslices": [
        {"addressType": "IPv4"},
        {"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": 1}]},
    ],
    "policy/poddisruptionbudgets": [
        {"spec": {"maxUnavailable": 1}},
        {"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}},
    ],
    "networking.k8s.io/networkpolicies": [
        {"spec": {"podSelector": {}}},
        {"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 1}]}]}},
    ],
    "apiextensions.k8s.io/customresourcedefinitions": [
        {"metadata": {"name": "as.t.dev"},
         "spec": {"group": "t.dev", "scope": "Cluster", "names": {"plural": "as", "kind": "A"}, "versions": [_VERSION]}}
    ],
}  # fmt: skip
"""The least that a kind may be, as somebody without types writes it, and something fuller."""


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    crds = [custom_resource_definition()]
    async with LocalCluster(tmp_path / "plane", nodes=1, gpus=1, crds=crds, node_grace_seconds=1.0) as cluster:
        yield cluster


def _stored() -> list[Resource]:
    return [resource for resource in BUILTIN if resource.verbs != ("create",)]


@pytest.mark.parametrize("resource", _stored(), ids=lambda r: f"{r.group}/{r.plural}")
async def test_a_kind_is_understood(plane: LocalCluster, resource: Resource) -> None:
    bodies = _BODIES[f"{resource.group}/{resource.plural}"]
    where = "/namespaces/default" if resource.namespaced else ""
    names = [str(given.get("metadata", {}).get("name", f"o{number}")) for number, given in enumerate(bodies)]
    for name, given in zip(names, bodies, strict=True):
        body = {**given, "metadata": {"name": name}}
        await plane.client.post(f"{resource.base_path}{where}/{resource.plural}", body)

    def use() -> None:
        with connected(plane.kubeconfig) as client:
            typed = Typed(client, resource, "default")
            assert typed.first_seen().metadata.uid
            for name in names:
                assert typed.read(name).metadata.name == name
                assert name in {each.metadata.name for each in typed.list().items}
                assert name in {each.metadata.name for each in typed.everywhere().items}
                _replaced(typed, name)
                assert typed.patch(name, {"metadata": {"labels": {"a": "b"}}}).metadata.labels["a"] == "b"
                if resource.status:
                    typed.read(name, "_status")
                    typed.patch(name, {"metadata": {"labels": {"a": "c"}}}, "_status")
                typed.delete(name)
            if resource.key not in ("pods", "namespaces"):  # which take their time to go
                made = typed.create({**bodies[-1], "metadata": {"name": names[-1]}})
                assert made.metadata.name == names[-1]
            if resource.namespaced:
                typed.delete_all()

    await asyncio.to_thread(use)


def _replaced(typed: Typed, name: str) -> None:
    """Replaces an object by what was read of it; again where a write of somebody else (of a node) came between."""
    for left in reversed(range(10)):
        try:
            typed.replace(name, typed.read(name))
            return
        except kubernetes.client.ApiException as conflict:
            if conflict.status != 409 or not left:
                raise


def test_no_kind_is_left_out() -> None:
    assert set(_BODIES) == {f"{resource.group}/{resource.plural}" for resource in _stored()}
    assert {resource.group for resource in BUILTIN} <= set(APIS)


async def test_what_the_plane_itself_writes_is_understood(plane: LocalCluster) -> None:
    """Pods in every state, their events, a node that was lost, its lease."""
    pods: dict[str, Obj] = {
        "done": {},
        "broken": {"containers": [{"name": "c", "image": "drivetrain-worker", "command": ["false"]}]},
        "crashing": {"restartPolicy": "Always",
                     "containers": [{"name": "c", "image": "drivetrain-worker", "command": ["false"]}]},
        "no-image": {"containers": [{"name": "c", "image": "no-such-image"}]},
        "no-config": {"containers": [{"name": "c", "image": "drivetrain-worker", "command": ["true"],
                                      "env": [{"name": "A", "valueFrom": _MISSING}]}]},
        "too-big": {"containers": [{"name": "c", "image": "drivetrain-worker",
                                    "resources": {"limits": {"nvidia.com/gpu": "9"}}}]},
        "prepared": {"initContainers": [{"name": "i", "image": "drivetrain-worker", "command": ["true"]}],
                     "containers": [{"name": "c", "image": "drivetrain-worker", "command": ["sleep", "600"],
                                     "ports": [{"containerPort": 80, "name": "http"}],
                                     "readinessProbe": {"tcpSocket": {"port": "http"}}}]},
    }  # fmt: skip

    def create() -> None:
        with connected(plane.kubeconfig) as client:
            core = kubernetes.client.CoreV1Api(client)
            for name, spec in pods.items():
                body = {"metadata": {"name": name}, "spec": {**_POD["spec"], **spec}}
                core.create_namespaced_pod("default", body)

    await asyncio.to_thread(create)
    reasons = {"Pulled", "Started", "BackOff", "Failed", "FailedScheduling", "Scheduled"}
    found = await _until(plane, lambda all_: reasons <= {event.reason for event in all_["/events"]})
    assert len(found["/events"]) <= len(found["events.k8s.io/events"])  # asked later
    assert {pod.status.phase for pod in found["/pods"]} == {"Succeeded", "Failed", "Running", "Pending"}
    plane.agents["node-0"].lose()
    await _until(plane, lambda all_: {c.status for c in all_["/nodes"][0].status.conditions} == {"Unknown"})


async def _until(plane: LocalCluster, reached: Callable[[Obj], bool]) -> Obj:
    async with patiently(60):
        while True:
            found = await asyncio.to_thread(everything, plane.kubeconfig)
            if reached(found):
                return found
            await asyncio.sleep(0.2)


async def test_trainingjobs_are_understood(plane: LocalCluster) -> None:
    def use() -> None:
        with connected(plane.kubeconfig) as client:
            api: Any = kubernetes.client.CustomObjectsApi(client)
            of = (GROUP, VERSION, "default", PLURAL)
            api.create_namespaced_custom_object(*of, job())
            stored = api.get_namespaced_custom_object(*of, "lm")
            api.replace_namespaced_custom_object(*of, "lm", stored)
            api.patch_namespaced_custom_object(*of, "lm", {"spec": {"workers": 2}})
            api.patch_namespaced_custom_object_status(*of, "lm", {"status": {"phase": "Running"}})
            api.patch_namespaced_custom_object_scale(*of, "lm", {"spec": {"replicas": 3}})
            assert api.get_namespaced_custom_object_scale(*of, "lm")["spec"]["replicas"] == 3
            assert api.get_namespaced_custom_object_status(*of, "lm")["status"] == {"phase": "Running"}
            assert len(api.list_namespaced_custom_object(*of)["items"]) == 1
            watch = kubernetes.watch.Watch()
            for event in watch.stream(api.list_namespaced_custom_object, *of, timeout_seconds=20):
                assert event["object"]["spec"]["workers"] == 3
                watch.stop()
            with pytest.raises(kubernetes.client.ApiException) as refused:
                api.patch_namespaced_custom_object(*of, "lm", {"spec": {"workers": 0}})
            assert (refused.value.status, refused.value.reason) == (422, "Unprocessable Entity")
            assert '"reason": "Invalid"' in str(refused.value.body)
            api.delete_namespaced_custom_object(*of, "lm")

    await asyncio.to_thread(use)


async def test_what_the_server_says_about_itself_is_understood(plane: LocalCluster) -> None:
    def use() -> None:
        with connected(plane.kubeconfig) as client:
            assert kubernetes.client.VersionApi(client).get_code().git_version
            assert kubernetes.client.CoreApi(client).get_api_versions().versions == ["v1"]
            assert kubernetes.client.ApisApi(client).get_api_versions().groups
            for name in set(APIS.values()):
                assert getattr(kubernetes.client, name)(client).get_api_resources().resources
            review = next(resource for resource in BUILTIN if resource.verbs == ("create",))
            asked = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
            may: Any = Typed(client, review, "").create(asked)
            assert may.status.allowed
            assert may.spec.resource_attributes.resource == "pods"

    await asyncio.to_thread(use)


async def test_times_have_one_form_whatever_a_client_sends(plane: LocalCluster) -> None:
    """The official client writes +00:00, and Kubernetes stores Z: what compares times as text must not meet both."""
    client = plane.client
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    made = await client.post(leases, {"metadata": {"name": "a"}, "spec": {"renewTime": "2026-01-01T01:00:00.5+01:00"}})
    assert made["spec"]["renewTime"] == "2026-01-01T00:00:00.500000Z"
    event = {"metadata": {"name": "a"}, "lastTimestamp": "2026-01-01T00:00:00.9Z"}
    assert (await client.post("/api/v1/namespaces/default/events", event))["lastTimestamp"] == "2026-01-01T00:00:00Z"
    with pytest.raises(Exception, match=r'as a Lease: LeaseSpec.renewTime: parsing time "yesterday"'):
        await client.patch(f"{leases}/a", {"spec": {"renewTime": "yesterday"}})
