"""What is special about the small kinds that the operator uses? Secrets, Services, Leases, Events, EndpointSlices."""

from __future__ import annotations

from base64 import b64decode
from ipaddress import ip_address

from contract.kit import Obj, Server, causes

_LEASE_SPEC = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}


def _secret(name: str, **more: object) -> Obj:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **more}


def _service(name: str, **spec: object) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], **spec},
    }


async def test_string_data_is_write_only(server: Server) -> None:
    made = await server.create("secrets", _secret("a", stringData={"token": "hush"}))
    assert "stringData" not in made
    assert b64decode(made["data"]["token"]) == b"hush"
    assert made["type"] == "Opaque"


async def test_secret_data_must_be_base64(server: Server) -> None:
    refused = await server.create("secrets", _secret("a", data={"token": "%%%"}), status=400)
    assert refused["reason"] == "BadRequest"


async def test_an_immutable_secret_stays_as_it_is(server: Server) -> None:
    await server.create("secrets", _secret("a", stringData={"token": "1"}, immutable=True))
    refused = await server.patch("secrets", "a", {"stringData": {"token": "2"}}, status=422)
    assert ("data", "FieldValueForbidden") in causes(refused)
    refused = await server.patch("secrets", "a", {"immutable": None}, status=422)
    assert ("immutable", "FieldValueForbidden") in causes(refused)
    labelled = await server.patch("secrets", "a", {"metadata": {"labels": {"still": "possible"}}})
    assert labelled["metadata"]["labels"] == {"still": "possible"}


async def test_the_type_of_a_secret_is_fixed(server: Server) -> None:
    await server.create("secrets", _secret("a"))
    refused = await server.patch("secrets", "a", {"type": "other/type"}, status=422)
    assert ("type", "FieldValueInvalid") in causes(refused)


async def test_a_service_gets_an_address_for_good(server: Server) -> None:
    made = await server.create("services", _service("a", selector={"app": "a"}))
    address = made["spec"]["clusterIP"]
    assert ip_address(address)
    assert made["spec"]["clusterIPs"] == [address]
    assert made["spec"]["type"] == "ClusterIP"
    assert made["spec"]["ports"][0] | {"protocol": "TCP", "targetPort": 80} == made["spec"]["ports"][0]
    after = await server.patch("services", "a", {"spec": {"selector": {"app": "b"}}})
    assert after["spec"]["clusterIP"] == address
    refused = await server.patch("services", "a", {"spec": {"clusterIP": "None"}}, status=422)
    assert refused["reason"] == "Invalid"


async def test_two_services_never_share_an_address(server: Server) -> None:
    first = await server.create("services", _service("a"))
    taken = _service("b", clusterIP=first["spec"]["clusterIP"])
    refused = await server.create("services", taken, status=422)
    assert ("spec.clusterIPs", "FieldValueInvalid") in causes(refused)
    await server.delete("services", "a")
    again = await server.create("services", taken)
    assert again["spec"]["clusterIP"] == first["spec"]["clusterIP"]


async def test_a_headless_service_has_none(server: Server) -> None:
    made = await server.create("services", _service("a", clusterIP="None"))
    assert made["spec"]["clusterIP"] == "None"


async def test_service_names_are_dns_1035_labels(server: Server) -> None:
    refused = await server.create("services", _service("Not-A-Label"), status=422)
    assert ("metadata.name", "FieldValueInvalid") in causes(refused)


async def test_a_lease_is_taken_by_compare_and_swap(server: Server) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a"},
        "spec": _LEASE_SPEC,
    }
    made = await server.create("leases", lease)
    won = {**made, "spec": {**made["spec"], "holderIdentity": "b", "leaseTransitions": 1}}
    lost = {**made, "spec": {**made["spec"], "holderIdentity": "c", "leaseTransitions": 1}}
    after = await server.put("leases", "a", won)
    assert after["spec"]["holderIdentity"] == "b"
    assert after["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"
    assert (await server.put("leases", "a", lost, status=409))["reason"] == "Conflict"
    assert (await server.create("leases", lease, status=409))["reason"] == "AlreadyExists"


async def test_a_lease_of_no_seconds_is_invalid(server: Server) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a"},
        "spec": {**_LEASE_SPEC, "leaseDurationSeconds": 0},
    }
    refused = await server.create("leases", lease, status=422)
    assert ("spec.leaseDurationSeconds", "FieldValueInvalid") in causes(refused)


async def test_an_event_is_found_by_what_it_is_about(server: Server) -> None:
    about = {"kind": "Widget", "name": "a", "namespace": server.namespace, "uid": "u-1", "apiVersion": "v1"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a.1"},
        "involvedObject": about,
        "reason": "Tested",
        "message": "it was",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "contract"},
    }
    await server.create("events", event)
    await server.patch("events", "a.1", {"count": 2})
    query = {"fieldSelector": "involvedObject.name=a,involvedObject.uid=u-1,reason=Tested"}
    (found,) = (await server.get("events", query=query))["items"]
    assert (found["count"], found["message"]) == (2, "it was")
    assert (await server.get("events", query={"fieldSelector": "involvedObject.name=b"}))["items"] == []


async def test_one_event_has_two_apis(server: Server) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a.1"},
        "involvedObject": {"kind": "Widget", "name": "a", "namespace": server.namespace},
        "reason": "Tested",
        "message": "it was",
        "type": "Normal",
    }
    await server.create("events", event)
    path = f"/apis/events.k8s.io/v1/namespaces/{server.namespace}/events/a.1"
    seen = await server.call("GET", path)
    assert (seen["apiVersion"], seen["note"]) == ("events.k8s.io/v1", "it was")
    assert seen["regarding"]["name"] == "a"


async def test_an_endpoint_slice_keeps_its_address_type(server: Server) -> None:
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.8.7"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": 8080}],
    }
    made = await server.create("endpointslices", endpoints)
    assert made["ports"][0]["protocol"] == "TCP"
    moved = {"endpoints": [{"addresses": ["10.9.8.6"], "conditions": {"ready": True}}]}
    after = await server.patch("endpointslices", "a", moved)
    assert after["endpoints"][0]["addresses"] == ["10.9.8.6"]
    refused = await server.patch("endpointslices", "a", {"addressType": "IPv6", "endpoints": []}, status=422)
    assert ("addressType", "FieldValueInvalid") in causes(refused)


async def test_a_network_policy_is_given_back_as_it_was_spelled(server: Server) -> None:
    """Whoever mends them compares."""
    ours = {"podSelector": {"matchLabels": {"job": "a"}}}
    everywhere = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}
    spec: Obj = {
        **ours,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [ours]},
            {"from": [everywhere], "ports": [{"port": 7071, "protocol": "TCP"}]},
            {"ports": [{"port": 53, "protocol": "UDP"}]},
        ],
        "egress": [{"to": [ours]}],
    }
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": spec}
    made = await server.create("networkpolicies", body)
    assert made["spec"] == spec
    changed = await server.patch("networkpolicies", "a", {"spec": {"egress": None, "policyTypes": ["Ingress"]}})
    assert changed["spec"] == {key: value for key, value in spec.items() if key != "egress"} | {
        "policyTypes": ["Ingress"]
    }


def _claim(name: str, **spec: object) -> Obj:
    given: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    meta = {"name": name}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": given}


async def test_a_claim_says_how_much_and_for_whom(server: Server) -> None:
    made = await server.create("persistentvolumeclaims", _claim("a", storageClassName=""))
    assert made["spec"]["volumeMode"] == "Filesystem"
    refused = await server.create("persistentvolumeclaims", _claim("b", accessModes=[]), status=422)
    assert ("spec.accessModes", "FieldValueRequired") in causes(refused)
    refused = await server.create("persistentvolumeclaims", _claim("b", accessModes=["Some"]), status=422)
    assert ("spec.accessModes", "FieldValueNotSupported") in causes(refused)
    refused = await server.create("persistentvolumeclaims", _claim("b", resources={}), status=422)
    assert ("spec.resources[storage]", "FieldValueRequired") in causes(refused)
    other = {"spec": {"accessModes": ["ReadWriteMany"]}}
    refused = await server.patch("persistentvolumeclaims", "a", other, status=422)
    assert ("spec", "FieldValueForbidden") in causes(refused)
