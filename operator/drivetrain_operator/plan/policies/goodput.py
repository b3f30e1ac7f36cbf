"""How was the job's time spent? Counted with whatever else is written; only a change of what holds is a write.

What queues, starts or rests, the operator sees. From the first membership on its coordinator tells (`ledger.py`).
"""

from __future__ import annotations

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.goodput import Category
from drivetrain_api.goodput_status import CountedTime, GoodputStatus
from drivetrain_api.report import Report
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.children import coordinators, fresh_report, runs
from drivetrain_operator.plan.children import workers as sort
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.ledger import Ledger, Told, counted
from drivetrain_operator.plan.view import RefusalKind, View

_BEFORE_IT_BEGAN = frozenset({Category.QUEUED, Category.STARTING})


def goodput(view: View, status: TrainingJobStatus) -> Decision:
    """status.goodput."""
    before = _ledger(view, status)
    standing = _standing(view, status, before.standing)
    if status == view.job.status and status.goodput is not None and standing is before.standing:
        return Decision(status)
    now = min((view.now - view.job.created).total_seconds(), MAX_SECONDS)
    closes = status.finished or (standing is Category.SUSPENDED and before.standing is not standing)
    told = _told(view, now) if before.standing is not Category.SUSPENDED else None
    after = counted(before, told, now, standing, closes=closes)
    new = GoodputStatus(
        ratio=_ratio(after),
        summary=_percent(_ratio(after)),
        seconds=_plain(after.seconds),
        counted=CountedTime(
            standing=after.standing, term=after.term, told=_plain(after.told), steps=_most_steps(view, status)
        ),
    )
    return Decision(status.model_copy(update={"goodput": new}))


def _ledger(view: View, status: TrainingJobStatus) -> Ledger:
    known = status.goodput
    if known is not None:
        told = known.counted
        return Ledger(_by_category(known.seconds), told.standing, told.term, _by_category(told.told))
    # Of a job that an older release has started nobody knows how it was until now.
    started = view.job.status.start_time is not None
    return Ledger(standing=Category.OTHER if started else Category.STARTING)


def _by_category(seconds: dict[str, float]) -> dict[Category, float]:
    return {each: seconds[each] for each in Category if each in seconds}


def _plain(seconds: object) -> dict[str, float]:
    assert isinstance(seconds, dict)
    return {str(each): round(seconds[each], 3) for each in Category if seconds.get(each)}


def _standing(view: View, status: TrainingJobStatus, before: Category | None) -> Category | None:
    """What holds from now on, as far as the operator itself sees; None: that is for coordinators to tell."""
    if status.finished:
        return None
    if status.is_true(ConditionType.SUSPENDED):
        return Category.SUSPENDED
    report = fresh_report(view, status)
    if report is not None and _has_begun(report):
        return None if report.spent is not None else Category.OTHER  # of an older release, which does not tell
    if before is None or before is Category.OTHER:
        return before
    return Category.QUEUED if _is_queued(view, status) else Category.STARTING


def _has_begun(report: Report) -> bool:
    return report.epoch is not None or any(
        value > 0 for name, value in (report.spent or {}).items() if name not in _BEFORE_IT_BEGAN
    )


def _is_queued(view: View, status: TrainingJobStatus) -> bool:
    """There is no room for some of it, by the scheduler's word or the quota's."""
    pods = [*sort(view, status).current.values()]
    pods += [p for p in coordinators(view) if p.term == status.membership.term]
    return any(p.live and p.unschedulable and not runs(view, p) for p in pods) or any(
        refusal.kind is RefusalKind.QUOTA for refusal in view.refusals
    )


def _told(view: View, now: float) -> Told | None:
    """Also by a coordinator that was replaced in this very pass: what it said last is told by nobody else."""
    if view.report is None:
        return None
    report = view.report.report
    return Told(
        at=now - view.report.age_seconds - report.untold_seconds,
        term=report.term,
        spent=_by_category(report.spent or {}),
        went_on=report.went_on,
    )


def _most_steps(view: View, status: TrainingJobStatus) -> int:
    """Where training has gone back, or may have been led by nobody: as far as it was before."""
    old, new = view.job.status, status
    known = old.goodput.counted.steps if old.goodput is not None else 0
    if old.progress is None:
        return known
    back = new.progress is None or new.progress.step < old.progress.step
    return max(known, old.progress.step) if back or new.membership.term != old.membership.term else known


def _ratio(ledger: Ledger) -> float | None:
    """None of a job of whose steps nobody has told."""
    made = ledger.seconds.get(Category.PRODUCTIVE, 0.0)
    if not made and not ledger.seconds.get(Category.REDONE):
        return None
    return round(min(1.0, made / ledger.until), 4)


def _percent(ratio: float | None) -> str:
    return f"{100 * ratio:.1f}%" if ratio is not None else ""
