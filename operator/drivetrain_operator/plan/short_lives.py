"""PURE: which slots lose pod after pod, and how long does the next one wait?

A worker that fails young is charged, and the budget ends that. What the platform takes away costs nothing, so nothing
would end it: a taint that evicts each replacement at once made a pod a second for ever. So the next pod of such a slot
waits, longer each time. The job does not fail for it: a job of low priority that is preempted all night trains in the
morning, survivors keep their state, and whoever wants an end to it sets spec.activeDeadlineSeconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from drivetrain_api.status import TrainingJobStatus
from drivetrain_operator.plan.children import Workers
from drivetrain_operator.plan.view import PodView, Sight, View
from drivetrain_operator.render import names

SHORT_LIFE_SECONDS: Final = 60.0
"""A pod that ended sooner than this may do so again: its second successor waits, then longer and longer."""
MAX_FAILED_SECONDS: Final = 60.0
"""The longest wait after a failure: the budget bounds how often that happens."""
MAX_TAKEN_SECONDS: Final = 300.0
"""The longest wait after a disruption."""
AGAIN_AND_AGAIN: Final = 3
"""So many in a row are no accident: a person is told."""


def count_taken(
    view: View, status: TrainingJobStatus, have: Workers, taken: Iterable[int]
) -> tuple[TrainingJobStatus, float | None]:
    """taken_away: one more for each of these slots; none for those whose pod has run for a minute. Seconds until the
    next one has."""
    row = {index: count for index, count in status.taken_away.items() if index in have.wanted}
    due: list[float] = []
    for index in sorted(row):
        pod = have.current.get(index)
        if pod is None or pod.started is None:
            continue
        left = SHORT_LIFE_SECONDS - _lived(view, pod)
        if left <= 0:
            del row[index]
        elif pod.live:
            due.append(left)
    for index in taken:
        pod = have.current.get(index)
        long = pod is not None and _lived(view, pod) >= SHORT_LIFE_SECONDS
        row[index] = 1 if long else row.get(index, 0) + 1
    return status.model_copy(update={"taken_away": dict(sorted(row.items()))}), min(due, default=None)


def wait(view: View, status: TrainingJobStatus, index: int, last: PodView | None) -> float:
    """Seconds until this slot, whose newest ended pod is `last`, gets another one. The first successor never waits."""
    waits = [0.0]
    row = status.taken_away.get(index, 0)
    used = status.incarnations.get(index, 0)
    if row >= 2:
        name = names.worker(view.job.name, names.of(status), index, used)
        waits.append(min(2.0 ** min(row - 1, 10), MAX_TAKEN_SECONDS) - view.age(Sight.MISSING, name))
    if used >= 2 and last is not None and _lived(view, last) < SHORT_LIFE_SECONDS:
        waits.append(min(2.0 ** min(used - 1, 10), MAX_FAILED_SECONDS) - view.age(Sight.OVER, last.uid))
    return max(waits)


def _lived(view: View, pod: PodView) -> float:
    """Seconds: how long we have seen it run, or both ends by its node's clock; 0 of one that its node refused (no room,
    after all)."""
    ended = pod.terminated
    if ended is None or ended.started is None or ended.finished is None:
        return view.age(Sight.STARTED, pod.uid)
    return (ended.finished - ended.started).total_seconds()
