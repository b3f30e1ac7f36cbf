"""What do a job's object and a change of its status mean in numbers? From the API's words to metrics'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from drivetrain_api.energy import total
from drivetrain_api.energy_status import UsedEnergy
from drivetrain_api.recovery import RECOVERY_PHASES, RecoveryCause
from drivetrain_api.status import ConditionType, ReplacedFor, TrainingJobStatus
from drivetrain_operator.metrics.collector import JobSample
from drivetrain_operator.metrics.counters import OperatorMetrics
from drivetrain_operator.plan import stored


def samples(objects: Iterable[dict[str, Any]]) -> Iterator[JobSample]:
    """One sample for each job."""
    for obj in objects:
        metadata = obj["metadata"]
        try:
            status, _ = stored.read(obj.get("status") or {})
        except stored.Unreadable:
            yield JobSample(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"], readable=False)
            continue
        progress = status.progress
        used = status.energy.used if status.energy is not None else None
        yield JobSample(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            phase=status.phase,
            workers_target=status.workers.target,
            workers_ready=status.workers.ready,
            restarts=status.restarts,
            recoveries=status.recoveries,
            standing_still=status.is_true(ConditionType.STANDING_STILL),
            state_losses=status.state_losses,
            step=progress.step if progress is not None else None,
            steps=progress.steps if progress is not None else None,
            durable_step=progress.durable_step if progress is not None else None,
            loss=progress.loss if progress is not None else None,
            samples_per_second=progress.samples_per_second if progress is not None else None,
            seconds=status.goodput.seconds if status.goodput is not None else {},
            joules=total(used.joules) if used is not None else None,
            grams=_grams(used, _measure(obj)) if used is not None else {},
            cost=used.spent.amount if used is not None and used.spent is not None else None,
            avoided=used.avoided.grams if used is not None and used.avoided is not None else None,
            planned=_planned(status, _measure(obj)),
        )


def _grams(used: UsedEnergy, wished: str) -> dict[tuple[str, str], float]:
    measure = wished if wished in used.carbon else next(iter(sorted(used.carbon)), "")
    found = {("operational", measure): used.carbon[measure].grams} if measure else {}
    return found | ({("embodied", ""): used.embodied_grams} if used.embodied_grams is not None else {})


def _planned(status: TrainingJobStatus, wished: str) -> float | None:
    """Grams of another measure than those that are counted would stand beside them as if they were the same."""
    first = status.energy.first if status.energy is not None else None
    return first.grams if first is not None and first.measure in (None, wished) else None


def _measure(obj: dict[str, Any]) -> str:
    """By which intensity it is counted; the spec may be one that cannot be used."""
    energy = (obj.get("spec") or {}).get("energy")
    return str(energy.get("measure", "average")) if isinstance(energy, dict) else "average"


def count_change(metrics: OperatorMetrics, before: TrainingJobStatus, after: TrainingJobStatus) -> None:
    """Count what happened between two statuses, the second of which was just written. Once, whoever else leads."""
    if after.finished and not before.finished:
        metrics.job_finished("succeeded" if after.is_true(ConditionType.COMPLETE) else "failed")
    if after.recoveries > before.recoveries and after.last_recovery_seconds is not None:
        last = after.last_recovery
        metrics.recovered(
            last.cause if last is not None else RecoveryCause.UNKNOWN,
            after.last_recovery_seconds,
            {phase: getattr(last, f"{phase}_seconds") for phase in RECOVERY_PHASES} if last is not None else None,
        )
    if after.membership.term > before.membership.term and after.membership.replaced_for is not ReplacedFor.FIRST:
        metrics.coordinator_replaced(after.membership.replaced_for)
    for failure in after.failures:
        if failure.counted and failure not in before.failures:
            metrics.restarted(failure.reason)
