"""PURE: what is the planner asked for this job? Or why is there nothing to ask."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Final

from drivetrain_api.energy import CLUSTER_TELLS, Component
from drivetrain_api.energy_spec import Energy, moment
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.held import Held
from drivetrain_energy.job.held import known as held
from drivetrain_energy.job.request import CARBON, COST, ENERGY, LEAST_PACE, TIME, Objective, Request, Switch
from drivetrain_energy.signals.signal import Measure, Signal
from drivetrain_operator.plan.energy.curve import profile
from drivetrain_operator.plan.energy.stamps import written_time
from drivetrain_operator.plan.energy.written import from_status, held_of
from drivetrain_operator.plan.steps import steps_done
from drivetrain_operator.plan.view import PowerOrder, View

OBJECTIVES: Final[dict[str, Objective]] = {"carbon": CARBON, "cost": COST, "energy": ENERGY, "time": TIME}
START_SECONDS: Final = 30.0
"""Assumed of a job that never started: until its first step."""
RESERVED_SLOTS: Final = 2
"""Of the signal, before the deadline: with the margin, none of the runs of `make bench-energy` is late."""
RESERVED_SHARE: Final = 0.1
"""Of the time between creation and deadline, at most: a deadline in two hours must leave something to plan."""


@dataclass(frozen=True, slots=True)
class Unasked:
    """Why no plan can be made."""

    reason: str
    """In one CamelCase word."""
    message: str


def asked(view: View, status: TrainingJobStatus, spec: TrainingJobSpec, energy: Energy) -> Request | Unasked:
    """The request of this moment."""
    if energy.deadline is None and energy.max_completion_factor is None:
        return Unasked(
            "NoDeadline", "neither spec.energy.deadline nor maxCompletionFactor is set: it waits for nothing"
        )
    total = spec.training.steps
    if total is None:
        return Unasked("StepsUnknown", "spec.training.steps is not set: nobody knows how much work is left")
    known = status.energy or EnergyStatus()
    ways = profile(spec, known.measured, worker_watts(known), view.supply.sets_caps).curve()
    if not ways:
        return Unasked("PaceUnknown", "its pace is measured first: there is no spec.energy.profile, and no step yet")
    now, created = view.now.timestamp(), view.job.created.timestamp()
    base = target_workers(spec)
    deadline = _deadline(view, energy, known, ways, base, total)
    started = status.membership.term > 0
    running = started and status.start_time is not None
    signal = view.supply.signals.get(Measure(energy.measure))
    delay = energy.max_start_delay_seconds
    return Request(
        now=now,
        work_steps=_left(view, status, spec, known, total),
        curve=ways,
        signal=signal,
        tariff=view.supply.signals.get(Measure.PRICE),
        deadline=deadline,
        usual_workers=base,
        min_run=float(energy.min_run_seconds),
        may_suspend=may_rest(spec, energy, status),
        max_start_delay=max(0.0, created + delay - now) if delay is not None else None,
        started=started,
        running_since=min(status.start_time.timestamp(), now) if running and status.start_time is not None else None,
        margin=energy.margin_percent / 100,
        reserve=_reserve(signal, created, deadline),
        switch=_switch(status),
        pue=max(1.0, view.supply.pue),
        objective=OBJECTIVES[energy.objective],
        held=_held(view, known, now),
    )


def held_back(order: PowerOrder, now: float) -> Held | None:
    """What a limit of its power domain lets it do, if it is known until when."""
    return held(order.until, order.workers, order.pace, now)


def _held(view: View, known: EnergyStatus, now: float) -> Held | None:
    """Who leads since a moment ago, and has not looked for limits yet, goes by what the plan was made with."""
    if view.supply.order is not None:
        return held_back(view.supply.order, now)
    before = held_of(known.plan) if known.plan is not None and not view.supply.limits_known else None
    return held(before.until, before.workers, before.pace, now) if before is not None else None


def may_rest(spec: TrainingJobSpec, energy: Energy, status: TrainingJobStatus) -> bool:
    """Whether it may be suspended once it has trained: only where that costs no step. Scripts that torchrun runs have
    no snapshots, also where spec.snapshots is set; and for now a job has none whose storage takes nothing."""
    keeps = status.runtime != "torchrun" and not status.is_true(ConditionType.SNAPSHOTS_FAILING)
    return energy.suspend and spec.snapshots is not None and (keeps or status.is_true(ConditionType.SUSPENDED))


def source(spec: TrainingJobSpec, energy: Energy) -> str:
    """What of a job's wishes its plan follows from: others make another plan. What signals and measurements tell has
    its own measure of news, and budgets and tiers are heard beside the plan."""
    rest = energy.model_dump_json(exclude={"deadline", "max_completion_factor", "profile", "budget", "tier"})
    return f"{_due(energy)}; {zlib.crc32(f'{rest} {spec.snapshots is not None}'.encode()):08x}"


def _due(energy: Energy) -> str:
    """What the deadline follows from: another one makes another deadline."""
    return energy.deadline if energy.deadline is not None else f"factor {energy.max_completion_factor:g}"


def _left(view: View, status: TrainingJobStatus, spec: TrainingJobSpec, known: EnergyStatus, total: int) -> float:
    """Steps. Who is resumed goes on from its snapshots: until it tells its first step, what the plan left holds."""
    if (done := steps_done(view, status)) is not None:
        return float(max(0, total - done))
    if known.plan is None or spec.snapshots is None or not status.membership.term or status.start_time is None:
        return float(total)
    plan = from_status(known.plan)
    left = plan.work_steps - plan.steps_by(status.start_time.timestamp())
    return float(min(math.ceil(left - 1e-6), total))  # whole steps: a sum of floats leaves a hair of one


def _deadline(view: View, energy: Energy, known: EnergyStatus, ways: Curve, base: int, total: int) -> float:
    if energy.deadline is not None:
        return written_time(moment(energy.deadline).timestamp()).timestamp()  # or what is written would be another
    if known.plan is not None and known.plan.asked.partition(";")[0] == _due(energy):
        return known.plan.deadline.timestamp()  # or it would move with what is measured
    factor = energy.max_completion_factor or 1.0
    pace = max((p.throughput for p in ways if p.workers == base), default=max(p.throughput for p in ways))
    return view.job.created.timestamp() + START_SECONDS + factor * total / max(pace, LEAST_PACE)


def worker_watts(known: EnergyStatus) -> float | None:
    """What a worker drew on average, once a minute of each of its components was measured: of a time that waits for
    Prometheus nothing is counted yet."""
    if known.used is None:
        return None
    used, watts = known.used, 0.0
    late = {
        component: of.worker_seconds
        for source, components in CLUSTER_TELLS.items()
        if (of := used.counted.awaited.get(source)) is not None
        for component in components
    }
    for component in Component:
        seconds = used.worker_seconds - late.get(component, 0.0)
        if seconds < 60:
            return None
        watts += sum(used.joules.get(component, {}).values()) / seconds
    return watts or None


def _reserve(signal: Signal | None, created: float, deadline: float) -> float:
    most = RESERVED_SHARE * max(0.0, deadline - created)
    if signal is None or not signal.slots:
        return most
    lengths = sorted(slot.end - slot.start for slot in signal.slots)
    return min(RESERVED_SLOTS * lengths[len(lengths) // 2], most)


def _switch(status: TrainingJobStatus) -> Switch:
    """What this job's own starts took, where that was counted."""
    took = START_SECONDS
    if status.goodput is not None:
        seconds = status.goodput.seconds
        counted = seconds.get("starting", 0.0) + seconds.get("forming", 0.0)
        if seconds.get("productive"):
            took = counted / (status.attempt + 1)
    took = min(took, 3600.0)
    stock = status.runtime == "torchrun"  # all its ranks start again, from its own last checkpoint
    return Switch(suspend=2.0, resume=took, resize=took if stock else 1.0)


__all__ = ["START_SECONDS", "Unasked", "asked", "held_back", "may_rest", "source", "worker_watts"]
