"""Who reaches whom with a job's NetworkPolicies: judged for pods, ports and Services as they are really rendered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kubernetes import client

from drivetrain_api.constants import METRICS_PORT, REPORTS_PORT, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.spec import Network
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateNetworkPolicy,
    CreateService,
    CreateWorker,
    PatchNetworkPolicy,
)
from drivetrain_operator.plan.observe import network_policy_view, spelled
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import names
from drivetrain_operator.render.coordinator import coordinator_pod
from drivetrain_operator.render.names import Json
from drivetrain_operator.render.network import network_policy, network_policy_patch, rules
from drivetrain_operator.render.platform import Neighbours, Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.service import coordinator_service
from harness.network_policies import End, passes
from unit.plan.builders import UID, job, spec, started
from unit.render.test_children import merged

SCRAPER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
PLATFORM = Platform("operator", f"https://10.96.0.9:{REPORTS_PORT}", scrapers=(SCRAPER,))
MINE = job(spec(), started())
NEXT = replace(MINE, name="lm-2", uid="22222222-0000-0000-0000-000000000000")
AGAIN = replace(MINE, uid="33333333-0000-0000-0000-000000000000")
"""Of the same name."""
ELSEWHERE = replace(MINE, namespace="other")
GLOO = 43_210


def worker(of: JobView, index: int = 0) -> End:
    return End.of(worker_pod(of, CreateWorker("w", index, 0, 0), PLATFORM))


def leader(of: JobView, term: int = 1) -> End:
    return End.of(coordinator_pod(of, CreateCoordinator("c", term, "s"), PLATFORM))


def stranger(namespace: str = "ns", **labels: str) -> End:
    return End(namespace, labels)


def policies(of: JobView, *, outside: Neighbours = PLATFORM.neighbours, **network: Any) -> list[Json]:
    found = []
    for role in (ROLE_COORDINATOR, ROLE_WORKER):
        said = rules(of.uid, role, Network(**network), outside)
        if said is not None:
            found.append(
                network_policy(of, CreateNetworkPolicy(names.network_policy(of.name, of.uid, role), role, said))
            )
    return found


def channel() -> int:
    """The port behind the Service that workers dial."""
    (port,) = coordinator_service(MINE, CreateService("s", 1))["spec"]["ports"]
    ports = coordinator_pod(MINE, CreateCoordinator("c", 1, "s"), PLATFORM)["spec"]["containers"][0]["ports"]
    assert port["targetPort"] in [each["containerPort"] for each in ports]
    return int(port["targetPort"])


INGRESS: list[tuple[str, End, End, int, bool]] = [
    ("a worker to its coordinator", worker(MINE), leader(MINE), channel(), True),
    ("a worker to the coordinator of any term", worker(MINE), leader(MINE, 7), channel(), True),
    ("a worker to another, at the port that gloo chose", worker(MINE, 1), worker(MINE), GLOO, True),
    ("a worker to the metrics", worker(MINE), leader(MINE), METRICS_PORT, False),
    ("Prometheus to the metrics", stranger("monitoring", app="prometheus"), leader(MINE), METRICS_PORT, True),
    ("somebody else to the metrics", stranger("ns", app="prometheus"), leader(MINE), METRICS_PORT, False),
    ("Prometheus to the channel", stranger("monitoring"), leader(MINE), channel(), False),
    ("Prometheus to a worker", stranger("monitoring"), worker(MINE), METRICS_PORT, False),
    ("another job's worker to the coordinator", worker(NEXT), leader(MINE), channel(), False),
    ("another job's worker to a worker", worker(NEXT), worker(MINE), GLOO, False),
    ("the earlier job of this name to the coordinator", worker(AGAIN), leader(MINE), channel(), False),
    ("the earlier job of this name to a worker", worker(AGAIN), worker(MINE), GLOO, False),
    ("the same labels in another namespace", worker(ELSEWHERE), worker(MINE), GLOO, False),
    ("a stranger of the namespace to the coordinator", stranger(), leader(MINE), channel(), False),
    ("a stranger of the namespace to a worker", stranger(), worker(MINE), GLOO, False),
    ("a coordinator to a worker", leader(MINE), worker(MINE), GLOO, False),
    ("a worker to another job's, which is open", worker(MINE), worker(NEXT), GLOO, True),
    ("a worker to anything", worker(MINE), stranger("data"), 443, True),
]


@pytest.mark.parametrize(("name", "source", "target", "port", "passing"), INGRESS, ids=[each[0] for each in INGRESS])
def test_ingress_of_the_job_only(name: str, source: End, target: End, port: int, passing: bool) -> None:
    assert passes(policies(MINE, ingress="job"), source, target, port) is passing


EGRESS: list[tuple[str, End, End, int, bool]] = [
    ("a worker to its coordinator", worker(MINE), leader(MINE), channel(), True),
    ("a worker to another, at the port that gloo chose", worker(MINE, 1), worker(MINE), GLOO, True),
    ("a worker to the operator", worker(MINE), stranger("drivetrain-system"), REPORTS_PORT, True),
    ("the coordinator to the operator", leader(MINE), stranger("drivetrain-system"), REPORTS_PORT, True),
    ("a worker to the API server", worker(MINE), stranger("default"), 6443, False),
    ("a worker to the data", worker(MINE), stranger("data"), 443, False),
    ("a worker to another job's", worker(MINE), worker(NEXT), GLOO, False),
    ("the coordinator to the API server", leader(MINE), stranger("default"), 443, False),
    ("a stranger to a worker, which is open", stranger("data"), worker(MINE), GLOO, True),
]


@pytest.mark.parametrize(("name", "source", "target", "port", "passing"), EGRESS, ids=[each[0] for each in EGRESS])
def test_egress_to_the_job_only(name: str, source: End, target: End, port: int, passing: bool) -> None:
    assert passes(policies(MINE, egress="job"), source, target, port) is passing


@pytest.mark.parametrize(("url", "asks"), [("https://10.0.0.1:7443", False), ("https://operator.svc:7443", True)])
def test_name_servers_are_reached_if_the_operator_has_a_name(url: str, asks: bool) -> None:
    shut = policies(MINE, egress="job", outside=Platform("x", url).neighbours)
    assert passes(shut, worker(MINE), stranger("kube-system"), 53, "UDP") is asks


@pytest.mark.parametrize(
    ("url", "port"), [("https://[fd00::1]:1234", 1234), ("https://a.b", 443), ("https://a:1/x", 1)]
)
def test_the_operators_port_is_that_of_its_address(url: str, port: int) -> None:
    assert Platform("x", url).neighbours.reports_port == port


def test_metrics_are_everybodys_where_nobody_says_whose() -> None:
    shut = policies(MINE, ingress="job", outside=Neighbours())
    assert passes(shut, stranger("anywhere"), leader(MINE), METRICS_PORT)
    assert not passes(shut, stranger("anywhere"), leader(MINE), channel())


@pytest.mark.parametrize("network", [{}, {"ingress": "any", "egress": "any"}])
def test_a_job_that_asks_for_none_has_none(network: Json) -> None:
    assert policies(MINE, **network) == []


@pytest.mark.parametrize(
    ("network", "types"),
    [
        ({"ingress": "job"}, ["Ingress"]),
        ({"egress": "job"}, ["Egress"]),
        ({"ingress": "job", "egress": "job"}, ["Ingress", "Egress"]),
    ],
)
def test_a_direction_that_is_open_is_not_mentioned(network: Json, types: list[str]) -> None:
    """A rule that allows everything would open what another policy of the namespace closes."""
    for each in policies(MINE, **network):
        assert client.V1NetworkPolicy.model_validate(each).spec
        assert each["spec"]["policyTypes"] == types
        assert set(each["spec"]) == {"podSelector", "policyTypes", *(each.lower() for each in types)}


def test_both_policies_of_a_job_have_names_of_their_own() -> None:
    ours = {each["metadata"]["name"] for of in (MINE, NEXT, AGAIN) for each in policies(of, ingress="job")}
    assert len(ours) == 6
    assert all(names.identify(MINE.name, each).role == "" for each in ours), "taken for a pod"


CHANGES: list[Json] = [
    {"ingress": [{}]},
    {"policyTypes": ["Egress"], "ingress": None},
    {"policyTypes": ["Ingress", "Egress"], "egress": [{}]},
    {"podSelector": {"matchLabels": {"a": "b"}}},
    {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
]


@pytest.mark.parametrize("change", CHANGES)
def test_one_that_somebody_changed_is_seen_and_mended(change: Json) -> None:
    (stored, _) = policies(MINE, ingress="job")
    said = stored["spec"]
    assert network_policy_view(stored).said == spelled(said)
    changed = stored | {"spec": {key: value for key, value in (said | change).items() if value is not None}}
    view = network_policy_view(changed)
    assert view.said != spelled(said)
    patch = network_policy_patch(MINE, PatchNetworkPolicy("n", "u", said, view.surplus))
    assert merged(changed["spec"], patch["spec"]) == said
    assert patch["metadata"] == {"uid": "u"}


def test_labels_carry_the_jobs_uid() -> None:
    """By which caches find them."""
    assert {each["metadata"]["labels"]["drivetrain.dev/job-uid"] for each in policies(MINE, ingress="job")} == {UID}
