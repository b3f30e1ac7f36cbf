"""PURE: what does a pod ask of a node, and may it run there by what both say?

A scheduler's filters, as far as they need nobody else's pods. Pods and nodes are plain dicts, as JSON has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from drivetrain_api import quantity

Json = Mapping[str, Any]
Amounts = dict[str, Fraction]
"""By resource."""


def requests(spec: Json) -> Amounts:
    """What a pod asks for: the sum over its containers, or its largest init container where that is more. Raises
    ValueError for what is no quantity."""
    total: Amounts = {"pods": Fraction(1)}
    for container in spec["containers"]:
        for name, amount in _asked(container).items():
            total[name] = total.get(name, Fraction(0)) + quantity.parse(amount)
    for container in spec.get("initContainers") or ():
        for name, amount in _asked(container).items():
            total[name] = max(total.get(name, Fraction(0)), quantity.parse(amount))
    return total


def _asked(container: Json) -> Json:
    """The API server takes limits where there are no requests; a pod that is not created yet has to be read as well."""
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def selects(spec: Json, name: str, labels: Mapping[str, str]) -> bool:
    """Whether the pod's nodeSelector and required node affinity take a node of this name and these labels."""
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms")
    return terms is None or any(_term(term, name, labels) for term in terms)


def preferred(spec: Json, name: str, labels: Mapping[str, str]) -> int:
    """The weights of all that the pod's preferred node affinity likes about a node of this name and these labels."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return sum(int(term["weight"]) for term in terms if _term(term["preference"], name, labels))


def untolerated(spec: Json, taints: Iterable[Json]) -> Json | None:
    """The first taint that keeps the pod off."""
    for taint in taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, spec):
            return taint
    return None


def _tolerated(taint: Json, spec: Json) -> bool:
    for toleration in spec.get("tolerations") or ():
        if toleration.get("effect") not in (None, "", taint.get("effect")):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator", "Equal") == "Exists" or toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _term(term: Json, name: str, labels: Mapping[str, str]) -> bool:
    names = {"metadata.name": name}
    expressions = [(e, labels) for e in term.get("matchExpressions") or ()]
    expressions += [(e, names) for e in term.get("matchFields") or ()]
    return bool(expressions) and all(_expression(expression, values) for expression, values in expressions)


def _expression(expression: Json, labels: Mapping[str, str]) -> bool:
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


__all__ = ["Amounts", "preferred", "requests", "selects", "untolerated"]
