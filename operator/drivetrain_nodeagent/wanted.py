"""PURE: which card gets which limit, by what the operator said and by whose processes are on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from drivetrain_api.power import MAX_HOURS, NodeCaps

_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")

Owners = Mapping[str, frozenset[str | None]]
"""By card's uuid, the uids of the pods whose processes compute on it; None: a process of no pod."""


def wanted(caps: NodeCaps | None, told: float, now: float, owners: Owners) -> dict[str, float]:
    """Limits by card. `told`: when the caps were last heard of, by our clock.

    A card that several share gets the highest of their caps, and none where one of them has none: nobody is slowed for
    another.
    """
    if caps is None or now > min(caps.until, told + MAX_HOURS * 3600):
        return {}
    found = {}
    for uuid, pods in owners.items():
        known = [caps.pods.get(pod) if pod is not None else None for pod in pods]
        watts = [cap for cap in known if cap is not None]
        if watts and len(watts) == len(known):
            found[uuid] = max(watts)
    return found


def pod_of(cgroup: str) -> str | None:
    """The pod's uid in a process's /proc/PID/cgroup, as any container runtime and either cgroup driver write it."""
    found = _POD.findall(cgroup)
    return found[-1].replace("_", "-") if found else None


def pods_of(cgroups: Iterable[str | None]) -> frozenset[str | None]:
    """The same of several; a process that is gone meanwhile (None) is of nobody."""
    return frozenset(pod_of(cgroup) for cgroup in cgroups if cgroup is not None)


__all__ = ["Owners", "pod_of", "pods_of", "wanted"]
