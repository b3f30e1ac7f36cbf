"""The small pure parts: quantities, JSON paths, ages, expansion, fitting, routes, phases."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from drivetrain_api import quantity
from drivetrain_local.apiserver import jsonpath
from drivetrain_local.apiserver.columns import human_duration, pod_status
from drivetrain_local.controllers import fit
from drivetrain_local.controllers.endpoints import routes
from drivetrain_local.node import status
from drivetrain_local.node.environment import Sources, arguments, environment, expand
from drivetrain_local.node.images import Image, default_images, find, parse_image
from drivetrain_local.node.volumes import rooted_modules
from drivetrain_local.objects import parse_time, rfc3339_micro

Obj = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("500m", Fraction(1, 2)),
        ("2Gi", 2 * 1024**3),
        ("1k", 1000),
        ("1.5", Fraction(3, 2)),
        ("2e3", 2000),
        (4, 4),
        ("-1", -1),
        ("100n", Fraction(1, 10**7)),
    ],
)
def test_quantities(text: str | int, value: Any) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize("text", ["", "x", "1KiB", "1 Gi", "--1"])
def test_what_is_no_quantity(text: str) -> None:
    assert not quantity.is_quantity(text)
    with pytest.raises(ValueError, match="no quantity"):
        quantity.parse(text)


_STATUS = {"status": {"conditions": [{"type": "A", "status": "1"}, {"type": "B", "status": "2"}], "n": 3}, "x.y": 1}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".status.n", [3]),
        (".status.none.deeper", []),
        ('.status.conditions[?(@.type=="B")].status', ["2"]),
        (".status.conditions[*].type", ["A", "B"]),
        (".status.conditions[0].type", ["A"]),
        (".status.conditions[-1].type", ["B"]),
        ("['x.y']", [1]),
        (r".x\.y", [1]),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert jsonpath.find(_STATUS, path) == found


def test_a_path_outside_the_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="not understood"):
        jsonpath.find({}, ".a[?(@.b > 3)]")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (601, "10m"), (3 * 3600, "3h"), (3.5 * 3600, "3h30m"),
     (9 * 3600, "9h"), (50 * 3600, "2d2h"), (10 * 86400, "10d"), (3 * 365 * 86400, "3y")],
)  # fmt: skip
def test_ages_read_as_in_kubectl(seconds: float, text: str) -> None:
    assert human_duration(dt.timedelta(seconds=seconds)) == text


def test_times_survive_a_round_trip() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
    assert parse_time(rfc3339_micro(moment)) == moment
    assert parse_time("2026-01-02T03:04:05.678901234Z") == moment
    assert parse_time("2026-01-02T03:04:05Z") == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "expect"),
    [("$(A)", "1"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("x$(A)y$(A)", "x1y1"), ("$A", "$A"), ("$(A", "$(A")],
)
def test_expansion(text: str, expect: str) -> None:
    assert expand(text, {"A": "1"}) == expect


@pytest.mark.parametrize(
    ("container", "expect"),
    [
        ({}, ("run", "default")),
        ({"args": ["x"]}, ("run", "x")),
        ({"args": []}, ("run",)),
        ({"command": ["other"]}, ("other",)),
        ({"command": ["other"], "args": ["$(A)"]}, ("other", "1")),
    ],
)
def test_command_and_args_replace_what_the_image_has(container: Obj, expect: tuple[str, ...]) -> None:
    assert arguments(container, Image(("run",), ("default",)), {"A": "1"}) == expect


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        (None, "/src/one:/src/two"),
        ("", "/src/one:/src/two"),
        ("/mine", "/mine:/src/one:/src/two"),
        ("/code/lib:/src/two", "/root/code/lib:/src/two:/src/one"),
        ("$(PYTHONPATH):/code", "/src/one:/src/two:/root/code"),
    ],
)
def test_a_pythonpath_of_ones_own_hides_nothing_of_the_image(given: str | None, expect: str) -> None:
    """A worker's launcher was not found: in a real image it is installed, here it is on that path."""
    container: Obj = {"volumeMounts": [{"name": "code", "mountPath": "/code"}]}
    if given is not None:
        container["env"] = [{"name": "PYTHONPATH", "value": given}]
    image = Image(env={"PYTHONPATH": "/src/one:/src/two"})
    made = environment({"metadata": {}}, container, image, Sources({}), "", "", {})
    assert rooted_modules(container, Path("/root"), made, image.env)["PYTHONPATH"] == expect


def test_a_checkout_below_a_mount_is_found() -> None:
    """A clone in /tmp: workers have a /tmp of their own."""
    container: Obj = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
    image = Image(env={"PYTHONPATH": "/tmp/clone/operator"})
    made = environment({"metadata": {}}, container, image, Sources({}), "", "", {})
    assert rooted_modules(container, Path("/root"), made, image.env)["PYTHONPATH"] == "/tmp/clone/operator"


@pytest.mark.parametrize(
    "reference",
    ["drivetrain-worker", "drivetrain-worker:1.2", "ghcr.io/org/drivetrain-worker:dev", "drivetrain-worker@sha256:0"],
)
def test_an_image_is_known_by_its_last_part(reference: str) -> None:
    assert find(default_images(), reference) is not None


def test_other_images_are_unknown() -> None:
    assert find(default_images(), "python:3.12") is None


def test_the_image_flag() -> None:
    name, image = parse_image('mine=["python", "x.py"]')
    assert (name, image.entrypoint) == ("mine", ("python", "x.py"))
    for bad in ("", '=["x"]', 'a="x"', "a=[1]"):
        with pytest.raises(ValueError):
            parse_image(bad)


def _node(**spec: Any) -> Obj:
    allocatable = {"cpu": "2", "memory": "1Gi", "pods": "2", "nvidia.com/gpu": "1"}
    return {"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": spec, "status": {"allocatable": allocatable}}


def _pod(requests: Obj | None = None, **spec: Any) -> Obj:
    container = {"name": "c", "resources": {"requests": requests or {}}}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container], **spec}, "status": {}}


_TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}
_IN_B = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]}


@pytest.mark.parametrize(
    ("pod", "node", "beside", "expect"),
    [
        (_pod(), _node(), [], []),
        (_pod({"cpu": "2"}), _node(), [], []),
        (_pod({"cpu": "2100m"}), _node(), [], ["Insufficient cpu"]),
        (_pod({"cpu": "1"}), _node(), [_pod({"cpu": "1500m"})], ["Insufficient cpu"]),
        (_pod({"nvidia.com/gpu": "2", "memory": "2Gi"}), _node(), [],
         ["Insufficient memory", "Insufficient nvidia.com/gpu"]),
        (_pod(), _node(), [_pod(), _pod()], ["Too many pods"]),
        (_pod(), _node(), [_pod(), {**_pod(), "status": {"phase": "Succeeded"}}], []),
        (_pod(), _node(unschedulable=True), [], ["node(s) were unschedulable"]),
        (_pod(), _node(taints=[_TAINT]), [], ["node(s) had untolerated taint {k: v}"]),
        (_pod(tolerations=[{"key": "k", "operator": "Exists"}]), _node(taints=[_TAINT]), [], []),
        (_pod(tolerations=[{"key": "k", "value": "w"}]), _node(taints=[_TAINT]), [],
         ["node(s) had untolerated taint {k: v}"]),
        (_pod(nodeSelector={"zone": "b"}), _node(), [], ["node(s) didn't match Pod's node affinity/selector"]),
        (_pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _IN_B}}), _node(), [],
         ["node(s) didn't match Pod's node affinity/selector"]),
    ],
)  # fmt: skip
def test_fitting(pod: Obj, node: Obj, beside: list[Obj], expect: list[str]) -> None:
    assert fit.obstacles(pod, node, fit.free(node, beside)) == expect


def test_the_explanation_counts_nodes() -> None:
    found = [["Insufficient nvidia.com/gpu"], ["Insufficient nvidia.com/gpu", "Insufficient cpu"], ["Too many pods"]]
    text = "0/3 nodes are available: 1 Insufficient cpu, 1 Too many pods, 2 Insufficient nvidia.com/gpu."
    assert fit.explanation(found) == text
    assert fit.explanation([]) == "no nodes available to schedule pods"


def _served(phase: str = "Running", ready: str = "True", **meta: Any) -> Obj:
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "a"}, **meta},
        "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": phase, "podIP": "127.0.0.9", "conditions": conditions},
    }


def _service(**spec: Any) -> Obj:
    port = {"port": 80, "targetPort": "web", "protocol": "TCP"}
    return {
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"clusterIP": "127.0.0.8", "selector": {"app": "a"}, "ports": [port], **spec},
    }


@pytest.mark.parametrize(
    ("service", "pod", "served"),
    [
        (_service(), _served(), True),
        (_service(), _served(ready="False"), False),
        (_service(publishNotReadyAddresses=True), _served(ready="False"), True),
        (_service(), _served(phase="Failed"), False),
        (_service(), _served(deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (_service(), _served(namespace="other"), False),
        (_service(selector={"app": "b"}), _served(), False),
        (_service(clusterIP="None"), _served(), False),
    ],
)
def test_routes_lead_to_ready_pods(service: Obj, pod: Obj, served: bool) -> None:
    found = routes([service], [pod], [])
    if served:
        assert found["127.0.0.8", 80].backends == (("127.0.0.9", 8080),)
    else:
        assert found == {}


def test_without_a_selector_endpoint_slices_decide() -> None:
    service = _service(selector=None, ports=[{"port": 80, "name": "api"}])
    endpoints = {
        "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": [
            {"addresses": ["127.0.0.2"], "conditions": {"ready": True}},
            {"addresses": ["127.0.0.3"], "conditions": {"ready": False}},
        ],
        "ports": [{"name": "api", "port": 9}, {"name": "other", "port": 10}],
    }
    assert routes([service], [_served()], [endpoints])["127.0.0.8", 80].backends == (("127.0.0.2", 9),)


def _container(ended: int | None = None, *, running: bool = False, last: int | None = None) -> Obj:
    state: Obj = {"waiting": {"reason": "ContainerCreating"}}
    if running:
        state = {"running": {"startedAt": "x"}}
    if ended is not None:
        state = {"terminated": {"exitCode": ended}}
    return {
        "name": "c",
        "ready": running,
        "state": state,
        "lastState": {} if last is None else {"terminated": {"exitCode": last}},
    }


@pytest.mark.parametrize(
    ("policy", "inits", "mains", "phase"),
    [
        ("Never", [], [_container()], "Pending"),
        ("Never", [], [_container(running=True)], "Running"),
        ("Never", [], [_container(0)], "Succeeded"),
        ("Never", [], [_container(1)], "Failed"),
        ("Never", [], [_container(0), _container(running=True)], "Running"),
        ("Never", [], [_container(0), _container(2)], "Failed"),
        ("Never", [_container(1)], [_container()], "Failed"),
        ("Never", [_container(running=True)], [_container()], "Pending"),
        ("Never", [_container(0)], [_container(running=True)], "Running"),
        ("OnFailure", [], [_container(0)], "Succeeded"),
        ("OnFailure", [], [_container(1)], "Running"),
        ("Always", [], [_container(0)], "Running"),
        ("Always", [], [_container(last=1)], "Running"),
        ("OnFailure", [_container(1)], [_container()], "Pending"),
    ],
)
def test_phases(policy: str, inits: list[Obj], mains: list[Obj], phase: str) -> None:
    assert status.phase({"spec": {"restartPolicy": policy}}, inits, mains) == phase


def test_a_transition_time_changes_with_its_condition_only() -> None:
    pod: Obj = {"spec": {}, "status": {"conditions": []}}
    pod["status"]["conditions"] = status.conditions(pod, "Running", [], [_container(running=True)], "t1")
    later = status.conditions(pod, "Failed", [], [_container(1)], "t2")
    times = {condition["type"]: condition["lastTransitionTime"] for condition in later}
    assert times == {"PodReadyToStartContainers": "t2", "Initialized": "t1", "Ready": "t2", "ContainersReady": "t2"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Running"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "Terminating"),
        ({"status": {"phase": "Pending", "containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}, "ImagePullBackOff"),
        ({"status": {"phase": "Failed", "containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}, "Error"),
        ({"status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"running": {}}}]}}, "Init:0/1"),
    ],
)  # fmt: skip
def test_the_status_column_of_pods(changes: Obj, text: str) -> None:
    spec = {"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}
    pod = {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}} | changes
    assert pod_status(pod)[0] == text
