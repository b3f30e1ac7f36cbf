"""How are the nodes wired, and how is one cut off?

One bridge in the machine's own network namespace carries the control plane; each node has a network namespace and a
cable (a veth pair) to the bridge. Nodes know each other's pod networks, so that the machine never forwards a packet:
its forwarding settings and firewall stay as they are.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.command import run
from cluster.layout import BRIDGE, CONTROL_PLANE, MACHINE_NETWORK, Node
from cluster.mounts import mount_points

_NAMESPACES = Path("/run/netns")


def make_bridge() -> None:
    """The bridge with the control plane's address."""
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "address", "add", f"{CONTROL_PLANE}/{MACHINE_NETWORK.prefixlen}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])


def connect(node: Node, others: Sequence[Node]) -> None:
    """Give `node` its namespace, its cable and its routes, and the machine a route to its pods."""
    run(["ip", "netns", "add", node.namespace])
    run(["ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", node.namespace])
    run(["ip", "link", "set", node.link, "master", BRIDGE, "up"])
    inside = ["ip", "-n", node.namespace]
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "address", "add", f"{node.address}/{MACHINE_NETWORK.prefixlen}", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "route", "add", "default", "via", str(CONTROL_PLANE)])
    for other in others:
        if other != node:
            run([*inside, "route", "add", str(other.pods), "via", str(other.address)])
    run([*in_network(node), "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    run(["ip", "route", "add", str(node.pods), "via", str(node.address), "dev", BRIDGE])


def in_network(node: Node) -> list[str]:
    """The prefix that runs a command in the node's network. Not `ip netns exec`: that hides the cgroup mounts."""
    return ["nsenter", f"--net={_NAMESPACES / node.namespace}"]


def cut(node: Node) -> None:
    """Unplug the node's cable: its processes go on, but nobody outside hears of them. Pods of one node still do."""
    run(["ip", "link", "set", node.link, "down"])


def heal(node: Node) -> None:
    """Plug the cable in again."""
    run(["ip", "link", "set", node.link, "up"])


def is_cut(node: Node) -> bool:
    """Whether the node's cable is unplugged."""
    link = json.loads(run(["ip", "-json", "link", "show", "dev", node.link]))[0]
    return "UP" not in link["flags"]


def namespaces() -> list[str]:
    """Our network namespaces that exist now, of whatever `up`."""
    return [each["name"] for each in _json("netns", "list") if each["name"].startswith("drivetrain-node")]


def links() -> list[str]:
    """Our links in the machine's namespace that exist now."""
    return [each["ifname"] for each in _json("link", "show") if _is_ours(each["ifname"])]


def disconnect() -> None:
    """Remove every namespace, cable, route and bridge of ours. The routes go with the bridge."""
    for name in namespaces():
        run(["ip", "netns", "delete", name])
    for link in links():  # a cable may have gone with its namespace since it was listed
        if link in links():
            run(["ip", "link", "delete", link])
    if _NAMESPACES in mount_points() and not any(_NAMESPACES.iterdir()):
        run(["umount", str(_NAMESPACES)])  # `ip netns add` mounted it; as long as nobody else uses it, it can go
        _NAMESPACES.rmdir()


def _is_ours(link: str) -> bool:
    return link == BRIDGE or link.startswith("drivetrain-n")


def _json(*arguments: str) -> list[dict[str, Any]]:
    answer = run(["ip", "-json", *arguments]).strip()
    found: list[dict[str, Any]] = json.loads(answer or "[]")
    return found
