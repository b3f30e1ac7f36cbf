"""Starting one node: its disk and mount namespace, then containerd, kubelet and kube-proxy inside it.

A sleeping process, the holder, keeps the mount namespace alive. In it the node's folders lie over the usual places, so
that every node has its own /var/lib/kubelet, /var/lib/containerd and /run/netns at the usual path.
"""

import json
import shlex
from pathlib import Path

from cluster import node_config
from cluster.binaries import binary
from cluster.cgroups import create as create_cgroup
from cluster.command import run, succeeds
from cluster.errors import ClusterError
from cluster.layout import CONTROL_PLANE, Node, run_dir
from cluster.network import in_network
from cluster.pki import Authority
from cluster.processes import Daemon, start, started_at, wait_until

# Place in the node: folder on the node's disk. Every one of them becomes a shared mount of its own.
PLACES = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/containerd": "containerd",
    "/run/containerd": "run-containerd",
    "/run/netns": "netns",
    "/etc/cni/net.d": "cni-config",
    "/var/lib/cni": "cni-state",
    "/var/log/pods": "pod-logs",
    "/var/log/containers": "container-logs",
}
_START_SECONDS = 60


def prepare(node: Node) -> None:
    """Make its disk and its cgroups, and start the holder."""
    for folder in PLACES.values():
        (node.folder / folder).mkdir(parents=True, exist_ok=True)
    _make_mount_points()
    create_cgroup(node.cgroup)
    ready = node.folder / "mounted"
    lines = ["set -e", "mount --make-rprivate /"]
    for place, folder in PLACES.items():
        lines.append(f"mount --bind {shlex.quote(str(node.folder / folder))} {place}")
        lines.append(f"mount --make-rshared {place}")
    # Names from outside the cluster are refused at once, so a missing image is an error in a moment, not in a minute.
    resolv_conf = node.folder / "machine-resolv.conf"
    resolv_conf.write_text(f"nameserver {CONTROL_PLANE}\n")
    lines.append(f"mount --bind {shlex.quote(str(resolv_conf))} /etc/resolv.conf")
    lines += [f"touch {shlex.quote(str(ready))}", "exec sleep infinity"]
    holder = start(f"{node.name}-holder", ["unshare", "--mount", "sh", "-c", "\n".join(lines)])
    wait_until(ready.exists, f"{node.name} has its mounts", holder, _START_SECONDS)
    # Written down here, where it is known, and never searched for: unshare, sh and sleep are one process in a row, and
    # while one becomes the next a search would not find it.
    _holder_note(node).write_text(json.dumps({"pid": holder.child.pid, "started": started_at(holder.child.pid)}))


def start_containerd(node: Node) -> Daemon:
    """Start its container runtime and wait until it answers."""
    config = node.folder / "containerd.toml"
    config.write_text(node_config.containerd())
    (node.folder / "cni-config" / "10-pods.conflist").write_text(node_config.pod_network(node))
    daemon = start(f"{node.name}-containerd", [*inside(node), "containerd", "--config", str(config)])
    wait_until(lambda: succeeds([*ctr(node), "version"]), f"{node.name}'s containerd answers", daemon, _START_SECONDS)
    return daemon


def start_kubelet(node: Node, authority: Authority) -> Daemon:
    """Start the kubelet; it registers the node."""
    user = f"system:node:{node.name}"
    credentials = authority.kubeconfig(node.folder / f"{node.name}-kubelet.kubeconfig", user, "system:nodes")
    serving = authority.issue(f"{node.name}-serving", user, names=[node.name], addresses=[node.address])
    config, resolv_conf = node.folder / "kubelet.json", node.folder / "resolv.conf"
    resolv_conf.write_text("")  # the machine's search domains are no business of the pods
    config.write_text(node_config.kubelet(node, authority, serving, resolv_conf))
    return start(
        f"{node.name}-kubelet",
        [
            *inside(node),
            str(binary("kubelet")),
            f"--config={config}",
            f"--kubeconfig={credentials}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            "--root-dir=/var/lib/kubelet",
        ],
    )


def start_kube_proxy(node: Node, authority: Authority) -> Daemon:
    """Start kube-proxy; it makes ClusterIPs work in this node's network namespace."""
    credentials = authority.kubeconfig(node.folder / f"{node.name}-kube-proxy.kubeconfig", "system:kube-proxy")
    config = node.folder / "kube-proxy.json"
    config.write_text(node_config.kube_proxy(node, credentials))
    return start(f"{node.name}-kube-proxy", [*inside(node), str(binary("kube-proxy")), f"--config={config}"])


def inside(node: Node) -> list[str]:
    """The prefix that runs a command with the node's mounts and network."""
    again = "run: python -m cluster down, then up"
    try:
        holder = json.loads(_holder_note(node).read_text())
    except FileNotFoundError:
        raise ClusterError(f"{node.name} was not started ({_holder_note(node)} is missing); {again}") from None
    now = started_at(holder["pid"])
    if now is None or now != holder["started"]:
        raise ClusterError(f"the process that holds {node.name}'s mounts is gone (pid {holder['pid']}); {again}")
    return [*in_network(node), "nsenter", f"--target={holder['pid']}", "--mount"]


def ctr(node: Node) -> list[str]:
    """The prefix of a containerd client that sees what Kubernetes sees."""
    return [*inside(node), "ctr", "--namespace", "k8s.io"]


def _holder_note(node: Node) -> Path:
    """Which process holds its mounts: pid and start time."""
    return node.folder / "holder.json"


def _make_mount_points() -> None:
    """Mounts need folders to lie on; those that the machine lacks are noted before they are made, for `down`."""
    absent = [
        str(path) for place in PLACES for path in [*reversed(Path(place).parents), Path(place)] if not path.exists()
    ]
    if absent:
        note = run_dir() / "made-folders.json"
        known = json.loads(note.read_text()) if note.exists() else []
        note.write_text(json.dumps([*known, *dict.fromkeys(absent)]))
        for folder in absent:
            Path(folder).mkdir(exist_ok=True)


def remove_mount_points() -> None:
    """Remove the folders that were made on the machine, if they are still empty."""
    note = run_dir() / "made-folders.json"
    for folder in reversed(json.loads(note.read_text()) if note.exists() else []):
        run(["rmdir", "--ignore-fail-on-non-empty", folder])
