"""When is an object gone, and what goes with it? Preconditions, finalizers, owners, grace, namespaces."""

from __future__ import annotations

import pytest

from contract.kit import GROUP, JSON_PATCH, Server, config_map, owned_by, pod, widget

_WRONG_UID = "11111111-2222-3333-4444-555555555555"


async def test_delete_says_what_it_deleted(server: Server) -> None:
    made = await server.create("widgets", widget("a"))
    done = await server.delete("widgets", "a")
    assert (done["kind"], done["status"]) == ("Status", "Success")
    assert done["details"] == {"name": "a", "group": GROUP, "kind": "widgets", "uid": made["metadata"]["uid"]}
    await server.get("widgets", "a", status=404)
    assert (await server.delete("widgets", "a", status=404))["reason"] == "NotFound"


async def test_a_wrong_uid_deletes_nothing(server: Server) -> None:
    made = await server.create("widgets", widget("a"))
    refused = await server.delete("widgets", "a", {"preconditions": {"uid": _WRONG_UID}}, status=409)
    assert refused["reason"] == "Conflict"
    assert refused["details"]["name"] == "a"
    await server.delete("widgets", "a", {"preconditions": {"uid": made["metadata"]["uid"]}})


async def test_a_stale_version_deletes_nothing(server: Server) -> None:
    made = await server.create("widgets", widget("a"))
    await server.patch("widgets", "a", {"spec": {"workers": 2}})
    stale = {"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    assert (await server.delete("widgets", "a", stale, status=409))["reason"] == "Conflict"
    await server.get("widgets", "a")


async def test_a_pod_on_a_node_keeps_its_grace_period(server: Server) -> None:
    ignores = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    await server.create("pods", pod("a", server.image, "python", "-c", ignores, terminationGracePeriodSeconds=300))
    await server.until("pods", "a", lambda p: p["status"]["phase"] == "Running")
    going = await server.delete("pods", "a")
    assert going["kind"] == "Pod"
    assert going["metadata"]["deletionGracePeriodSeconds"] == 300
    assert going["metadata"]["deletionTimestamp"]
    again = await server.delete("pods", "a")
    assert again["metadata"]["deletionTimestamp"] == going["metadata"]["deletionTimestamp"]
    sooner = await server.delete("pods", "a", {"gracePeriodSeconds": 2})
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 2
    await server.delete("pods", "a", {"gracePeriodSeconds": 0})
    await server.get("pods", "a", status=404)


async def test_a_grace_period_of_zero_deletes_a_pod_at_once(server: Server) -> None:
    await server.create("pods", pod("a", server.image, "python", "-c", "import time; time.sleep(600)"))
    await server.until("pods", "a", lambda p: p["status"]["phase"] == "Running")
    await server.delete("pods", "a", {"gracePeriodSeconds": 0})
    await server.get("pods", "a", status=404)


async def test_a_pod_without_a_node_goes_at_once(server: Server) -> None:
    await server.create("pods", pod("a", server.image, nodeSelector={"nowhere": "true"}))
    await server.delete("pods", "a")
    await server.get("pods", "a", status=404)


async def test_finalizers_hold_an_object(server: Server) -> None:
    given = widget("a")
    given["metadata"]["finalizers"] = [f"{GROUP}/hold", f"{GROUP}/tight"]
    made = await server.create("widgets", given)
    held = await server.delete("widgets", "a")
    assert held["kind"] == "Widget"
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["generation"] == made["metadata"]["generation"] + 1
    removed_one = [{"op": "remove", "path": "/metadata/finalizers/0"}]
    await server.patch("widgets", "a", removed_one, content_type=JSON_PATCH)
    await server.get("widgets", "a")
    await server.patch("widgets", "a", {"metadata": {"finalizers": None}})
    await server.get("widgets", "a", status=404)


async def test_no_finalizer_is_added_to_what_is_going(server: Server) -> None:
    given = widget("a")
    given["metadata"]["finalizers"] = [f"{GROUP}/hold"]
    await server.create("widgets", given)
    await server.delete("widgets", "a")
    more = {"metadata": {"finalizers": [f"{GROUP}/hold", f"{GROUP}/more"]}}
    refused = await server.patch("widgets", "a", more, status=422)
    assert refused["reason"] == "Invalid"
    await server.patch("widgets", "a", {"metadata": {"finalizers": None}})


async def test_dependents_go_with_their_owner(server: Server) -> None:
    owner = await server.create("widgets", widget("owner"))
    await server.create("configmaps", owned_by(owner, config_map("child")))
    await server.create("pods", owned_by(owner, pod("child", server.image, nodeSelector={"nowhere": "true"})))
    await server.create("configmaps", config_map("stranger"))
    await server.delete("widgets", "owner", {"propagationPolicy": "Background"})
    await server.until_gone("configmaps", "child")
    await server.until_gone("pods", "child")
    await server.get("configmaps", "stranger")


async def test_a_child_of_nobody_is_collected(server: Server) -> None:
    owner = await server.create("widgets", widget("owner"))
    owner["metadata"]["uid"] = _WRONG_UID
    await server.create("configmaps", owned_by(owner, config_map("child")))
    await server.until_gone("configmaps", "child")
    await server.get("widgets", "owner")


async def test_a_child_with_another_living_owner_stays(server: Server) -> None:
    first = await server.create("widgets", widget("first"))
    second = await server.create("widgets", widget("second"))
    child = owned_by(first, config_map("child"))
    child["metadata"]["ownerReferences"] += owned_by(second, config_map("x"), controller=False)["metadata"][
        "ownerReferences"
    ]
    await server.create("configmaps", child)
    await server.delete("widgets", "first")
    left = await server.until("configmaps", "child", lambda c: len(c["metadata"]["ownerReferences"]) == 1)
    assert left["metadata"]["ownerReferences"][0]["name"] == "second"


async def test_foreground_waits_for_the_children(server: Server) -> None:
    owner = await server.create("widgets", widget("owner"))
    child = owned_by(owner, config_map("child"), blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = [f"{GROUP}/hold"]
    await server.create("configmaps", child)
    going = await server.delete("widgets", "owner", {"propagationPolicy": "Foreground"})
    assert "foregroundDeletion" in going["metadata"]["finalizers"]
    await server.until("configmaps", "child", lambda c: "deletionTimestamp" in c["metadata"])
    await server.get("widgets", "owner")
    await server.patch("configmaps", "child", {"metadata": {"finalizers": None}})
    await server.until_gone("widgets", "owner")


async def test_orphans_stay(server: Server) -> None:
    owner = await server.create("widgets", widget("owner"))
    await server.create("configmaps", owned_by(owner, config_map("child")))
    await server.delete("widgets", "owner", {"propagationPolicy": "Orphan"})
    await server.until_gone("widgets", "owner")
    left = await server.until("configmaps", "child", lambda c: "ownerReferences" not in c["metadata"])
    assert left["metadata"]["name"] == "child"


async def test_a_collection_is_deleted_by_selector(server: Server) -> None:
    for name, labels in (("a", {"go": "yes"}), ("b", {"go": "yes"}), ("c", {})):
        await server.create("configmaps", config_map(name, labels))
    await server.call("DELETE", server.path("configmaps"), query={"labelSelector": "go=yes"})
    assert set(await server.names("configmaps")) & {"a", "b", "c"} == {"c"}


@pytest.mark.parametrize("body", [{"propagationPolicy": "Sideways"}])
async def test_an_unknown_policy_is_refused(server: Server, body: dict[str, str]) -> None:
    await server.create("widgets", widget("a"))
    refused = await server.delete("widgets", "a", body, status=(400, 422))
    assert refused["status"] == "Failure"
    await server.get("widgets", "a")


async def test_a_namespace_takes_everything_with_it(server: Server) -> None:
    name = f"{server.namespace}-x"
    path = f"/api/v1/namespaces/{name}"
    await server.call(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    held = config_map("held")
    held["metadata"]["finalizers"] = [f"{GROUP}/hold"]
    await server.call("POST", f"{path}/configmaps", held)
    going = await server.call("DELETE", path)
    assert going["status"]["phase"] == "Terminating"
    refused = await server.call("POST", f"{path}/configmaps", config_map("late"), status=403)
    assert refused["reason"] == "Forbidden"
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await server.call(
        "PATCH",
        f"{path}/configmaps/held",
        {"metadata": {"finalizers": None}},
        content_type="application/merge-patch+json",
    )
    namespace = Server(server.http, server.address, server.kubeconfig, name, server.image)
    await namespace.until_gone("configmaps", "held")
