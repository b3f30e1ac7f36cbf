"""PURE: how does a pod keep off a node? By name, in addition to what a template may have said about nodes."""

from __future__ import annotations

from typing import Final

from drivetrain_operator.render.names import Json


def keep_off(spec: Json, node: str, *, strictly: bool) -> None:
    """Changes a pod's spec: it must not run there, or, if not `strictly`, should not."""
    affinity = dict(spec.get("affinity") or {})
    about = dict(affinity.get("nodeAffinity") or {})
    term = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]}]}
    if strictly:
        required = dict(about.get(_REQUIRED) or {})
        # Terms are alternatives: each of them must keep off the node.
        terms = required.get("nodeSelectorTerms") or [{}]
        required["nodeSelectorTerms"] = [
            {**each, "matchFields": [*(each.get("matchFields") or ()), *term["matchFields"]]} for each in terms
        ]
        about[_REQUIRED] = required
    else:
        about[_PREFERRED] = [*(about.get(_PREFERRED) or ()), {"weight": 100, "preference": term}]
    spec["affinity"] = {**affinity, "nodeAffinity": about}


_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
