"""Every permission that the operator uses, and what for. The chart's roles are checked against this table.

`OWN` holds in the operator's own namespace only; `JOBS` wherever it looks after jobs. Nothing else is asked for: above
all, Secrets of jobs can be created but never read, and pods can be neither patched nor exec'd into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivetrain_api.constants import GROUP, PLURAL
from drivetrain_operator.act.kinds import CHILD_KINDS
from drivetrain_operator.reports.keystore import ROOT_SECRET


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a Role."""

    group: str
    resource: str
    verbs: frozenset[str]
    why: str
    names: frozenset[str] = frozenset()
    """resourceNames; empty means all."""


def _rule(group: str, resource: str, verbs: str, why: str, names: str = "") -> Rule:
    return Rule(group, resource, frozenset(verbs.split()), why, frozenset(names.split()))


JOBS: Final = (
    _rule(GROUP, PLURAL, "get list watch", "see jobs; read one again after a conflict"),
    _rule(GROUP, PLURAL, "delete", "ttlSecondsAfterFinished"),
    _rule(GROUP, f"{PLURAL}/status", "patch", "say what is going on"),
    _rule(GROUP, f"{PLURAL}/finalizers", "update", "OpenShift and OwnerReferencesPermissionEnforcement: own children"),
    *(_rule(kind.resource.group, kind.resource.plural, kind.verbs, kind.why) for kind in CHILD_KINDS),
    _rule("", "events", "create patch", "tell people what happened, counting repetitions"),
)

OWN: Final = (
    _rule("coordination.k8s.io", "leases", "create", "leader election"),
    _rule("coordination.k8s.io", "leases", "get patch", "leader election", "drivetrain-operator"),
    _rule("", "secrets", "create", "the root of trust, once"),
    _rule("", "secrets", "get", "the root of trust, at every start", ROOT_SECRET),
    _rule("", "services", "get", "the address that coordinators report to", "drivetrain-reports"),
    _rule("discovery.k8s.io", "endpointslices", "create", "point the reports Service at the leader"),
    _rule(
        "discovery.k8s.io",
        "endpointslices",
        "get patch",
        "point the reports Service at the leader",
        "drivetrain-reports",
    ),
)
