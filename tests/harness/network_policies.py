"""Would this connection pass? Kubernetes' own rules for NetworkPolicies, for pods as they are rendered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, by its namespace and labels."""

    namespace: str
    labels: Json
    namespace_labels: Json | None = None

    @staticmethod
    def of(pod: Json) -> End:
        return End(pod["metadata"]["namespace"], pod["metadata"]["labels"])


def passes(policies: Iterable[Json], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """A policy shuts the directions that it names, of the pods that it selects; what any rule allows passes."""
    every = list(policies)
    leaves = _allowed(every, "Egress", source, target, port, protocol)
    return leaves and _allowed(every, "Ingress", target, source, port, protocol)


def _allowed(policies: list[Json], direction: str, own: End, peer: End, port: int, protocol: str) -> bool:
    about = [
        each["spec"]
        for each in policies
        if each["metadata"]["namespace"] == own.namespace
        and direction in each["spec"]["policyTypes"]
        and _selects(each["spec"]["podSelector"], own.labels)
    ]
    if not about:
        return True
    where = "from" if direction == "Ingress" else "to"
    return any(
        _has_port(rule, port, protocol) and _has_peer(rule.get(where), own.namespace, peer)
        for spec in about
        for rule in spec.get(direction.lower(), ())
    )


def _has_port(rule: Json, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any((each["port"], each["protocol"]) == (port, protocol) for each in ports)


def _has_peer(peers: list[Json] | None, namespace: str, peer: End) -> bool:
    if not peers:
        return True
    return any(_is(each, namespace, peer) for each in peers)


def _is(selectors: Json, namespace: str, peer: End) -> bool:
    if "namespaceSelector" in selectors:
        labels = {"kubernetes.io/metadata.name": peer.namespace, **(peer.namespace_labels or {})}
        if not _selects(selectors["namespaceSelector"], labels):
            return False
    elif peer.namespace != namespace:
        return False
    return _selects(selectors.get("podSelector", {}), peer.labels)


def _selects(selector: Json, labels: Json) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    wanted: Json = selector.get("matchLabels", {})
    return wanted.items() <= labels.items() and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", ())
    )
