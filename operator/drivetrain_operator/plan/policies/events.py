"""What should people be told? Events follow from how the new status differs from the old one.

So an event is recorded once, after the status that it tells of was written, and never because a pass was repeated.
"""

from __future__ import annotations

from drivetrain_api.figures import plain
from drivetrain_api.holdup_status import HoldUpStatus
from drivetrain_api.late_status import LateRankStatus
from drivetrain_api.recovery import sentence
from drivetrain_api.recovery_status import RecoveryStatus
from drivetrain_api.status import Condition, ConditionType, TrainingJobStatus
from drivetrain_operator.plan.causes import REPLACED, summary
from drivetrain_operator.plan.conditions import clip
from drivetrain_operator.plan.effects import Effect, RecordEvent
from drivetrain_operator.plan.energy.budget import exceeded
from drivetrain_operator.plan.energy_words import what_it_took
from drivetrain_operator.plan.policies.corruption import of_one_finding
from drivetrain_operator.plan.policies.corruption import summary as of_corruption
from drivetrain_operator.plan.policies.energy_used import awaits
from drivetrain_operator.plan.policies.obstacles import obstacle
from drivetrain_operator.plan.view import View
from drivetrain_operator.render.templates import template_problem, unknown

MESSAGE_LIMIT = 1000
"""The API server takes 1,024 characters."""


def events(view: View, new: TrainingJobStatus) -> tuple[Effect, ...]:
    """Events for the step from the view's status to `new`."""
    old = view.job.status
    if old == new:
        return ()
    return tuple(RecordEvent(e.type, e.reason, clip(e.message, MESSAGE_LIMIT)) for e in _told(view, old, new))


def _told(view: View, old: TrainingJobStatus, new: TrainingJobStatus) -> list[RecordEvent]:
    told = _unknown_fields(view) if new.observed_generation != old.observed_generation else []
    if new.start_time is not None and old.start_time is None:
        told.append(RecordEvent("Normal", "Started", f"{new.workers.target} workers wanted"))
    elif new.workers.target != old.workers.target and new.workers.target:
        told.append(RecordEvent("Normal", "Scaled", _scaled(old, new)))
    told.extend(
        RecordEvent("Normal" if f.reason == REPLACED else "Warning", f.reason, _with_tail(summary(f), f.log_tail))
        for f in new.failures
        if f not in old.failures
    )
    if new.recoveries > old.recoveries:
        took = f" after {plain(new.last_recovery_seconds, 6)} s" if new.last_recovery_seconds is not None else ""
        took += f" ({_in_phases(new.last_recovery)})" if new.last_recovery is not None else ""
        # None trains when the next loss came before this was told.
        world = f", world size {new.workers.world}" if new.workers.world else ""
        told.append(RecordEvent("Normal", "Recovered", f"training went on{took}{world}"))
    if new.membership.term > old.membership.term > 0 and old.start_time is not None:
        told.append(RecordEvent("Warning", "CoordinatorReplaced", _why_replaced(old, new)))
    told.extend(RecordEvent("Warning", c.reason, c.message) for c in _changed(old, new, ConditionType.STATE_LOST))
    told.extend(
        RecordEvent("Warning", "StateCorrupted" if each.known else "StateDiffered", of_corruption(each))
        for each in of_one_finding([each for each in new.corruptions if each not in old.corruptions])
    )
    told.extend(RecordEvent("Warning", c.type, c.message) for c in _changed(old, new, ConditionType.NODE_EXCLUDED))
    told.extend(RecordEvent("Warning", c.type, c.message) for c in _changed(old, new, ConditionType.RESULTS_LOST))
    told.extend(
        RecordEvent(*(("Warning", c.type) if c.status == "True" else ("Normal", "NodeCool")), c.message)
        for c in _changed(old, new, ConditionType.NODE_TOO_HOT)
    )
    if new.is_true(still := ConditionType.STANDING_STILL) and not old.is_true(still):  # later words add only time
        told.extend(RecordEvent("Warning", still.value, c.message) for c in _changed(old, new, still))
    told.extend(_hold_up(old.hold_up, new.hold_up))
    known = {(each.process, each.stack) for each in old.late_ranks}
    told.extend(
        RecordEvent("Warning", "RankLate", _with_tail(_late(each), each.stack))
        for each in new.late_ranks
        if (each.process, each.stack) not in known
    )
    if new.is_true(unusable := ConditionType.REPORT_UNUSABLE):
        told.extend(RecordEvent("Warning", unusable.value, c.message) for c in _changed(old, new, unusable))
    told.extend(RecordEvent("Normal", c.reason, c.message) for c in _changed(old, new, ConditionType.SUSPENDED))
    told.extend(RecordEvent("Normal", c.reason, c.message) for c in _changed(old, new, ConditionType.COMPLETE))
    told.extend(RecordEvent("Warning", c.reason, c.message) for c in _changed(old, new, ConditionType.FAILED))
    told.extend(_electricity(old, new))
    told.extend(_of_energy(view, old, new))
    told.extend(_running(old, new))
    told.extend(_obstacle(view, old, new))
    return told


def _scaled(old: TrainingJobStatus, new: TrainingJobStatus) -> str:
    order = new.energy.order if new.energy is not None else None
    why = f" ({order.why})" if order is not None and order.workers == new.workers.target else ""
    return f"workers {old.workers.target} → {new.workers.target}{why}"


def _of_energy(view: View, old: TrainingJobStatus, new: TrainingJobStatus) -> list[RecordEvent]:
    told = []
    planned, known = new.condition(ConditionType.ENERGY_PLANNED), old.condition(ConditionType.ENERGY_PLANNED)
    before, after = (one.energy.plan if one.energy is not None else None for one in (old, new))
    again = (before.made if before is not None else None) != (after.made if after is not None else None)
    if planned is not None and (known is None or known.reason != planned.reason or again):
        word = "EnergyPlanned" if planned.status == "True" else "EnergyNotPlanned"
        told.append(RecordEvent("Normal", word, planned.message))
    wish = view.job.spec.energy if view.job.spec is not None else None
    if wish is not None and (spent := exceeded(wish, new.energy)) and not exceeded(wish, old.energy):
        told.append(RecordEvent("Warning", "EnergyBudgetUsedUp", f"{spent}; onExceed: {wish.budget.on_exceed}"))
    was, order = (one.energy.order if one.energy is not None else None for one in (old, new))
    limited = order is not None and order.by == "limit"
    if limited != (was is not None and was.by == "limit"):
        word = order.why if limited and order is not None else "the limit of its power domain is over"
        told.append(RecordEvent("Normal", "PowerLimited" if limited else "PowerRestored", word))
    return told


def _late(found: LateRankStatus) -> str:
    place = f" in pod {found.pod}{f' on node {found.node}' if found.node else ''}" if found.pod else ""
    last = f"; collective: {found.collective}" if found.collective else ""
    return f"rank {found.rank}{place} holds the others up{f' at {found.where}' if found.where else ''}{last}"


def _is_counted(status: TrainingJobStatus) -> bool:
    return status.finished and not awaits(status)


def _electricity(old: TrainingJobStatus, new: TrainingJobStatus) -> list[RecordEvent]:
    """Of a job that has ended, and of which all is counted."""
    energy = new.energy
    if not _is_counted(new) or _is_counted(old) or energy is None or energy.used is None or not energy.used.kwh:
        return []
    return [RecordEvent("Normal", "EnergyUsed", what_it_took(energy.used, energy.first))]


def _in_phases(last: RecoveryStatus) -> str:
    return sentence(
        last.cause, last.detected_seconds, last.formed_seconds, last.copied_seconds, last.first_step_seconds
    )


def _why_replaced(old: TrainingJobStatus, new: TrainingJobStatus) -> str:
    membership = new.membership
    return f"term {old.membership.term}: {membership.replaced_message}; a coordinator of term {membership.term} follows"


def _unknown_fields(view: View) -> list[RecordEvent]:
    """Most often a typing error, which the API server would drop without a word."""
    if view.job.spec is None or template_problem(view.job.spec) is not None:
        return []
    found = unknown(view.job.spec)
    message = "fields that no pod has, as far as this release knows: "
    return [RecordEvent("Warning", "UnknownField", message + ", ".join(found))] if found else []


def _changed(old: TrainingJobStatus, new: TrainingJobStatus, type_: ConditionType) -> list[Condition]:
    before, after = old.condition(type_), new.condition(type_)
    if after is None or (before is not None and (before.status, before.message) == (after.status, after.message)):
        return []
    return [] if before is None and after.status == "False" else [after]


def _running(old: TrainingJobStatus, new: TrainingJobStatus) -> list[RecordEvent]:
    """Once an attempt, or each time that a membership stands before the first step."""
    first = new.is_true(ConditionType.RUNNING) and not old.is_true(ConditionType.RUNNING) and old.progress is None
    return [RecordEvent("Normal", "Training", f"training with world size {new.workers.world}")] if first else []


def _obstacle(view: View, old: TrainingJobStatus, new: TrainingJobStatus) -> list[RecordEvent]:
    before, after = old.condition(ConditionType.READY), new.condition(ConditionType.READY)
    if (
        after is None
        or after.status == "True"
        or new.finished
        or (before is not None and before.reason == after.reason)
    ):
        return []
    found = obstacle(view, new)
    if found is None or not found.warn or found.reason != after.reason:
        return []
    return [RecordEvent("Warning", found.reason, found.message)]


def _hold_up(old: HoldUpStatus | None, new: HoldUpStatus | None) -> list[RecordEvent]:
    """When it begins, is another rank, and is over; later words add only how much it is."""
    if new is not None and (old is None or old.process != new.process):
        return [RecordEvent("Warning", "HeldUp", new.message)]
    if old is not None and new is None:
        return [RecordEvent("Normal", "NoLongerHeldUp", f"the others do not wait for rank {old.rank} any more")]
    return []


def _with_tail(line: str, tail: str) -> str:
    """The end of a traceback is what matters; an event has little room."""
    room = MESSAGE_LIMIT - len(line) - 2
    return f"{line}\n{tail[-room:]}" if tail and room > 0 else line
