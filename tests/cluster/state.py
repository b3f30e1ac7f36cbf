"""The cluster that is up: which nodes it has, and whether it answers."""

from cluster.errors import ClusterError
from cluster.layout import Node, existing_nodes, kubeconfig


def running_nodes() -> list[Node]:
    """The nodes of the cluster that is up; an error if none is."""
    if not kubeconfig().exists():
        raise ClusterError("no cluster is up; run: python -m cluster up")
    return existing_nodes()


def node_named(name: str) -> Node:
    """The node that Kubernetes calls `name`."""
    nodes = {node.name: node for node in running_nodes()}
    if name not in nodes:
        raise ClusterError(f"no node {name!r}; there are {', '.join(nodes)}")
    return nodes[name]
