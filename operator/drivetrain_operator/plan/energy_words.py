"""PURE: a job's ledger of electricity as its status has it, and back."""

from __future__ import annotations

from datetime import datetime

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.energy import CLUSTER_TELLS
from drivetrain_api.energy_status import (
    AvoidedCarbon,
    AwaitedEnergy,
    CarbonUsed,
    CostUsed,
    CountedEnergy,
    ForeseenEnergy,
    IntensityTrace,
    UsedEnergy,
)
from drivetrain_api.figures import short
from drivetrain_api.older_python import UTC
from drivetrain_energy.accounts.awaited import Awaited
from drivetrain_energy.accounts.ledger import Covered, Drawn, Ledger
from drivetrain_energy.accounts.replay import Replayed, Trace
from drivetrain_energy.signals.signal import Measure
from drivetrain_energy.signals.spans import JOULES_A_KWH
from drivetrain_operator.plan.conditions import stamp

UNKNOWN = -1.0
"""Of an intensity: a list in a status has no gaps."""


def from_status(known: UsedEnergy | None) -> Ledger:
    """What is counted."""
    if known is None:
        return Ledger()
    told = known.counted
    spent, avoided = known.spent, known.avoided
    return Ledger(
        used=Drawn(known.joules, known.worker_seconds, known.seconds, known.refused),
        carbon={
            measure: Covered(each.grams, each.kwh, each.source, each.quality)
            for measure in (Measure.AVERAGE, Measure.MARGINAL)
            if (each := known.carbon.get(measure)) is not None
        },
        cost=Covered(spent.amount, spent.kwh) if spent is not None else None,
        currency=spent.currency if spent is not None else "",
        embodied=known.embodied_grams,
        replayed=Replayed(Measure(avoided.measure), avoided.replayed_grams, avoided.actual_grams)
        if avoided is not None
        else None,
        trace=Trace(told.trace.start, tuple(None if value < 0 else value for value in told.trace.values)),
        until=told.until.timestamp() if told.until is not None else None,
        term=told.term,
        told=Drawn(told.joules, told.worker_seconds, told.seconds, told.refused, told.uptime),
        awaited={
            source: Awaited(of.since, of.until, of.joules, of.worker_seconds)
            for source in CLUSTER_TELLS
            if (of := told.awaited.get(source)) is not None
        },
    )


def to_status(ledger: Ledger, *, why: str, prefers: Measure | None = None) -> UsedEnergy:
    """For people, and to go on from. `prefers`: by which intensity the job is planned."""
    used, told, replayed = ledger.used, ledger.told, ledger.replayed
    order = (prefers, Measure.AVERAGE, Measure.MARGINAL)
    carbon = next((ledger.carbon[each] for each in order if each is not None and each in ledger.carbon), None)
    cost = ledger.cost
    return UsedEnergy(
        kwh=short(used.total / JOULES_A_KWH) if used.seconds else "",
        grams=short(carbon.amount) if carbon is not None else "",
        cost=f"{short(cost.amount)} {ledger.currency[:16]}" if cost is not None else "",
        joules=_plain(used),
        worker_seconds=used.worker_seconds,
        seconds=used.seconds,
        refused=min(used.refused, MAX_EXACT),
        carbon={
            str(measure): CarbonUsed(
                grams=each.amount, kwh=each.kwh, source=each.source[:64], quality=each.quality[:16]
            )
            for measure, each in ledger.carbon.items()
        },
        embodied_grams=ledger.embodied,
        spent=CostUsed(amount=cost.amount, currency=ledger.currency[:16], kwh=cost.kwh) if cost is not None else None,
        avoided=AvoidedCarbon(
            grams=round(replayed.avoided, 3),
            replayed_grams=replayed.replayed,
            actual_grams=replayed.actual,
            measure=str(replayed.measure),
        )
        if replayed is not None
        else None,
        why=why[:512],
        counted=CountedEnergy(
            term=ledger.term,
            joules=_plain(told),
            worker_seconds=told.worker_seconds,
            seconds=told.seconds,
            refused=min(told.refused, MAX_EXACT),
            uptime=told.uptime,
            until=stamp(datetime.fromtimestamp(ledger.until, UTC)) if ledger.until is not None else None,
            trace=IntensityTrace(
                start=ledger.trace.start,
                values=[UNKNOWN if value is None else value for value in ledger.trace.values],
            ),
            awaited={
                str(source): AwaitedEnergy(
                    since=max(0.0, each.since),
                    until=max(0.0, each.until),
                    joules={component: dict(by_source) for component, by_source in each.joules.items()},
                    worker_seconds=each.worker_seconds,
                )
                for source, each in ledger.awaited.items()
            },
        ),
    )


def what_it_took(used: UsedEnergy, first: ForeseenEnergy | None = None) -> str:
    """What a job has used, in a sentence. `first`: what its first plan foresaw."""
    parts = [f"{used.kwh or '0'} kWh"]
    parts += [f"{short(each.grams)} g CO2e ({measure})" for measure, each in sorted(used.carbon.items())]
    parts += [used.cost] if used.cost else []
    if used.avoided is not None:
        word = "less" if used.avoided.grams >= 0 else "more"
        parts.append(f"{short(abs(used.avoided.grams))} g {word} than at once and without a pause")
    if first is not None:
        measure = f" ({first.measure})" if first.measure is not None and first.measure not in used.carbon else ""
        grams = f" and {short(first.grams)} g{measure}" if first.grams is not None else ""
        parts.append(f"its first plan foresaw {short(first.kwh)} kWh{grams}")
    return ", ".join(parts)


def _plain(drawn: Drawn) -> dict[str, dict[str, float]]:
    return {component: dict(by_source) for component, by_source in drawn.joules.items()}


__all__ = ["from_status", "to_status", "what_it_took"]
