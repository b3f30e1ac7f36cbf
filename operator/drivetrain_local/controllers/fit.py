"""Does a pod fit a node? Pure: the filters of a scheduler, with its words for what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

from drivetrain_api import node_match, quantity
from drivetrain_api.node_match import Amounts
from drivetrain_local.objects import Obj, dig, meta


def requests(pod: Obj) -> Amounts:
    """What a pod asks for."""
    return node_match.requests(pod["spec"])


def free(node: Obj, pods: Iterable[Obj]) -> Amounts:
    """What is left of a node's allocatable resources beside the pods that are bound to it and not over."""
    left = {name: quantity.parse(amount) for name, amount in dig(node, "status", "allocatable", default={}).items()}
    for pod in pods:
        if dig(pod, "status", "phase") in ("Succeeded", "Failed"):
            continue
        for name, amount in requests(pod).items():
            left[name] = left.get(name, Fraction(0)) - amount
    return left


def obstacles(pod: Obj, node: Obj, left: Amounts) -> list[str]:
    """Why a node is no place for a pod; empty when it is one."""
    if dig(node, "spec", "unschedulable"):
        return ["node(s) were unschedulable"]
    taint = node_match.untolerated(pod["spec"], dig(node, "spec", "taints", default=[]))
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not node_match.selects(pod["spec"], meta(node)["name"], meta(node).get("labels") or {}):
        return ["node(s) didn't match Pod's node affinity/selector"]
    wanted = requests(pod)
    short = sorted(name for name, amount in wanted.items() if amount > left.get(name, Fraction(0)))
    return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in short]


def explanation(found: list[list[str]]) -> str:
    """`0/3 nodes are available: 3 Insufficient nvidia.com/gpu.`"""
    if not found:
        return "no nodes available to schedule pods"
    counted = Counter(reason for reasons in found for reason in reasons)
    parts = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    return f"0/{len(found)} nodes are available: {parts}."
