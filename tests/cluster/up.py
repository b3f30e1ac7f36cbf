"""Starting the cluster: everything in order, each wait with a deadline, and the end of the right log if it fails."""

import socket
import time

from cluster import binaries, network, tunables
from cluster.cgroups import create as create_cgroup
from cluster.control_plane import start_control_plane
from cluster.kubectl import get, node_is_ready
from cluster.layout import CGROUP_ROOT, CONTROL_PLANE, Node, kubeconfig, nodes, run_dir
from cluster.load import load_pause_image
from cluster.node import prepare, start_containerd, start_kube_proxy, start_kubelet
from cluster.pki import Authority
from cluster.preflight import demand
from cluster.processes import Daemon, wait_until

_READY_SECONDS = 120


def up(count: int) -> list[Node]:
    """Start a cluster of `count` nodes and wait until all are Ready."""
    demand(count)
    binaries.build()
    started = time.monotonic()
    run_dir().mkdir(parents=True)
    tunables.remember()
    authority = Authority(run_dir() / "pki")
    network.make_bridge()
    create_cgroup(CGROUP_ROOT)
    print(f"control plane, Kubernetes {binaries.kubernetes_version()} ...", flush=True)
    plane = start_control_plane(authority)
    members = nodes(count)
    print(f"{count} nodes ...", flush=True)
    kubelets = [_start(node, members, authority) for node in members]
    for node, kubelet in zip(members, kubelets, strict=True):
        wait_until(lambda node=node: _is_ready(node), f"{node.name} is Ready", kubelet, _READY_SECONDS)  # type: ignore[misc]
    wait_until(_has_default_account, "pods may be made in the default namespace", plane.controllers, _READY_SECONDS)
    wait_until(_answers_dns, "DNS answers", plane.dns, _READY_SECONDS)
    print(f"all Ready after {time.monotonic() - started:.0f} s")
    return members


def next_commands() -> str:
    """What a person types next."""
    folder = binaries.bin_dir()
    return f"""
export KUBECONFIG={kubeconfig()}
export PATH={folder}:$PATH
kubectl get nodes -o wide
python -m cluster smoke
python -m cluster down"""


def _start(node: Node, members: list[Node], authority: Authority) -> Daemon:
    network.connect(node, members)
    prepare(node)
    start_containerd(node)
    load_pause_image(node)
    start_kube_proxy(node, authority)
    return start_kubelet(node, authority)


def _is_ready(node: Node) -> bool:
    return any(each["metadata"]["name"] == node.name and node_is_ready(each) for each in get("nodes")["items"])


def _has_default_account() -> bool:
    return any(each["metadata"]["name"] == "default" for each in get("serviceaccounts")["items"])


def _answers_dns() -> bool:
    try:
        socket.create_connection((str(CONTROL_PLANE), 53), timeout=1).close()
    except OSError:
        return False
    return True
