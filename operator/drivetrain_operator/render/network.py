"""PURE: the NetworkPolicies of a job's pods: who may reach them, and whom they may reach.

One a role, because a coordinator listens on two ports and workers on any (gloo and NCCL choose theirs). Peers are found
by the job's uid, which no other job ever has, and in its namespace only. Ports are those of pods, behind Services.
A direction that is not shut is not mentioned: policies add up, and ours must not open what another one of the namespace
closes. What the node itself sends, such as probes, passes by every policy.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import (
    COORDINATOR_PORT,
    LABEL_JOB_UID,
    LABEL_ROLE,
    METRICS_PORT,
    ROLE_COORDINATOR,
    ROLE_WORKER,
)
from drivetrain_api.spec import Network
from drivetrain_operator.plan.effects import CreateNetworkPolicy, PatchNetworkPolicy
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render.names import Json, job_labels, metadata
from drivetrain_operator.render.platform import Neighbours

DNS_PORT: Final = 53


def network_policy(job: JobView, effect: CreateNetworkPolicy) -> Json:
    """Body of the POST."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, effect.name, job_labels(job, effect.role)),
        "spec": dict(effect.rules),
    }


def network_policy_patch(job: JobView, effect: PatchNetworkPolicy) -> Json:
    """Body of the merge patch; the uid in it is a precondition."""
    labels = effect.rules["podSelector"]["matchLabels"] | dict.fromkeys(effect.surplus)
    selector = {"matchLabels": labels, "matchExpressions": None}
    absent = dict.fromkeys(("ingress", "egress"))
    return {"metadata": {"uid": effect.uid}, "spec": {**absent, **effect.rules, "podSelector": selector}}


def rules(job_uid: str, role: str, network: Network, outside: Neighbours) -> Json | None:
    """What the policy of one role says, spelled as the API server gives it back; None: it needs none."""
    spec: Json = {}
    if network.ingress == "job":
        spec["ingress"] = _ingress(job_uid, role, outside)
    if network.egress == "job":
        spec["egress"] = _egress(job_uid, role, outside)
    if not spec:
        return None
    return {**spec, "podSelector": _pods(job_uid, role), "policyTypes": [each.capitalize() for each in spec]}


def _ingress(job_uid: str, role: str, outside: Neighbours) -> list[Json]:
    workers = {"from": [{"podSelector": _pods(job_uid, ROLE_WORKER)}]}
    if role == ROLE_WORKER:
        return [workers]
    scrapers = {"from": [dict(each) for each in outside.scrapers]} if outside.scrapers else {}
    return [{**workers, "ports": _tcp(COORDINATOR_PORT)}, {**scrapers, "ports": _tcp(METRICS_PORT)}]


def _egress(job_uid: str, role: str, outside: Neighbours) -> list[Json]:
    # To any address: the operator may be in another namespace, or in no cluster at all.
    found: list[Json] = [{"ports": _tcp(outside.reports_port)}]
    if outside.by_name:
        found.append({"ports": [{"port": DNS_PORT, "protocol": each} for each in ("UDP", "TCP")]})
    if role == ROLE_WORKER:
        leader = {"to": [{"podSelector": _pods(job_uid, ROLE_COORDINATOR)}], "ports": _tcp(COORDINATOR_PORT)}
        found += [leader, {"to": [{"podSelector": _pods(job_uid, ROLE_WORKER)}]}]
    return found


def _pods(job_uid: str, role: str) -> Json:
    return {"matchLabels": {LABEL_JOB_UID: job_uid, LABEL_ROLE: role}}


def _tcp(port: int) -> list[Json]:
    return [{"port": port, "protocol": "TCP"}]
