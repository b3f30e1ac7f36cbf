"""May this pod be evicted now? What an eviction asks of PodDisruptionBudgets whose `minAvailable` is a number.

The disruption controller's arithmetic, made at the moment of the question instead of kept in status: `kubectl get pdb`
shows no allowed disruptions here.
"""

from __future__ import annotations

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.selectors import matches_labels
from drivetrain_local.apiserver.store import Store
from drivetrain_local.objects import Obj, dig, meta

STORAGE = "policy/poddisruptionbudgets"
_RETRY_SECONDS = 10


def check(store: Store, pod: Obj) -> None:
    """Raises 429 if a budget forbids it."""
    if dig(pod, "status", "phase") in ("Succeeded", "Failed", "Pending") or meta(pod).get("deletionTimestamp"):
        return
    for budget in store.all(STORAGE, meta(pod)["namespace"]):
        if not _is_about(budget, pod):
            continue
        if not _ready(pod) and dig(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow":
            continue
        healthy, least = _healthy(store, budget, pod), dig(budget, "spec", "minAvailable", default=0)
        if isinstance(least, int) and healthy <= least:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            needs = (
                f"The disruption budget {meta(budget)['name']} needs {least} healthy pods and has {healthy} currently"
            )
            causes = [{"reason": "DisruptionBudget", "message": needs}]
            raise errors.ApiError(
                429, "TooManyRequests", message, details={"causes": causes}, retry_after=_RETRY_SECONDS
            )


def _is_about(budget: Obj, pod: Obj) -> bool:
    return matches_labels(dig(budget, "spec", "selector", "matchLabels", default={}), meta(pod).get("labels") or {})


def _healthy(store: Store, budget: Obj, pod: Obj) -> int:
    pods = store.all("pods", meta(pod)["namespace"])
    return sum(_is_about(budget, each) and _ready(each) and not meta(each).get("deletionTimestamp") for each in pods)


def _ready(pod: Obj) -> bool:
    conditions = dig(pod, "status", "conditions", default=[])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
