"""Which kinds of object are a job's children? The one list that caches, executor and permissions read.

Of each kind: what of it is projected into a view, how it is made and mended and from which effect, by which labels one
that stands in the way is known to be the one that was wanted, and which verbs all that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from drivetrain_api.constants import LABEL_INCARNATION, LABEL_TERM
from drivetrain_operator.kube.resources import (
    BUDGETS,
    CONFIGMAPS,
    NETWORK_POLICIES,
    PODS,
    SECRETS,
    SERVICES,
    Object,
    Resource,
)
from drivetrain_operator.plan.effects import (
    Create,
    CreateBudget,
    CreateCoordinator,
    CreateNetworkPolicy,
    CreateScript,
    CreateSecret,
    CreateService,
    CreateWorker,
    Effect,
    Mend,
    PatchBudget,
    PatchNetworkPolicy,
    PatchService,
    SecretKind,
)
from drivetrain_operator.plan.observe import budget_view, network_policy_view, pod_view, service_view
from drivetrain_operator.plan.view import BudgetView, JobView, NetworkPolicyView, PodView, ServiceView
from drivetrain_operator.render.budget import budget, budget_patch
from drivetrain_operator.render.coordinator import coordinator_pod
from drivetrain_operator.render.network import network_policy, network_policy_patch
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from drivetrain_operator.render.script import script
from drivetrain_operator.render.secret import secret
from drivetrain_operator.render.service import coordinator_service, service_patch
from drivetrain_operator.reports.trust import Trust

ChildView = PodView | ServiceView | BudgetView | NetworkPolicyView


@dataclass(frozen=True, slots=True)
class Given:
    """What bodies are made of, beside the job and the effect."""

    platform: Platform
    trust: Trust
    now: datetime
    source: Object = field(default_factory=dict)
    """What is copied."""


Render = Callable[[JobView, Any, Given], Object]
"""Of one effect; may raise `InvalidTemplate`."""


@dataclass(frozen=True, slots=True)
class ChildKind:
    """One kind of child."""

    resource: Resource
    verbs: str
    why: str
    """What for, in the table of permissions."""
    made_by: Mapping[type[Effect], Render]
    """The body of the create."""
    mended_by: Mapping[type[Effect], Render] = field(default_factory=dict)
    """The body of the merge patch. It carries the uid as precondition."""
    project: Callable[[Object], ChildView] | None = None
    """None: it may not be read, or need not be."""
    urgent: Callable[[ChildView], bool] = lambda _: False
    """Whether a change of it is looked at before others."""
    vital: bool = True
    """Whether jobs can be looked after only once the cache of it is filled."""
    identity: tuple[str, ...] = ()
    """Labels in which one with the wanted name has to agree with what was wanted."""

    @property
    def readable(self) -> bool:
        """Whether one can be asked for by name."""
        return "get" in self.verbs.split()


def _pod_is_urgent(view: ChildView) -> bool:
    return isinstance(view, PodView) and (view.over or view.deleting)


def _secret(job: JobView, effect: CreateSecret, given: Given) -> Object:
    root = job.status.keeper.root
    if effect.kind is SecretKind.WORKER:
        return secret(job, effect, given.trust.worker_files(job.uid, root, given.now))
    return secret(job, effect, given.trust.coordinator_files(job.uid, effect.term, root, given.now))


CHILD_KINDS: Final[tuple[ChildKind, ...]] = (
    ChildKind(
        PODS,
        "get list watch create delete",
        "workers and coordinators",
        made_by={
            CreateWorker: lambda job, effect, given: worker_pod(job, effect, given.platform),
            CreateCoordinator: lambda job, effect, given: coordinator_pod(job, effect, given.platform),
        },
        project=pod_view,
        urgent=_pod_is_urgent,
        identity=(LABEL_INCARNATION, LABEL_TERM),
    ),
    ChildKind(
        SERVICES,
        "get list watch create patch",
        "the stable address of a job's coordinator",
        made_by={CreateService: lambda job, effect, _: coordinator_service(job, effect)},
        mended_by={PatchService: lambda job, effect, _: service_patch(job, effect)},
        project=service_view,
    ),
    ChildKind(
        SECRETS,
        "create",
        "credentials of a job; never read back",
        made_by={CreateSecret: _secret},
    ),
    ChildKind(
        CONFIGMAPS,
        "get create patch",
        "each job's own copy of its script, and its history",
        made_by={CreateScript: lambda job, effect, given: script(job, effect, given.source)},
    ),
    ChildKind(
        BUDGETS,
        "get list watch create patch",
        "evictions take workers one after another",
        made_by={CreateBudget: lambda job, effect, _: budget(job, effect)},
        mended_by={PatchBudget: lambda job, effect, _: budget_patch(job, effect)},
        project=budget_view,
        vital=False,
    ),
    ChildKind(
        NETWORK_POLICIES,
        "get list watch create patch delete",
        "jobs that ask for it are reached by nobody else",
        made_by={CreateNetworkPolicy: lambda job, effect, _: network_policy(job, effect)},
        mended_by={PatchNetworkPolicy: lambda job, effect, _: network_policy_patch(job, effect)},
        project=network_policy_view,
        # A job that asks for one waits for it itself.
        vital=False,
    ),
)


def maker(effect: Create) -> tuple[ChildKind, Render]:
    """The kind that the effect creates one of, and how."""
    return _MAKERS[type(effect)]


def mender(effect: Mend) -> tuple[ChildKind, Render]:
    """The kind that the effect mends one of, and how."""
    return _MENDERS[type(effect)]


_MAKERS: Final = {effect: (kind, render) for kind in CHILD_KINDS for effect, render in kind.made_by.items()}
_MENDERS: Final = {effect: (kind, render) for kind in CHILD_KINDS for effect, render in kind.mended_by.items()}
