"""Does a pod fit a node? Pure: the filters of a scheduler, with its words for what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

from drivetrain_local import quantity
from drivetrain_local.objects import Obj, dig, meta

Amounts = dict[str, Fraction]


def requests(pod: Obj) -> Amounts:
    """What a pod asks for: the sum over its containers, or its largest init container where that is more."""
    total: Amounts = {"pods": Fraction(1)}
    for container in pod["spec"]["containers"]:
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] = total.get(name, Fraction(0)) + quantity.parse(amount)
    for container in pod["spec"].get("initContainers") or []:
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] = max(total.get(name, Fraction(0)), quantity.parse(amount))
    return total


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
    for taint in dig(node, "spec", "taints", default=[]):
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, pod):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not _selected(pod, node):
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


def _tolerated(taint: Obj, pod: Obj) -> bool:
    for toleration in dig(pod, "spec", "tolerations", default=[]):
        if toleration.get("effect") not in (None, "", taint.get("effect")):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator", "Equal") == "Exists" or toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _selected(pod: Obj, node: Obj) -> bool:
    labels = meta(node).get("labels", {})
    if any(labels.get(key) != value for key, value in (dig(pod, "spec", "nodeSelector") or {}).items()):
        return False
    required = ("spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    terms = dig(pod, *required, "nodeSelectorTerms")
    return terms is None or any(_term(term, node) for term in terms)


def _term(term: Obj, node: Obj) -> bool:
    labels = meta(node).get("labels", {})
    names = {"metadata.name": meta(node)["name"]}
    expressions = [(e, labels) for e in term.get("matchExpressions") or []]
    expressions += [(e, names) for e in term.get("matchFields") or []]
    return bool(expressions) and all(_expression(expression, values) for expression, values in expressions)


def _expression(expression: Obj, labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdigit() and int(value) > int(values[0])
        case _:
            return value is not None and value.isdigit() and int(value) < int(values[0])
