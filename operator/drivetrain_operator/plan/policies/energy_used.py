"""How much electricity has the job used, and what did that emit and cost? Counted with whatever else is written, and
else every quarter of an hour: intensities and prices change that often.

What the plan does with it is none of this policy's business, and it decides nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from drivetrain_api.constants import ROLE_WORKER
from drivetrain_api.energy import WORKER_WATTS_AT_MOST
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.status import TrainingJobStatus
from drivetrain_energy.accounts.ledger import CARBON, Drawn, Site, Told, booked, embodied
from drivetrain_energy.signals.signal import Measure, Quality
from drivetrain_operator.plan.decision import Decision
from drivetrain_operator.plan.energy_words import from_status, to_status
from drivetrain_operator.plan.policies.finished import expired
from drivetrain_operator.plan.view import Supply, View

COUNT_SECONDS: Final = 900.0
"""Of a job that draws electricity, and ..."""
REST_SECONDS: Final = 3600.0
"""... of one that waits: what intensity there was meanwhile has to be remembered."""
SETTLE_SECONDS: Final = 30.0
"""Of one that has ended, and waits for Prometheus."""
YEAR_SECONDS: Final = 365.25 * 86_400
NO_SOURCE: Final = "no source of carbon intensity is set for its zone"


def energy_used(view: View, status: TrainingJobStatus) -> Decision:
    """status.energy.used."""
    known = status.energy.used if status.energy is not None else None
    told = _told(view)
    if known is None and told is None and not _may_wait(view):
        return Decision(status)
    before = from_status(known)
    draws = told is not None and (told.term > before.term or told.drawn.since(before.told).total > 0)
    draws = draws or before.pending  # what is waited for is looked at as often
    due = (COUNT_SECONDS if draws else REST_SECONDS) - _age(view.now, before.until)
    if status == view.job.status and known is not None and due > 0:
        return Decision(status, after=due if draws or _may_wait(view) else None)
    created = view.job.created.timestamp()
    site = _site(view, status)
    after = booked(before, told, created, view.now.timestamp(), site)
    used = to_status(after, why=_why(view.supply), prefers=site.prefers)
    energy = (status.energy if status.energy is not None else EnergyStatus()).model_copy(update={"used": used})
    after_that = COUNT_SECONDS if draws or after.pending else REST_SECONDS if _may_wait(view) else None
    return Decision(status.model_copy(update={"energy": energy}), after=after_that)


def energy_settled(view: View, status: TrainingJobStatus) -> Decision:
    """The same of a job that has ended, as long as something of it is waited for that Prometheus has yet to tell."""
    known = status.energy.used if status.energy is not None else None
    if known is None or not awaits(status):
        return Decision(status)
    before, site = from_status(known), _site(view, status)
    after = booked(before, None, view.job.created.timestamp(), view.now.timestamp(), site)
    if after.awaited == before.awaited:
        return Decision(status, after=SETTLE_SECONDS)
    used = to_status(after, why=known.why, prefers=site.prefers)
    assert status.energy is not None
    new = status.model_copy(update={"energy": status.energy.model_copy(update={"used": used})})
    return Decision(new, after=SETTLE_SECONDS if after.pending else None)


def awaits(status: TrainingJobStatus) -> bool:
    """Something is set aside until Prometheus tells of it."""
    used = status.energy.used if status.energy is not None else None
    return used is not None and from_status(used).pending


def _told(view: View) -> Told | None:
    """Also by a coordinator that is replaced in this very pass. By one that was replaced before, no more: its successor
    has been told up to where that one was counted, and counts from there."""
    if view.report is None or (energy := view.report.report.energy) is None:
        return None
    if view.report.report.term < view.job.status.membership.term:
        return None
    at = view.now.timestamp() - view.report.age_seconds
    drawn = Drawn(energy.joules, energy.worker_seconds, energy.seconds, energy.refused, energy.uptime)
    return Told(at, view.report.report.term, drawn)


def _may_wait(view: View) -> bool:
    """It may, and the intensity that counts for it changes: when it runs makes a difference."""
    wish = view.job.spec.energy if view.job.spec is not None else None
    signal = view.supply.signals.get(Measure(wish.measure)) if wish is not None else None
    return signal is not None and signal.quality in (Quality.FORECAST, Quality.HISTORY)


def _age(now: datetime, until: float | None) -> float:
    return now.timestamp() - until if until is not None else REST_SECONDS


def _site(view: View, status: TrainingJobStatus) -> Site:
    supply = view.supply
    workers = [pod for pod in view.pods if pod.role == ROLE_WORKER]
    wish = view.job.spec.energy if view.job.spec is not None else None
    return Site(
        signals=supply.signals,
        pue=supply.pue,
        embodied_grams_a_worker_second=_embodied(supply, [pod.node for pod in workers if pod.node and pod.live]),
        prefers=Measure(wish.measure) if wish is not None else None,
        # Some are on their way out, while their successors are there.
        workers_at_most=max(1, 2 * max(len(workers), status.workers.current, view.job.status.workers.current)),
        watts_at_most=WORKER_WATTS_AT_MOST,
        metered=supply.metered,
        ended=status.finished,
        last=expired(view, status),
    )


def _embodied(supply: Supply, nodes: list[str]) -> float | None:
    """Of a second of a worker: its share of its node, which the job is taken to have for itself."""
    if supply.embodied_kg is None or not supply.lifespan_years:
        return None
    share = len(set(nodes)) / len(nodes) if nodes else 1.0
    return embodied(1000 * supply.embodied_kg, 1.0, supply.lifespan_years * YEAR_SECONDS, share)


def _why(supply: Supply) -> str:
    """Why there are no grams; empty where there are."""
    signals = [supply.signals[measure] for measure in CARBON if measure in supply.signals]
    if any(signal.slots for signal in signals):
        return ""
    return next((signal.why for signal in signals if signal.why), "") or supply.why or NO_SOURCE


__all__ = ["COUNT_SECONDS", "REST_SECONDS", "SETTLE_SECONDS", "awaits", "energy_settled", "energy_used"]
