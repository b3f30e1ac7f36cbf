"""Does the cluster work? Each check is something that the end-to-end tests rely on.

Run by `python -m cluster smoke` against the cluster that is up (two nodes at least); it uses only the Python base
image, and leaves nothing in the cluster.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster import faults, network
from cluster.binaries import kubernetes_version
from cluster.errors import ClusterError, NotInTime
from cluster.images import PYTHON_BASE, python_base
from cluster.kubectl import get, kubectl, node_is_ready
from cluster.layout import Node
from cluster.load import load
from harness.patience import Patience

_SPACE = "smoke"
_SERVER = ("python", "-u", "-m", "http.server", "8000", "--directory", "/etc")
_ASK = "import urllib.request as u; print(u.urlopen('http://{host}:8000/hostname', timeout=5).read().decode())"
_ASK_API = (
    "import ssl, urllib.request as u;"
    "trust = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt');"
    "print(u.urlopen('https://kubernetes.default.svc/version', timeout=5, context=trust).read().decode())"
)


def smoke(nodes: list[Node]) -> None:
    """Run all checks in order, printing each with its time; the first that fails ends it."""
    if len(nodes) < 2:
        raise ClusterError("smoke needs two nodes: python -m cluster up --nodes 2")
    load(python_base(), nodes)
    _delete_space()
    try:
        for check in (
            _starts_pods,
            _runs_commands,
            _keeps_logs,
            _resolves_and_balances,
            _reaches_the_api_server,
            _sees_crashes,
            _kills_what_takes_too_much,
            _misses_images_soon,
            _places_by_gpu,
            _survives_a_cut,
        ):
            started = time.monotonic()
            check(nodes)
            print(f"{check.__name__.strip('_').replace('_', ' ')}: {time.monotonic() - started:.1f} s", flush=True)
    finally:
        _delete_space()


def _starts_pods(nodes: list[Node]) -> None:
    kubectl("create", "namespace", _SPACE)
    _until(lambda: bool(get("serviceaccount", "--namespace", _SPACE)["items"]), "default service account", 20)
    for node in nodes:
        _apply(_pod(f"web-{node.name}", {"nodeSelector": {"kubernetes.io/hostname": node.name}}))
    service = {"selector": {"app": "web"}, "ports": [{"port": 8000}]}
    _apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    kubectl("wait", "--namespace", _SPACE, "--for=condition=Ready", "pod", "--all", "--timeout=1h", timeout=60)


def _runs_commands(nodes: list[Node]) -> None:
    for node in nodes:
        _expect(f"web-{node.name}", _exec(f"web-{node.name}", "hostname"))


def _keeps_logs(nodes: list[Node]) -> None:
    pod = f"web-{nodes[0].name}"
    _exec(f"web-{nodes[1].name}", "python", "-c", _ASK.format(host=_address(pod)))
    _until(lambda: "GET /hostname" in kubectl("logs", "--namespace", _SPACE, pod), f"logs of {pod}", 10)


def _resolves_and_balances(nodes: list[Node]) -> None:
    """By the service's name, so through DNS and the ClusterIP, every pod is reached from the first node."""
    wanted = {f"web-{node.name}" for node in nodes}
    met: set[str] = set()

    def ask() -> bool:
        script = _ASK.format(host=f"web.{_SPACE}.svc.cluster.local")
        met.add(_exec(f"web-{nodes[0].name}", "python", "-c", script).strip())
        return met == wanted

    _until(ask, "the service reaches every pod", 30)


def _reaches_the_api_server(nodes: list[Node]) -> None:
    """From every node a pod reaches Kubernetes by its service's name, and trusts its certificate."""
    for node in nodes:
        answer = json.loads(_exec(f"web-{node.name}", "python", "-c", _ASK_API))
        _expect(kubernetes_version(), answer["gitVersion"])


def _sees_crashes(nodes: list[Node]) -> None:
    """A SIGKILL from outside the pod is a container that ended with 137."""
    pod = f"web-{nodes[0].name}"
    faults.kill_pod(faults.pod_uid(pod, _SPACE), "http.server")

    def crashed() -> bool:
        return bool(_state(pod, "terminated").get("exitCode") == 137)

    _until(crashed, f"{pod} ended with 137", 15)


def _kills_what_takes_too_much(_: list[Node]) -> None:
    """A memory limit holds."""
    command = ["python", "-c", "x = b'x' * 300_000_000"]
    _apply(_pod("greedy", {}, {"limits": {"memory": "64Mi"}}, command))
    _until(lambda: _state("greedy", "terminated").get("reason") == "OOMKilled", "greedy is OOMKilled", 30)


def _misses_images_soon(_: list[Node]) -> None:
    """An image that nobody has is an error, not a long wait for a registry out of reach."""
    for name, image in (("elsewhere", "registry.example.org/none:1"), ("here", "localhost/none:1")):
        _apply(_pod(name, {}, image=image))
        _until(lambda name=name: _state(name, "waiting").get("reason") == "ErrImagePull", f"{image} is missed", 10)  # type: ignore[misc]


def _places_by_gpu(nodes: list[Node]) -> None:
    """A pod that asks for a GPU waits until a node has one, and goes there."""
    _apply(_pod("gpu", {}, {"limits": {"nvidia.com/gpu": "1"}}))
    _until(lambda: _condition("gpu", "PodScheduled") == "False", "the pod waits for a GPU", 15)
    faults.set_capacity(nodes[-1].name, 1)
    kubectl("wait", "--namespace", _SPACE, "--for=condition=Ready", "pod/gpu", "--timeout=1h", timeout=60)
    _expect(nodes[-1].name, get("pod", "gpu", "--namespace", _SPACE)["spec"]["nodeName"])
    faults.set_capacity(nodes[-1].name, 0)


def _survives_a_cut(nodes: list[Node]) -> None:
    """A node without its cable is soon not Ready, its pod goes on unharmed, and it is Ready again once plugged in."""
    node = nodes[1]
    uid = faults.pod_uid(f"web-{node.name}", _SPACE)
    before = faults.pod_processes(uid)
    network.cut(node)
    try:
        _until(lambda: not node_is_ready(get("node", node.name)), f"{node.name} is not Ready", 60)
    finally:
        network.heal(node)
    _until(lambda: node_is_ready(get("node", node.name)), f"{node.name} is Ready again", 60)
    if faults.pod_processes(uid) != before:
        raise ClusterError(f"processes of {uid} were {before}, are {faults.pod_processes(uid)}")


def _delete_space() -> None:
    kubectl("delete", "namespace", _SPACE, "--ignore-not-found", "--timeout=1h", timeout=60)


def _pod(
    name: str,
    spec: dict[str, Any],
    resources: dict[str, Any] | None = None,
    command: Sequence[str] = _SERVER,
    image: str = PYTHON_BASE,
) -> dict[str, Any]:
    container = {"name": "main", "image": image, "command": list(command), "resources": resources or {}}
    whole = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name[:3]}}, "spec": whole}


def _state(pod: str, state: str) -> dict[str, Any]:
    """The `waiting`, `running` or `terminated` part of the pod's only container; empty if it is in another state."""
    statuses = get("pod", pod, "--namespace", _SPACE)["status"].get("containerStatuses", [])
    found: dict[str, Any] = statuses[0]["state"].get(state, {}) if statuses else {}
    return found


def _apply(document: dict[str, Any]) -> None:
    kubectl("apply", "--namespace", _SPACE, "--filename=-", stdin=json.dumps(document))


def _exec(pod: str, *command: str) -> str:
    return kubectl("exec", "--namespace", _SPACE, pod, "--", *command)


def _address(pod: str) -> str:
    return str(get("pod", pod, "--namespace", _SPACE)["status"]["podIP"])


def _condition(pod: str, kind: str) -> str:
    conditions = get("pod", pod, "--namespace", _SPACE)["status"].get("conditions", [])
    return next((each["status"] for each in conditions if each["type"] == kind), "")


def _expect(wanted: str, found: str) -> None:
    if found.strip() != wanted:
        raise ClusterError(f"expected {wanted!r}, found {found!r}")


def _until(true: Callable[[], bool], what: str, seconds: float) -> None:
    patience = Patience(seconds)
    while not true():
        if not patience.left():
            raise NotInTime(f"{what}: {patience}; look at: python -m cluster status")
        time.sleep(0.2)
