"""NetworkPolicies that hold: kube-router's firewall on every node, for as long as a test wants it.

It is no part of `up`: each change of a pod would cost all nodes processor time that other tests need. It writes
iptables rules and ipsets into the nodes' network namespaces only. Connections that are there already go on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster.binaries import binary
from cluster.command import run
from cluster.layout import SERVICE_NETWORK, Node, kubeconfig
from cluster.node import inside
from cluster.processes import Daemon, start, wait_until

_START_SECONDS = 60
_BRIDGED = "net.bridge.bridge-nf-call-iptables"


@contextmanager
def enforcing(nodes: Sequence[Node]) -> Iterator[None]:
    """From when it returns, all NetworkPolicies that are there hold; later ones soon after they are made."""
    before = {node: run([*inside(node), "iptables-save", "-t", "filter"]) for node in nodes}
    bridged = {node: run([*inside(node), "sysctl", "-n", _BRIDGED]).strip() for node in nodes}
    daemons: dict[Node, Daemon] = {}
    try:
        for node in nodes:
            _filter_between_pods_of(node, "1")
            daemons[node] = start(f"{node.name}-kube-router", _command(node))
        for daemon in daemons.values():
            wait_until(lambda daemon=daemon: _has_synced(daemon), "policies hold", daemon, _START_SECONDS)  # type: ignore[misc]
        yield
    finally:
        for daemon in daemons.values():
            daemon.child.kill()
            daemon.child.wait()
        for node in daemons:  # kube-router --cleanup-config stumbles where there is no ip_vs
            run([*inside(node), "iptables-restore", "-T", "filter"], stdin=before[node])
            run([*inside(node), "ipset", "destroy"])
            _filter_between_pods_of(node, bridged[node])


def _command(node: Node) -> list[str]:
    return [
        *inside(node),
        str(binary("kube-router")),
        f"--kubeconfig={kubeconfig()}",
        f"--hostname-override={node.name}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--enable-cni=false",
        "--enable-overlay=false",
        "--health-port=0",
        "--v=1",
    ]


def _has_synced(daemon: Daemon) -> bool:
    return "sync iptables took" in daemon.log.read_text(errors="replace")


def _filter_between_pods_of(node: Node, wanted: str) -> None:
    """A bridge has its own way between its ports, past iptables, unless it is told otherwise. Services need it told,
    too: an answer that goes past iptables comes from an address that its pod did not ask."""
    run([*inside(node), "sysctl", "-qw", f"{_BRIDGED}={wanted}"])
