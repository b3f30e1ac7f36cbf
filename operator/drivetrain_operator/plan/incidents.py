"""PURE: what of all that went wrong is charged, and for how long does it count? The one place that charges.

Two witnesses tell of failures: a coordinator of rank processes (`tally`), a kubelet of pods (`failure`). Each says
what it saw, and whether that is a cause of its own as far as it knows. They do not know of each other: a worker out of
memory is a process first, and a pod a second later. Here both are laid beside each other, and one death costs once.

What was charged counts until it lies behind the job: ADR 0034.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from drivetrain_api.status import MAX_CHARGES, Budget, Charge, FailureStatus, TrainingJobStatus
from drivetrain_operator.plan.causes import REPLACED, kept
from drivetrain_operator.plan.children import fresh_report
from drivetrain_operator.plan.view import View
from drivetrain_operator.render import names

TOGETHER: Final = timedelta(seconds=5)
"""Pods that end for one reason, none later than this after the one before, are one incident: an outage, or a node after
the other, takes its time. Nodes' clocks tell nothing of that."""
ONE_CAUSE: Final = timedelta(seconds=60)
"""So much later than the one that was charged such a pod may end: what goes on for longer is charged again."""
SAME_POD: Final = timedelta(seconds=15)
"""So much later than its coordinator may a pod's kubelet tell of the same end."""
BEHIND_STEPS: Final = 100
"""A job that has trained so many steps past an incident has not come back to it. Fewer may be the way there."""
CELLS: Final = 16
"""Into so many pieces a window is cut; what was charged within one is one entry. With what waits only for steps, they
fit into `MAX_CHARGES`."""


def charge(view: View, status: TrainingJobStatus, seen: Sequence[FailureStatus]) -> TrainingJobStatus:
    """restarts, failures, budget.charges, with these failures taken over. `counted` of each: it is a cause of its own
    as far as its witness knows."""
    entries = list(status.failures)
    for entry in seen:
        counted = entry.counted and not _told_already(view, entry, entries)
        entries.append(entry.model_copy(update={"counted": counted}))
        if counted:
            status = _charged(view, status, entry)
    return status.model_copy(update={"failures": kept(entries)})


def _told_already(view: View, entry: FailureStatus, before: Sequence[FailureStatus]) -> bool:
    """Whether the other witness has told of this end, or one of the same kind of other pods of the same moment."""
    if entry.process:
        # The pod has ended as a whole, and its process with it, whenever we hear of that.
        return any(not other.process and other.pod == entry.pod for other in before)
    return any(_one_end(entry, other) for other in before) or _one_cause(view, entry, before)


def _one_end(pod: FailureStatus, other: FailureStatus) -> bool:
    return other.pod == pod.pod and other.reason != REPLACED and abs(pod.time - other.time) <= SAME_POD


def _one_cause(view: View, pod: FailureStatus, before: Sequence[FailureStatus]) -> bool:
    """Whether a chain of ends for one reason goes on with this one. Status does not keep all of its links: the newest,
    and the one that was charged."""
    alike = [other for other in before if other.reason == pod.reason]
    charged = next((other for other in reversed(alike) if other.counted), None)
    if charged is None:
        return False
    # A successor in a slot of the chain has tried anew: a crash loop is no outage, however fast it turns.
    chain = alike[alike.index(charged) :]
    if any(_slot(view, other) == _slot(view, pod) and other.pod != pod.pod for other in chain):
        return False
    since = abs(pod.time - charged.time)
    return since <= TOGETHER or (since <= ONE_CAUSE and abs(pod.time - alike[-1].time) <= TOGETHER)


def _slot(view: View, failure: FailureStatus) -> int:
    return names.identify(view.job.name, failure.pod).index


def _charged(view: View, status: TrainingJobStatus, entry: FailureStatus) -> TrainingJobStatus:
    told = entry.step + 1 if entry.step is not None else 0
    step = max(steps_done(view, status) or 0, status.budget.steps, told)
    charges = _entered(status.budget.charges, Charge(time=entry.time, step=step, incidents=1), _window(view))
    return status.model_copy(
        update={
            "restarts": status.restarts + 1,
            "budget": status.budget.model_copy(update={"charges": charges}),
        }
    )


def _entered(charges: Sequence[Charge], new: Charge, window: timedelta) -> list[Charge]:
    """Charges in the order of time. Those of one piece of the window are one, and, when there is no room, the oldest:
    they wait for steps only, and the later time and step hold for both."""
    found = [*charges, new]
    if charges and _cell(charges[-1].time, window) == _cell(new.time, window):
        found[-2:] = [_both(*found[-2:])]
    while len(found) > MAX_CHARGES:
        found[:2] = [_both(*found[:2])]
    return found


def _both(one: Charge, other: Charge) -> Charge:
    return Charge(
        time=max(one.time, other.time),
        step=max(one.step, other.step),
        incidents=one.incidents + other.incidents,
    )


def _cell(time: datetime, window: timedelta) -> int:
    return int(time.timestamp()) * CELLS // int(window.total_seconds())


def starts_over(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """`status` of a job whose progress will not be known for a while: what is charged meanwhile lies behind it only
    once it is past where it was."""
    most = max(steps_done(view, status) or 0, status.budget.steps)
    return status.model_copy(update={"budget": status.budget.model_copy(update={"steps": most})})


def forgiven(status: TrainingJobStatus) -> TrainingJobStatus:
    """`status` of a job that its user lets try anew: with a budget that is not used."""
    return status.model_copy(update={"budget": Budget()})


def behind(view: View, status: TrainingJobStatus) -> TrainingJobStatus:
    """`status` without the charges that lie behind the job: the window is over, and it has trained well past them."""
    done = steps_done(view, status)
    if done is None or not status.budget.charges:
        return status
    left = [
        each
        for each in status.budget.charges
        if view.now - each.time < _window(view) or done < each.step + BEHIND_STEPS
    ]
    return status.model_copy(update={"budget": status.budget.model_copy(update={"charges": left})})


def _window(view: View) -> timedelta:
    return timedelta(seconds=view.job.wishes.restart_window_seconds)


def steps_done(view: View, status: TrainingJobStatus) -> int | None:
    """Steps that every member has finished, by the newest word of it; None if there is none."""
    report = fresh_report(view, status)
    told = [report.progress.step + 1] if report is not None and report.progress is not None else []
    told += [status.progress.step] if status.progress is not None else []
    return max(told, default=None)
