"""Which names, addresses and folders does the cluster use?

Everything that the cluster leaves on the machine carries one of these names, so that `down` can find it again without
any record of what was started.
"""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

BRIDGE = "drivetrain0"
CGROUP_ROOT = "drivetrain"
MACHINE_NETWORK = IPv4Network("10.77.0.0/24")
POD_NETWORK = IPv4Network("10.78.0.0/16")
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
CONTROL_PLANE = MACHINE_NETWORK[1]
API_SERVER = f"https://{CONTROL_PLANE}:6443"
KUBERNETES_SERVICE = SERVICE_NETWORK[1]
DNS_DOMAIN = "cluster.local"
MAX_NODES = 32

# Set in the environment of every daemon (and inherited by containerd's shims): how `down` knows them again.
MARKER = "DRIVETRAIN_CLUSTER_DAEMON"


def cache_dir() -> Path:
    """Where builds, images and the running cluster live; never inside the checkout."""
    return Path(os.environ.get("DRIVETRAIN_CACHE") or Path.home() / ".cache" / "drivetrain").absolute()


def run_dir() -> Path:
    """State, logs and credentials of the cluster that is up; absent when none is."""
    return cache_dir() / "cluster-run"


def kubeconfig() -> Path:
    """The administrator's kubeconfig."""
    return run_dir() / "kubeconfig"


def logs_dir() -> Path:
    """One log a daemon, named after it; a node's carry the node's name as prefix."""
    return run_dir() / "logs"


@dataclass(frozen=True)
class Node:
    """A worker node, numbered from 1."""

    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> IPv4Address:
        return MACHINE_NETWORK[10 + self.number]

    @property
    def pods(self) -> IPv4Network:
        return list(POD_NETWORK.subnets(new_prefix=24))[self.number]

    @property
    def namespace(self) -> str:
        """Its network namespace, as `ip netns` lists it."""
        return f"drivetrain-{self.name}"

    @property
    def link(self) -> str:
        """The machine's end of its cable."""
        return f"drivetrain-n{self.number}"

    @property
    def folder(self) -> Path:
        """Its disk: what it sees as /var/lib/kubelet, /var/lib/containerd and so on."""
        return run_dir() / "nodes" / self.name

    @property
    def cgroup(self) -> str:
        return f"{CGROUP_ROOT}/{self.name}"


def nodes(count: int) -> list[Node]:
    """The first `count` nodes."""
    return [Node(number) for number in range(1, count + 1)]


def existing_nodes() -> list[Node]:
    """The nodes that `up` made folders for."""
    found = (run_dir() / "nodes").glob("node*")
    return sorted((Node(int(folder.name.removeprefix("node"))) for folder in found), key=lambda node: node.number)
