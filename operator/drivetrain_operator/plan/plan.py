"""PURE: what should be done for one job? The policies, in order.

`plan` folds the chain over the view: each policy sees what those before it decided, and the first that settles the
matter ends the asking. Then the closing policies describe the outcome. Nothing here remembers anything: whatever has
to survive stands in status, which is written, with the job's resourceVersion as precondition, before any effect
happens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from drivetrain_operator.plan.clocks import in_time
from drivetrain_operator.plan.decision import Decision, Policy, soonest
from drivetrain_operator.plan.effects import Effect, Plan
from drivetrain_operator.plan.policies.budget import budget
from drivetrain_operator.plan.policies.coordinator import coordinator
from drivetrain_operator.plan.policies.corruption import corruption
from drivetrain_operator.plan.policies.deadline import deadline
from drivetrain_operator.plan.policies.energy import energy
from drivetrain_operator.plan.policies.energy_foreseen import energy_foreseen
from drivetrain_operator.plan.policies.energy_used import energy_settled, energy_used
from drivetrain_operator.plan.policies.events import events
from drivetrain_operator.plan.policies.failure import failure
from drivetrain_operator.plan.policies.finished import finished
from drivetrain_operator.plan.policies.goodput import goodput
from drivetrain_operator.plan.policies.heat import heat
from drivetrain_operator.plan.policies.holdup import holdup
from drivetrain_operator.plan.policies.keeper import keeper, kept_elsewhere
from drivetrain_operator.plan.policies.network import network
from drivetrain_operator.plan.policies.own_namespace import own_namespace
from drivetrain_operator.plan.policies.pace import pace
from drivetrain_operator.plan.policies.progress import progress
from drivetrain_operator.plan.policies.restart_budget import restart_budget
from drivetrain_operator.plan.policies.results import results
from drivetrain_operator.plan.policies.runtime import runtime
from drivetrain_operator.plan.policies.size import size
from drivetrain_operator.plan.policies.snapshots import snapshots
from drivetrain_operator.plan.policies.standstill import standstill
from drivetrain_operator.plan.policies.start import start
from drivetrain_operator.plan.policies.success import success
from drivetrain_operator.plan.policies.summary import summary
from drivetrain_operator.plan.policies.suspend import suspend
from drivetrain_operator.plan.policies.tally import tally
from drivetrain_operator.plan.policies.tries import tries
from drivetrain_operator.plan.policies.unusable_report import unusable_report
from drivetrain_operator.plan.policies.workers import workers
from drivetrain_operator.plan.stored import writable
from drivetrain_operator.plan.view import View

DECIDING: Final[tuple[Policy, ...]] = (
    finished,  # what is over stays over
    success,  # proof of success outweighs everything that happened beside it
    energy,  # before what it decides: whether the job rests, and its size
    tries,  # after it: what a plan, a deadline or a limit wants outweighs what would be good to know
    suspend,  # before failures: pods that we delete ourselves have not failed
    deadline,
    own_namespace,  # before anything is created there
    keeper,  # before anything is created: in whose name, and by which credentials
    start,  # freezes defaults before anything uses them
    tally,  # failures of processes, as reported
    failure,  # failures of pods, as seen
    restart_budget,  # after both have been charged
    heat,  # after failures: a worker that leaves a hot node has not failed
    size,  # which slots
    network,  # before any pod: none is open, not even for a moment
    coordinator,  # before workers: they are given its address
    workers,  # which pods
    budget,  # how many of them may leave at once
)
STANDING: Final = frozenset({finished, success, suspend, deadline, tally, failure, restart_budget})
"""Asked also of a job whose spec cannot be used, because a newer rule refuses it: who runs goes on, and it ends, rests
and is deleted as its user wished. Nothing is created."""
CLOSING: Final[tuple[Policy, ...]] = (
    progress,
    runtime,
    results,
    snapshots,
    corruption,  # here, because the report that says it first may be the one that says that the job is complete
    summary,
    holdup,
    standstill,  # after it: whatever else keeps the job from training is the better reason
    pace,  # steps are counted where their number is written
    energy_used,  # it makes a write of its own, every quarter of an hour
    energy_foreseen,  # after it: what is used belongs to what is foreseen in all
    goodput,  # last: time is counted where anything is written, and makes no write of its own
)


def plan(view: View) -> Plan:
    """The outcome of one pass over one job."""
    job = view.job
    if job.unreadable:
        return Plan(job.status)
    if job.deleting:
        return Plan(job.status)  # the garbage collector takes the children; we create nothing and redo nothing
    elsewhere = kept_elsewhere(view)
    if elsewhere is not None:
        return Plan(elsewhere)
    view, told = in_time(view)
    found = _heard(view)
    return replace(found, effects=(*told, *found.effects))


def _heard(view: View) -> Plan:
    """A user can suspend and end a job, and its time to live ends, whatever its coordinator says."""
    try:
        return _decided(view)
    except Exception as defect:
        if view.report is None:
            raise
        return _decided(replace(view, report=None), defect)


def _decided(view: View, defect: Exception | None = None) -> Plan:
    """`defect`: by what deciding with the report that was there ended."""
    job, status = view.job, view.job.status
    decisions: list[Decision] = []
    was_finished = status.finished
    for policy in DECIDING if job.spec is not None else [each for each in DECIDING if each in STANDING]:
        decisions.append(policy(view, status))
        status = decisions[-1].status
        if decisions[-1].final:
            break
    if not was_finished:
        if status.finished:
            # It ended in this very pass: what follows from that need not wait for the next.
            decisions.append(finished(view, status))
        for policy in CLOSING:
            decisions.append(policy(view, status))
            status = decisions[-1].status
        decisions.append(unusable_report(view, status, defect))
    else:
        decisions.append(energy_settled(view, status))
    return _outcome(view, decisions)


def _outcome(view: View, decisions: list[Decision]) -> Plan:
    status = decisions[-1].status
    if status != view.job.status:
        status = writable(status)
    effects: list[Effect] = [effect for decision in decisions for effect in decision.effects]
    return Plan(
        status=status,
        effects=(*effects, *events(view, status)),
        requeue_after=soonest(*(decision.after for decision in decisions)),
    )


__all__ = ["CLOSING", "DECIDING", "STANDING", "plan"]
