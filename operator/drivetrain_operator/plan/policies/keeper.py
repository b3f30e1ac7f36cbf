"""Whose job is this, and can it still be led? One operator keeps a job, by the root of trust that it was started with.

Two operators that looked after one job would raise its term against each other for ever: the one that is not named in
status stands back. A root that does not hold any more can lead nobody: the pods that there are trust nobody else, and
new ones would not be trusted. So nothing is created until the root is restored, or the job is suspended and resumed.
"""

from __future__ import annotations

from drivetrain_api.status import ConditionType, Keeper, TrainingJobStatus
from drivetrain_operator.plan.conditions import with_condition
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.view import View


def kept_elsewhere(view: View) -> TrainingJobStatus | None:
    """The job's status with the word that others stand back; None if it is ours, or nobody's yet.

    Said once for a keeper, whoever says it: of several bystanders each would put its own words there, for ever.
    """
    status = view.job.status
    keeper = status.keeper.operator
    if not keeper or keeper == view.me.operator:
        return None
    whose = f"the operator {keeper} keeps this job,"
    said = status.condition(ConditionType.KEPT_ELSEWHERE)
    if said is not None and said.status == "True" and said.message.startswith(whose):
        return status
    message = (
        f"{whose} and any other stands back. If that one is gone for good: "
        f"kubectl patch trainingjob {view.job.name} -n {view.job.namespace} --subresource=status --type=merge "
        '-p {"status":{"keeper":null}}'
    )
    return with_condition(view, status, ConditionType.KEPT_ELSEWHERE, True, "AnotherOperator", message)


def keeper(view: View, status: TrainingJobStatus) -> Decision:
    """keeper, and CredentialsLost."""
    me = view.me
    if view.job.status.start_time is None:
        status = status.model_copy(update={"keeper": Keeper(operator=me.operator, root=me.root)})
    elif not status.keeper.operator:
        # It was started by a release that did not name itself: with the one root that there was, so before a rotation.
        status = status.model_copy(update={"keeper": Keeper(operator=me.operator, root=me.oldest or me.root)})
    lost = status.keeper.root not in me.roots
    before = status.is_true(ConditionType.CREDENTIALS_LOST)
    if not lost:
        if before:
            status = with_condition(view, status, ConditionType.CREDENTIALS_LOST, False, "RootHolds")
        return Decision(status)
    message = (
        f"the root of trust {status.keeper.root}, which this job was started with, does not hold any more (now: "
        f"{', '.join(sorted(me.roots))}). It trains on, unheard, and nothing that is lost is replaced. Restore the "
        "Secret drivetrain-root from its backup and restart the operator, or suspend and resume the job, which costs "
        "the steps since its last run.save"
    )
    status = with_condition(view, status, ConditionType.CREDENTIALS_LOST, True, "RootReplaced", message)
    return Decision(status, final=True)
