"""What is asked of the planner: the work that is left, how it can be run, until when, what a kilowatt-hour is worth.

Errors: `RequestInvalid`, which names the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.held import Held
from drivetrain_energy.signals.signal import Measure, Signal

JOULES_PER_KWH = 3.6e6
HORIZON = 92 * 86400.0
"""No plan looks farther ahead, in seconds: no signal says anything of then."""
LEAST_PACE = 1e-9
"""Steps a second, and ..."""
LEAST_WATTS = 1e-6
"""... watts, of a way to run: below them products and quotients leave the range of a float."""
MOST_STEPS = 1e15
"""As many as a status can carry."""


class RequestInvalid(ValueError):
    """The request cannot be planned; the message begins with the field that is wrong."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a plan makes small: a sum of these weights. At least one is above zero, or `time` is set."""

    carbon: float = 0.0
    """Of a gram."""
    cost: float = 0.0
    """Of a unit of the tariff's currency."""
    energy: float = 0.0
    """Of a kilowatt-hour."""
    node_hour: float = 0.0
    """Of an hour of one worker's node, in the unit of the others: in the cloud it is dearer than its electricity."""
    time: bool = False
    """Be done as soon as possible, whatever the rest."""


CARBON = Objective(carbon=1.0)
COST = Objective(cost=1.0)
ENERGY = Objective(energy=1.0)
TIME = Objective(time=True)


@dataclass(frozen=True, slots=True)
class Switch:
    """Seconds in which a job draws watts without a step, each time that it …"""

    suspend: float = 0.0
    """… ends its workers."""
    resume: float = 0.0
    """… starts them again."""
    resize: float = 0.0
    """… goes on with more or fewer workers."""


@dataclass(frozen=True, slots=True)
class Request:
    """One job, as it stands at `now`."""

    now: float
    """Seconds since the epoch."""
    work_steps: float
    """What is left to do."""
    curve: Curve
    """Every way in which it may run: bounds of its spec are applied by who asks."""
    signal: Signal | None = None
    """Carbon intensity, average or marginal. None, or of a quality that may not make a job wait: then it does not."""
    tariff: Signal | None = None
    """Price of a kilowatt-hour (`Measure.PRICE`)."""
    deadline: float | None = None
    """When it must be done. None: as late as its usual size takes after `max_start_delay`; keep `Plan.deadline` then,
    and give that from the second plan on, or it moves with `now`."""
    usual_workers: int | None = None
    """How many workers it has when nobody plans; None: as many as bring most. Also what savings are counted from."""
    min_run: float = 0.0
    """Seconds that it runs at least once started or resumed."""
    may_suspend: bool = True
    """False: once started it runs to its end; it may still wait and change its size."""
    max_start_delay: float | None = None
    """Seconds from `now` that it may wait for its first step; None: as long as the deadline allows. Ignored once
    `started`."""
    started: bool = False
    """It has run before."""
    running_since: float | None = None
    """Since when it has had workers; None: it has none now, and starting them is charged."""
    margin: float = 0.1
    """Share of the work that is planned for on top."""
    reserve: float = 0.0
    """Seconds before the deadline in which nothing is planned; the guard keeps them for what goes wrong."""
    switch: Switch = Switch()
    pue: float = 1.0
    """What the building draws for each watt of the machines."""
    objective: Objective = CARBON
    held: Held | None = None
    """What a limit of its power domain lets it do for now, if it is known until when."""

    def usual(self) -> float:
        """Steps a second when nobody plans."""
        sizes = [point.throughput for point in self.curve if point.workers == self.usual_workers]
        return max(sizes or [point.throughput for point in self.curve])


def check(request: Request) -> None:
    """Raise `RequestInvalid` for what cannot be planned."""
    _finite("now", request.now)
    for name in ("work_steps", "min_run", "margin", "reserve"):
        _not_negative(name, getattr(request, name))
    if request.work_steps > MOST_STEPS:
        raise RequestInvalid(f"work_steps: {request.work_steps:g} are left, and at most {MOST_STEPS:g} can be planned")
    for name in ("suspend", "resume", "resize"):
        _not_negative(f"switch.{name}", getattr(request.switch, name))
    if request.max_start_delay is not None:
        _not_negative("max_start_delay", request.max_start_delay)
    if request.deadline is not None:
        _finite("deadline", request.deadline)
    if not (math.isfinite(request.pue) and request.pue >= 1):
        raise RequestInvalid(f"pue: {request.pue:g} is below 1: a building draws what its machines draw, and more")
    if request.running_since is not None:
        _finite("running_since", request.running_since)
    if request.held is not None:
        _finite("held.until", request.held.until)
    _check_curve(request.curve)
    _check_objective(request)


def _check_curve(curve: Curve) -> None:
    if not any(point.throughput > 0 for point in curve):
        raise RequestInvalid("curve: no point makes progress")
    for point in curve:
        where = f"curve: {point.workers} workers"
        if point.workers < 0 or not all(map(math.isfinite, (point.throughput, point.watts))):
            raise RequestInvalid(f"{where}: not a number of workers, steps a second and watts")
        if point.throughput < 0 or point.watts < 0 or (point.throughput > 0 and not point.workers):
            raise RequestInvalid(f"{where}: {point.throughput:g} steps/s at {point.watts:g} W cannot be")
        if 0 < point.throughput < LEAST_PACE or 0 < point.watts < LEAST_WATTS:
            least = f"{LEAST_PACE:g} steps/s at {LEAST_WATTS:g} W"
            raise RequestInvalid(f"{where}: {point.throughput:g} steps/s at {point.watts:g} W, of {least} at least")


def _check_objective(request: Request) -> None:
    weights = request.objective
    for name in ("carbon", "cost", "energy", "node_hour"):
        _not_negative(f"objective.{name}", getattr(weights, name))
    if not (weights.time or weights.carbon or weights.cost or weights.energy or weights.node_hour):
        raise RequestInvalid("objective: every weight is 0")
    if request.signal is not None and request.signal.measure is Measure.PRICE:
        raise RequestInvalid("signal: is a price; it belongs into tariff")
    if request.tariff is not None and request.tariff.measure is not Measure.PRICE:
        raise RequestInvalid("tariff: is no price; it belongs into signal")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise RequestInvalid(f"{name}: {value} is not a time")


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise RequestInvalid(f"{name}: {value:g} is below 0, or no number")


__all__ = [
    "CARBON",
    "COST",
    "ENERGY",
    "HORIZON",
    "JOULES_PER_KWH",
    "LEAST_PACE",
    "TIME",
    "Objective",
    "Request",
    "RequestInvalid",
    "Switch",
    "check",
]
