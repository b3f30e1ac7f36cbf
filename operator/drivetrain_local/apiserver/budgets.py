"""May this pod be evicted now? What the eviction subresource asks of PodDisruptionBudgets with `maxUnavailable`.

The disruption controller's arithmetic, made at the moment of the question instead of kept in status: `kubectl get pdb`
shows no allowed disruptions here.
"""

from __future__ import annotations

from drivetrain_local.apiserver import errors, scale
from drivetrain_local.apiserver.resources import Registry
from drivetrain_local.apiserver.selectors import matches_labels
from drivetrain_local.apiserver.store import Store
from drivetrain_local.objects import Obj, dig, meta

STORAGE = "policy/poddisruptionbudgets"
_RETRY_SECONDS = 10


def check(store: Store, registry: Registry, pod: Obj) -> None:
    """Raises 429 if a budget forbids it."""
    if dig(pod, "status", "phase") in ("Succeeded", "Failed", "Pending") or meta(pod).get("deletionTimestamp"):
        return
    for budget in store.all(STORAGE, meta(pod)["namespace"]):
        if not _is_about(budget, pod):
            continue
        if not _ready(pod) and dig(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow":
            continue
        healthy, expected = _healthy(store, budget, pod), _expected(store, registry, pod)
        if healthy - 1 < expected - int(dig(budget, "spec", "maxUnavailable", default=1)):
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            needs = f"The disruption budget {meta(budget)['name']} needs {expected} healthy pods and has {healthy}"
            causes = [{"reason": "DisruptionBudget", "message": needs}]
            raise errors.ApiError(
                429, "TooManyRequests", message, details={"causes": causes}, retry_after=_RETRY_SECONDS
            )


def _is_about(budget: Obj, pod: Obj) -> bool:
    return matches_labels(dig(budget, "spec", "selector", "matchLabels", default={}), meta(pod).get("labels") or {})


def _healthy(store: Store, budget: Obj, pod: Obj) -> int:
    pods = store.all("pods", meta(pod)["namespace"])
    return sum(_is_about(budget, each) and _ready(each) and not meta(each).get("deletionTimestamp") for each in pods)


def _expected(store: Store, registry: Registry, pod: Obj) -> int:
    """What the scale subresource of its controller says."""
    for owner in meta(pod).get("ownerReferences") or []:
        if owner.get("controller"):
            resource = registry.of_kind(owner["apiVersion"].rpartition("/")[0], owner["kind"])
            found = store.get(resource.key, meta(pod)["namespace"], owner["name"]) if resource is not None else None
            if resource is not None and resource.scale is not None and found is not None:
                return int(scale.of(resource, found)["spec"]["replicas"])
    return 0


def _ready(pod: Obj) -> bool:
    conditions = dig(pod, "status", "conditions", default=[])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
