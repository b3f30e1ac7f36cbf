"""Who may reach the job's pods, and whom may they reach? NetworkPolicies, for jobs that ask for them.

They are there before any pod is: one that started a moment earlier would be open for that moment, and one whose policy
was refused, for ever. So nothing is created until they are seen; what runs goes on. They follow spec.network always.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.decision import Decision, soonest
from drivetrain_operator.plan.effects import CreateNetworkPolicy, DeleteNetworkPolicy, Effect, PatchNetworkPolicy
from drivetrain_operator.plan.observe import spelled
from drivetrain_operator.plan.retry import finite, retry_delay
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names
from drivetrain_operator.render.network import rules

LOOK_AGAIN_SECONDS: Final = 5.0
"""Until one that was created shows: a watch tells of it long before."""


def network(view: View, status: TrainingJobStatus) -> Decision:
    """One policy a role: created, mended and deleted."""
    job = view.job
    if job.spec is None:
        return Decision(status)
    there = {each.name: each for each in view.network_policies}
    effects: list[Effect] = []
    after: float | None = None
    for role in (ROLE_COORDINATOR, ROLE_WORKER):
        name = names.network_policy(job.name, job.uid, role)
        wanted, have = rules(job.uid, role, job.spec.network, view.me.neighbours), there.get(name)
        if wanted is None:
            effects += [DeleteNetworkPolicy(name, have.uid)] if have is not None else []
        elif have is None:
            wait = retry_delay(view, name)
            effects += [CreateNetworkPolicy(name, role, wanted)] if wait <= 0 else []
            after = soonest(after, finite(wait) if wait > 0 else LOOK_AGAIN_SECONDS)
        elif have.said != spelled(wanted):
            effects.append(PatchNetworkPolicy(name, have.uid, wanted, have.surplus))
    return Decision(status, tuple(effects), after, final=bool(missing(view)))


def missing(view: View) -> list[str]:
    """Names of policies without which no pod is created."""
    job = view.job
    if job.spec is None:
        return []
    there = {each.name for each in view.network_policies}
    wanted = [
        names.network_policy(job.name, job.uid, role)
        for role in (ROLE_COORDINATOR, ROLE_WORKER)
        if rules(job.uid, role, job.spec.network, view.me.neighbours) is not None
    ]
    return [name for name in wanted if name not in there]
