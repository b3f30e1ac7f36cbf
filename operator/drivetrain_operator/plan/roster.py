"""PURE: what is a job's coordinator told? Kubernetes' word on which pods exist, and what the user wants.

Called by `reports/` for every report. `revision` is 0: the book numbers contents, which it compares without it.
"""

from __future__ import annotations

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.energy import EnergyCounted
from drivetrain_api.report import Roster, RosterPod
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan import slots
from drivetrain_operator.plan.view import View


def roster(view: View) -> Roster:
    """The roster for this view. It follows status, not intentions: only what was written holds."""
    job, status = view.job, view.job.status
    wanted = slots.parse(status.workers.indices)
    target = status.workers.target
    workers = sorted((p for p in view.pods if p.role == ROLE_WORKER), key=lambda p: (p.index, p.incarnation))
    pods = [
        RosterPod(
            uid=p.uid,
            name=p.name,
            index=p.index,
            draining=p.deleting or p.index not in wanted or p.incarnation < status.incarnations.get(p.index, 0),
        )
        for p in workers
        if not p.over
    ]
    dead = {p.uid for p in workers if p.over}
    if view.report is not None:
        # A pod that took part and of which Kubernetes, asked for it, knows nothing any more.
        gone = view.absent - {p.uid for p in workers}
        dead |= ({m.pod_uid for m in view.report.report.members} | set(view.report.report.joined)) & gone
    fewest = job.wishes.min_workers
    return Roster(
        revision=0,
        term=status.membership.term,
        target=target,
        minimum=min(fewest, target) if fewest is not None else target,
        pods=pods,
        proven_dead=sorted(dead),
        no_progress_seconds=job.wishes.no_progress_seconds,
        trained=status.goodput.counted.steps if status.goodput is not None else 0,
        energy=_counted(status),
        stop=_stop(view),
    )


def _counted(status: TrainingJobStatus) -> EnergyCounted | None:
    """For a coordinator that has told nothing yet: once it has, it knows better."""
    used = status.energy.used if status.energy is not None else None
    if used is None:
        return EnergyCounted()
    told = used.counted
    return EnergyCounted(term=told.term, uptime=told.uptime) if told.term < status.membership.term else None


def _stop(view: View) -> str | None:
    """Why the coordinator should end the job, if it should. Success is not a reason: it ends by itself."""
    job = view.job
    if job.orphaning:
        return None
    if job.deleting:
        return "the job is being deleted"
    failed = job.status.condition(ConditionType.FAILED)
    if failed is not None and failed.status == "True":
        return f"{failed.reason}: {failed.message}"
    if job.status.is_true(ConditionType.SUSPENDED):
        return "the job is suspended"
    return None
