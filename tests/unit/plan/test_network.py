"""The NetworkPolicies of a job: there before its pods, and kept in step with spec.network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivetrain_api.spec import Network
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateNetworkPolicy,
    CreateService,
    CreateWorker,
    DeleteNetworkPolicy,
    DeletePod,
    Effect,
    PatchNetworkPolicy,
)
from drivetrain_operator.plan.observe import spelled
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Me, NetworkPolicyView, Refusal, RefusalKind, View
from drivetrain_operator.render.network import rules
from drivetrain_operator.render.platform import Neighbours
from unit.plan.builders import UID, condition, ended, job, replaced, running, spec

NAMES = {"coordinator": "lm-coordinator-network-11111", "worker": "lm-worker-network-11111"}
SHUT = spec(network={"ingress": "job"})
ABOUT = CreateNetworkPolicy | PatchNetworkPolicy | DeleteNetworkPolicy
PODS = CreateService | CreateCoordinator | CreateWorker


def policy(role: str, outside: Neighbours | None = None, **network: str) -> NetworkPolicyView:
    said = rules(UID, role, Network.model_validate(network or {"ingress": "job"}), outside or Neighbours())
    assert said is not None
    return NetworkPolicyView(NAMES[role], f"n-{role}", spelled(said))


BOTH = (policy("coordinator"), policy("worker"))


def new(*policies: NetworkPolicyView) -> View:
    """A job that was just created."""
    of = job(SHUT, TrainingJobStatus())
    return replace(running(SHUT), job=of, pods=(), service=None, budget=None, report=None, network_policies=policies)


def effects(view: View, kind: type[Effect] | object) -> list[Effect]:
    return [each for each in plan(view).effects if isinstance(each, kind)]  # type: ignore[arg-type]


def test_they_are_there_before_anything_that_could_be_reached() -> None:
    first = plan(new())
    assert [each.name for each in first.effects if isinstance(each, CreateNetworkPolicy)] == list(NAMES.values())
    assert effects(new(), PODS) == []
    assert effects(new(BOTH[0]), PODS) == []
    assert effects(new(*BOTH), CreateCoordinator)
    assert effects(new(*BOTH), ABOUT) == []
    assert condition(first.status, "Ready").reason == "WaitingForNetworkPolicies"
    assert first.requeue_after is not None, "one that no watch shows would be waited for for ever"


@pytest.mark.parametrize(("age", "again"), [(0.5, False), (100.0, True)])
def test_where_they_are_refused_no_pod_is_made(age: float, again: bool) -> None:
    refused = Refusal(NAMES["worker"], RefusalKind.FORBIDDEN, "networkpolicies is forbidden", 1, age, 3)
    view = replace(new(BOTH[0]), refusals=(refused,))
    assert effects(view, PODS) == []
    assert bool(effects(view, CreateNetworkPolicy)) is again
    ready = condition(plan(view).status, "Ready")
    assert (ready.reason, "networkpolicies is forbidden" in ready.message) == ("Forbidden", True)


def test_a_lost_worker_is_replaced_once_they_are_back() -> None:
    lost = replaced(running(SHUT), ended(1, 1))
    assert effects(lost, CreateWorker | DeletePod) == []
    shut = replace(lost, network_policies=BOTH)
    assert effects(replace(shut, job=replace(shut.job, status=plan(shut).status)), CreateWorker)


def test_a_job_that_trains_goes_on_while_one_is_made_again() -> None:
    found = plan(running(SHUT))
    assert condition(found.status, "Ready").status == "True"
    assert {each.name for each in found.effects if isinstance(each, CreateNetworkPolicy)} == set(NAMES.values())


def test_they_follow_the_spec() -> None:
    both = spec(network={"ingress": "job", "egress": "job"})
    widened = effects(replace(running(both), network_policies=BOTH), ABOUT)
    assert [type(each) for each in widened] == [PatchNetworkPolicy, PatchNetworkPolicy]
    opened = effects(replace(running(), network_policies=BOTH), ABOUT)
    assert opened == [DeleteNetworkPolicy(each.name, each.uid) for each in BOTH]
    assert effects(running(), ABOUT) == []


def test_they_follow_the_operators_settings() -> None:
    me = Me(neighbours=Neighbours(scrapers=({"podSelector": {}},)))
    found = effects(replace(running(SHUT), network_policies=BOTH, me=me), ABOUT)
    assert [(type(each), getattr(each, "uid", "")) for each in found] == [(PatchNetworkPolicy, "n-coordinator")]
