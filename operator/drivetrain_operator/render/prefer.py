"""PURE: how is a pod steered to a node? By preferences behind those of its template, which weigh more than ours."""

from __future__ import annotations

from typing import Any, Final

from drivetrain_operator.plan.effects import Preference
from drivetrain_operator.render.names import Json


def prefer(spec: Json, wish: Preference) -> None:
    """Changes a pod's spec. All that is added weighs less than the least that stands there: nothing, beside a 1."""
    affinity = dict(spec.get("affinity") or {})
    about = dict(affinity.get("nodeAffinity") or {})
    own = about.get(_PREFERRED) or []
    left = min([wish.weight, *(_weight(each) - 1 for each in own)])
    terms: list[Json] = []
    parts = _parts(wish)
    whole = sum(share for share, _ in parts)
    for share, preference in parts:
        weight = min(left - sum(each["weight"] for each in terms), max(1, left * share // whole))
        if weight > 0:
            terms.append({"weight": weight, "preference": preference})
    if terms:
        spec["affinity"] = {**affinity, "nodeAffinity": {**about, _PREFERRED: [*own, *terms]}}


def _parts(wish: Preference) -> list[tuple[int, Json]]:
    """What is preferred, and its share of the weight, the most important first."""
    found: list[tuple[int, Json]] = []
    if wish.node:
        found.append((2, {"matchFields": [_named("In", wish.node)]}))
    if wish.avoid:  # a requirement about fields takes one value; all of them have to hold
        found.append((1, {"matchFields": [_named("NotIn", node) for node in wish.avoid]}))
    if wish.labels:
        labels = [{"key": key, "operator": "In", "values": [value]} for key, value in wish.labels]
        found.append((1, {"matchExpressions": labels}))
    return found


def _named(operator: str, node: str) -> Json:
    return {"key": "metadata.name", "operator": operator, "values": [node]}


def _weight(term: Any) -> int:
    weight = term.get("weight") if isinstance(term, dict) else None
    return weight if isinstance(weight, int) else 1


_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"

__all__ = ["prefer"]
