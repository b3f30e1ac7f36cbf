"""When a coordinator is replaced, and by whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivetrain_api.status import Membership, ReplacedFor, TrainingJobStatus
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    Effect,
    PatchService,
)
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import Complaint, PodPhase, Refusal, RefusalKind, ServiceView, Sight, View
from unit.plan.builders import (
    ago,
    coordinator,
    ended,
    pending,
    replaced,
    report,
    running,
    service,
    started,
)
from unit.plan.tables import Case, check, gone


def at_term(term: int, **fields: Any) -> TrainingJobStatus:
    return started(membership=Membership(term=term, epoch=1, since=ago(600)).model_copy(update=fields))


def successor(term: int, avoid: str | None = None, *, strictly: bool = False) -> tuple[Effect, ...]:
    return (
        PatchService("lm-coordinator-11111", "s-1", term),
        CreateCoordinator(f"lm-coordinator-{term}-11111", term, f"lm-coordinator-{term}-11111111", avoid, strictly),
    )


def silent(seconds: float = 60, **fields: Any) -> View:
    """The coordinator was heard, and then no more."""
    return running(report=report(age=seconds), **fields)


def starting(seconds: float, **fields: Any) -> View:
    """The coordinator's container runs for so long, and it was never heard."""
    return replaced(running(report=None, **fields), coordinator(started=ago(seconds), ready=False))


NOT_READY = coordinator(ready=False)
LOST = (Complaint("w-1-0", 1),)


OLDER = gone("lm-coordinator-1-11111", "c-1", "a newer term leads")
REFUSED = Refusal("lm-coordinator-1-11111", RefusalKind.QUOTA, "exceeded quota", 1, 5.0)
COORDINATORS = [
    Case(
        "a failed coordinator is replaced",
        replaced(
            running(),
            replace(
                ended(0, 1),
                name="lm-coordinator-1-11111",
                uid="c-1",
                role="coordinator",
                term=1,
                index=-1,
                incarnation=-1,
            ),
        ),
        {"membership.term": 2, "membership.avoid_node": None},
        successor(2),
    ),
    Case(
        "so is one on its way out",
        replaced(running(), coordinator(deleting=True)),
        {"membership.term": 2},
        successor(2),
    ),
    Case(
        "so is one that is gone",
        replaced(running(), without=("lm-coordinator-1-11111",)),
        {"membership.term": 2},
        successor(2),
    ),
    Case(
        "not one that is missing in the cache, before the API server was asked",
        replace(replaced(running(), without=("lm-coordinator-1-11111",)), absent=frozenset()),
        {"membership.term": 1},
    ),
    Case(
        "a silent one whose kubelet says that it does not answer; another node is better",
        replaced(silent(3.1), NOT_READY),
        {"membership.term": 2, "membership.replaced_for": "NotReady"},
        (*successor(2, "node9"), OLDER),
    ),
    Case(
        "a silent one that a launcher lost; it must not be on that node",
        silent(3.1, complaints=LOST),
        {"membership.term": 2, "membership.replaced_for": "Unreachable"},
        (*successor(2, "node9", strictly=True), OLDER),
    ),
    Case("silence alone proves nothing", silent(3600), {"membership.term": 1}),
    Case("a launcher that lost one that we hear is wrong", running(complaints=LOST), {"membership.term": 1}),
    Case(
        "a launcher that lost the one before, and found none since, says it of this one, too",
        silent(complaints=(Complaint("w-1-0", 0),)),
        {"membership.term": 2, "membership.replaced_for": "Unreachable"},
        (*successor(2, "node9", strictly=True), OLDER),
    ),
    Case(
        "nor does one that is not of this job any more",
        silent(complaints=(Complaint("w-1-9", 1),)),
        {"membership.term": 1},
    ),
    Case("three reports have to be missing", replaced(silent(2.9), NOT_READY), {"membership.term": 1}),
    Case(
        "silence before this operator listened is its own",
        replace(replaced(silent(), NOT_READY), serving_seconds=2.0),
        {"membership.term": 1},
    ),
    Case(
        "after a pause of this operator's, speakers get time to come back",
        replace(replaced(silent(14.9), NOT_READY), serving_seconds=14.9),
        {"membership.term": 1},
    ),
    Case(
        "and no more than that",
        replace(replaced(silent(15.1), NOT_READY), serving_seconds=15.1),
        {"membership.term": 2},
        (*successor(2, "node9"), OLDER),
    ),
    Case("one that just began to run has time to report", starting(14), {"membership.term": 1}),
    Case("but not for ever", starting(16), {"membership.term": 2}, (*successor(2, "node9"), OLDER)),
    Case(
        "more, where coordinators take long to start",
        replace(starting(59), usual_start_seconds=20.0),
        {"membership.term": 1},
    ),
    Case(
        "more, after each that was in vain",
        starting(29, status=at_term(1, replaced=1, since=ago(40))),
        {"membership.term": 1},
    ),
    Case(
        "but not because of what was long ago",
        replaced(silent(3.1, status=at_term(1, replaced=6, since=ago(86_400))), NOT_READY),
        {"membership.term": 2, "membership.replaced": 1},
        (*successor(2, "node9"), OLDER),
    ),
    Case(
        "how slow coordinators start delays no successor of one that has ended",
        replace(
            replaced(running(status=at_term(2, replaced=1, since=ago(3))), coordinator(2, deleting=True)),
            usual_start_seconds=60.0,
            service=service(2),
        ),
        {"membership.term": 3},
        (*successor(3), gone("lm-coordinator-1-11111", "c-1", "a newer term leads")),
    ),
    Case(
        "nor a leader that has just begun to look",
        replace(
            replaced(running(status=at_term(2, replaced=6, since=ago(86_400))), coordinator(2, deleting=True)),
            seen={},
            service=service(2),
        ),
        {"membership.term": 3, "membership.replaced": 1},
        (*successor(3), gone("lm-coordinator-1-11111", "c-1", "a newer term leads")),
    ),
    Case(
        "none is given up while no worker is there whom it would help",
        replaced(starting(16), pending(0), pending(1), pending(2)),
        {"membership.term": 1},
    ),
    Case(
        "nor while too many were given up",
        replace(starting(16), may_give_up=False),
        {"membership.term": 1},
    ),
    Case(
        "a node whose clock is late makes nobody old",
        replace(starting(3600), seen={(Sight.STARTED, "c-1"): 1.0}),
        {"membership.term": 1},
    ),
    Case(
        "one that waits for its image is waited for",
        replaced(running(), coordinator(phase=PodPhase.PENDING, started=None, waiting_reason="ImagePullBackOff")),
        {"membership.term": 1, "conditions.Ready": "False ImagePullFailed"},
    ),
    Case(
        "where only the avoided node is left, it will do",
        replaced(
            running(
                status=at_term(2, avoid_node="node9", replaced_for=ReplacedFor.UNREACHABLE),
                report=None,
                service=service(2),
            ),
            coordinator(2, phase=PodPhase.PENDING, started=None, unschedulable="0/1 nodes"),
            without=("lm-coordinator-1-11111",),
        ),
        {"membership.term": 3, "membership.avoid_node": None},
        (*successor(3), gone("lm-coordinator-2-11111", "c-2", "a newer term leads")),
    ),
    Case(
        "a term that was just raised may not show yet",
        replace(
            replaced(running(status=at_term(1, since=ago(4))), without=("lm-coordinator-1-11111",)), absent=frozenset()
        ),
        {"membership.term": 1},
    ),
    Case(
        "a create that was refused is tried again, under its name",
        replace(replaced(running(), without=("lm-coordinator-1-11111",)), refusals=(REFUSED,)),
        {"membership.term": 1},
        successor(1)[1:],
    ),
    Case(
        "a second loss within a minute waits",
        replaced(
            running(status=at_term(2, since=ago(0.5), replaced=1), service=service(2)),
            coordinator(2, deleting=True),
            without=("lm-coordinator-1-11111",),
        ),
        {"membership.term": 2},
    ),
    Case(
        "and longer each time",
        replaced(
            running(status=at_term(5, since=ago(7), replaced=4), service=service(5)),
            coordinator(5, deleting=True),
            without=("lm-coordinator-1-11111",),
        ),
        {"membership.term": 5},
    ),
    Case(
        "a term that lasted starts a new series",
        replaced(
            running(status=at_term(5, since=ago(70), replaced=4), service=service(5)),
            coordinator(5, deleting=True),
            without=("lm-coordinator-1-11111",),
        ),
        {"membership.term": 6, "membership.replaced": 1},
        successor(6),
    ),
    Case(
        "a lost Service comes back with its address",
        replace(running(), service=None),
        {},
        (CreateService("lm-coordinator-11111", 1, "10.0.0.7"),),
    ),
    Case("a Service that points at an old term is corrected", running(service=service(0)), {}, successor(1)[:1]),
]


@pytest.mark.parametrize("case", COORDINATORS, ids=lambda c: c.name)
def test_coordinator(case: Case) -> None:
    check(case)


SERVICES: list[tuple[str, ServiceView, tuple[str, ...]]] = [
    ("a key too many", replace(service(), selector=service().selector | {("team", "nlp")}), ("team",)),
    ("a key less", replace(service(), selector=frozenset(list(service().selector)[1:])), ()),
    ("another port", replace(service(), ports=(("channel", 7071, "7070", "TCP"),)), ()),
    ("another target", replace(service(), ports=(("channel", 7070, "80", "TCP"),)), ()),
    ("a port more", replace(service(), ports=(*service().ports, ("x", 1, "1", "TCP"))), ()),
    ("only ready pods", replace(service(), publishes_unready=False), ()),
]


@pytest.mark.parametrize(("name", "broken", "surplus"), SERVICES, ids=[case[0] for case in SERVICES])
def test_a_service_that_leads_elsewhere_is_repaired(name: str, broken: ServiceView, surplus: tuple[str, ...]) -> None:
    check(Case(name, running(service=broken), {}, (PatchService("lm-coordinator-11111", "s-1", 1, surplus),)))


def test_an_address_that_somebody_else_has_is_given_up() -> None:
    """Workers were given it for life, so all get successors."""
    taken = Refusal(
        "lm-coordinator-11111", RefusalKind.OTHER, "spec.clusterIP: provided IP is already allocated", 1, 9.0, 3
    )
    found = plan(replace(running(), service=None, refusals=(taken,)))
    assert found.status.resolved is not None
    assert found.status.resolved.coordinator_address is None
    assert found.status.incarnations == {0: 1, 1: 1, 2: 1}
    assert CreateService("lm-coordinator-11111", 1, None) in found.effects
    twice = replace(taken, count=2)
    kept = plan(replace(running(), service=None, refusals=(twice,)))
    assert CreateService("lm-coordinator-11111", 1, "10.0.0.7") in kept.effects


@pytest.mark.parametrize("role", ["worker", "coordinator"])
@pytest.mark.parametrize(("seconds", "known", "again"), [(9.0, False, False), (11.0, False, True), (11.0, True, False)])
def test_a_pod_that_has_a_node_and_does_not_start_gets_its_secret_again(
    role: str, seconds: float, known: bool, again: bool
) -> None:
    pod = coordinator(phase=PodPhase.PENDING, started=None) if role == "coordinator" else pending(1, node="n1")
    view = replaced(running(report=report(joined=[], ready=[], members=[])), pod)
    name = "lm-worker-11111111" if role == "worker" else "lm-coordinator-1-11111111"
    files = frozenset({name}) if known else frozenset()
    found = plan(replace(view, seen={**view.seen, (Sight.PLACED, pod.uid): seconds}, files=files))
    assert any(isinstance(e, CreateSecret) and e.name == name for e in found.effects) is again
