"""PURE: which pods have which power cap now? What specs wish and statuses order: whoever leads next says the same.

A cap is of each card of the pod. Agents hold it within what the card takes; where they told that, it is here already,
so that what stands in the ConfigMap is what comes into force.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.power import MAX_PODS_A_NODE, SHARDS, NodeReport, shard
from drivetrain_operator.plan.view import PodView

Caps = dict[str, dict[str, float]]
"""By node, watts by pod's uid; no node without pods."""
MOST_BYTES: Final = 900 * 1024
"""Of the 1 MiB that a ConfigMap holds. Above, only its nodes with an agent are told: whoever may create pods may say
`nodeName`, and thousands of nodes that are not there would leave no cap to anybody."""
_ENTRY, _POD = 64, 64
"""Bytes at most, beside the node's name."""
_MOST = 1e6


@dataclass(frozen=True, slots=True)
class Placed:
    """A job's workers, where they are."""

    uid: str
    """The job's."""
    cap: float | None
    """That it wishes itself, or its status orders, in watts of each card: the lower one."""
    pods: tuple[PodView, ...]
    """That have a node, and have not ended: one that is deleted computes until its grace is over."""


def placed(job: Mapping[str, Any], pods: Iterable[PodView]) -> Placed:
    """Of the job as the API server has it, and all its pods. What cannot be read orders nothing."""
    workers = (pod for pod in pods if pod.role == ROLE_WORKER and pod.node and not pod.over)
    return Placed(str(job["metadata"]["uid"]), _ordered(job), tuple(sorted(workers, key=lambda pod: pod.name)))


def capped(jobs: Iterable[Placed], reports: Mapping[str, NodeReport], hot: Mapping[str, float] | None = None) -> Caps:
    """`hot`: the most that cards of a node may have, because it is too hot; for all jobs that are there."""
    hot = hot or {}
    found: Caps = {}
    for job in jobs:
        for pod in job.pods:
            caps = [cap for cap in (job.cap, hot.get(pod.node)) if cap is not None]
            if caps:
                found.setdefault(pod.node, {})[pod.uid] = _within(min(caps), reports.get(pod.node))
    size = [0] * SHARDS
    for node, of in found.items():
        size[shard(node)] += len(node) + _ENTRY + _POD * len(of)
    found = {node: of for node, of in found.items() if size[shard(node)] <= MOST_BYTES or node in reports}
    return {node: dict(sorted(of.items())[:MAX_PODS_A_NODE]) for node, of in sorted(found.items())}


def _within(cap: float, report: NodeReport | None) -> float:
    devices = report.devices if report is not None else ()
    if not devices:
        return cap
    least, most = max(device.least for device in devices), max(device.most for device in devices)
    return min(max(cap, least), most)


def _ordered(job: Mapping[str, Any]) -> float | None:
    order = _of(job, "status", "energy", "order")
    if order is not None and not order.get("workers"):
        return None
    caps = [_watts(of.get("capWatts")) for of in (order, _of(job, "spec", "energy", "power")) if of is not None]
    return min((cap for cap in caps if cap is not None), default=None)


def _of(job: Mapping[str, Any], *path: str) -> Mapping[str, Any] | None:
    found: Any = job
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _watts(cap: Any) -> float | None:
    if isinstance(cap, bool) or not isinstance(cap, int | float) or not math.isfinite(cap) or not 0 < cap <= _MOST:
        return None
    return float(cap)


__all__ = ["Caps", "Placed", "capped", "placed"]
