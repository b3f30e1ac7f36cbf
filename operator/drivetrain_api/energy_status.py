"""status.energy: how much electricity a job has used, what that emitted and cost, and how sure that is."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from drivetrain_api.energy import CLUSTER_TELLS, MAX_JOULES, Component, EnergySource
from drivetrain_api.energy_plan import MAX_MEASURED, EnergyCounting, EnergyMeasured, EnergyOrder, EnergyPlan, EnergyTry
from drivetrain_api.status_model import Count, Elapsed, Named, StatusModel, Time

MAX_TRACE: Final = 672
"""Quarters of an hour: a week."""
MAX_MONEY: Final = 1e15
MAX_INSTANT: Final = 1e11
"""Seconds since 1970."""
MAX_WORKER_SECONDS: Final = 1e13
"""4,096 workers for thirty years, and more."""


def _thousandths(by_source: dict[str, float]) -> dict[str, float]:
    """More digits would only make every write longer."""
    return {name: round(value, 3) for name, value in by_source.items()}


def _rounded(value: float) -> float:
    return round(value, 3)


Energy = Annotated[float, Field(ge=0, le=MAX_JOULES), AfterValidator(_rounded)]
Grams = Annotated[float, Field(ge=0, le=MAX_JOULES), AfterValidator(_rounded)]
Kwh = Annotated[float, Field(ge=0, le=MAX_JOULES), AfterValidator(lambda value: round(value, 6))]
Money = Annotated[float, Field(ge=-MAX_MONEY, le=MAX_MONEY), AfterValidator(lambda value: round(value, 6))]
BySource = Annotated[dict[str, Energy], Field(max_length=len(EnergySource)), AfterValidator(_thousandths)]
ByComponent = Annotated[dict[str, BySource], Field(max_length=len(Component))]
Measured = Annotated[Elapsed, AfterValidator(_rounded)]
Instant = Annotated[float, Field(ge=0, le=MAX_INSTANT), AfterValidator(_rounded)]
WorkerSeconds = Annotated[float, Field(ge=0, le=MAX_WORKER_SECONDS), AfterValidator(_rounded)]


class CarbonUsed(StatusModel):
    """What generating the electricity emitted, by one measure of intensity."""

    grams: Grams = Field(description="Of CO2 equivalent, operational.")
    kwh: Kwh = Field(description="For so much of the electricity, with the site's overhead, intensity was known.")
    source: str = Field(default="", max_length=64, description="Whose intensity it was last.")
    quality: str = Field(default="", max_length=16, description="What that was worth last: history, forecast, static.")


class CostUsed(StatusModel):
    """What the electricity cost by the tariff of the hour."""

    amount: Money = Field(description="Below zero where prices were.")
    currency: str = Field(max_length=16, description="As the tariff has it.")
    kwh: Kwh = Field(description="For so much of the electricity, with the site's overhead, a price was known.")


class AvoidedCarbon(StatusModel):
    """The same measured power, had the job run at once and without a pause since it was created. Over what both
    intensities were known of."""

    grams: float = Field(
        ge=-MAX_JOULES, le=MAX_JOULES, description="So much less was emitted than then; below zero: more."
    )
    replayed_grams: Grams = Field(description="That would have been emitted then.")
    actual_grams: Grams = Field(description="That were emitted.")
    measure: str = Field(max_length=16, description="By which measure of intensity: average or marginal.")


class IntensityTrace(StatusModel):
    """Intensities since the moment that the replay has come to, as they were when they were current."""

    start: Count = Field(default=0, description="Quarter of an hour, since 1970, of the first value.")
    values: list[Annotated[float, Field(ge=-1, le=1e6), AfterValidator(lambda value: round(value, 1))]] = Field(
        default_factory=list, max_length=MAX_TRACE, description="Grams a kWh in each; -1: not known."
    )


class AwaitedEnergy(StatusModel):
    """What workers have told, or not, of what one of the cluster's exporters knows better. It is not counted yet."""

    since: Instant = Field(
        default=0.0,
        description="Up to there all is counted, by Prometheus' clock; 0: that is not known, and until is a duration.",
    )
    until: Instant = Field(default=0.0, description="Up to there workers have told, by Prometheus' clock.")
    joules: ByComponent = Field(default_factory=dict, description="What workers told of it.")
    worker_seconds: WorkerSeconds = Field(default=0.0, description="For how long they were measured, all together.")


class CountedEnergy(StatusModel):
    """What the operator remembers over its own death, and its coordinator's."""

    term: Named = Field(default=0, description="Term of the coordinator that told last.")
    joules: ByComponent = Field(
        default_factory=dict, description="Joules of that term that are counted, by component and source."
    )
    worker_seconds: WorkerSeconds = Field(default=0.0, description="The same of workers' time.")
    seconds: Measured = Field(default=0.0, description="The same of time in which at least one was measured.")
    refused: Count = Field(default=0, description="The same of readings that cannot be.")
    uptime: Measured = Field(
        default=0.0, description="Seconds since that term began, by its coordinator's clock, up to which it is counted."
    )
    until: Time | None = Field(default=None, description="When it was counted last.")
    trace: IntensityTrace = Field(default=IntensityTrace(), description="For `avoided`, of a job that waited.")
    awaited: dict[Annotated[str, Field(max_length=16)], AwaitedEnergy] = Field(
        default_factory=dict,
        max_length=len(CLUSTER_TELLS),
        description="By source, dcgm or kepler: what is counted once Prometheus has told of that time.",
    )


class UsedEnergy(StatusModel):
    """Up to the last count. What the job's devices drew; grams and cost with the site's overhead (PUE)."""

    kwh: str = Field(default="", max_length=16, description="Kilowatt-hours, for kubectl get.")
    grams: str = Field(default="", max_length=16, description="Grams of CO2 equivalent, for kubectl get.")
    cost: str = Field(default="", max_length=32, description="Cost, for kubectl get.")
    joules: ByComponent = Field(
        default_factory=dict,
        description=f"By component ({', '.join(Component)}) and source ({', '.join(EnergySource)}).",
    )
    worker_seconds: WorkerSeconds = Field(default=0.0, description="For how long workers were measured, all together.")
    seconds: Measured = Field(default=0.0, description="For how long at least one worker was measured.")
    refused: Count = Field(default=0, description="Readings that cannot be, and were cut or left out.")
    carbon: dict[Annotated[str, Field(max_length=16)], CarbonUsed] = Field(
        default_factory=dict, max_length=2, description="Operational, by measure: average or marginal; never added up."
    )
    embodied_grams: Grams | None = Field(
        default=None, description="The job's share of what making its nodes emitted (SCI: TE·(TiR/EL)·(RR/ToR))."
    )
    spent: CostUsed | None = Field(default=None, description="Cost of the electricity.")
    avoided: AvoidedCarbon | None = Field(default=None, description="Beside running at once.")
    why: str = Field(default="", max_length=512, description="Why there are no grams, or no more.")
    counted: CountedEnergy = Field(
        default=CountedEnergy(), description="How much of what coordinators tell is already counted."
    )


class ForeseenEnergy(StatusModel):
    """What all of the job takes: what it had used when the plan was made, and what that plan takes."""

    made: Time = Field(description="When the plan was made.")
    finish: Time = Field(description="When the job is done by it.")
    kwh: Kwh = Field(description="Of its devices, without the site's overhead: as used.")
    grams: Grams | None = Field(default=None, description="Of CO2 equivalent, operational; absent: not known.")
    measure: Literal["average", "marginal"] | None = Field(
        default=None, description="By which intensity grams are; absent: nobody wrote it down."
    )
    cost: Money | None = Field(default=None, description="By the tariff; absent: not known.")


class EnergyStatus(StatusModel):
    """A job's electricity."""

    used: UsedEnergy | None = Field(default=None, description="What it has used, up to the last write.")
    plan: EnergyPlan | None = Field(default=None, description="With spec.energy and a deadline: when it is to run.")
    order: EnergyOrder | None = Field(default=None, description="How it is to run now, if not as spec.workers says.")
    measured: list[EnergyMeasured] = Field(
        default_factory=list, max_length=MAX_MEASURED, description="What it did at each number of workers."
    )
    tried: EnergyTry | None = Field(default=None, description="The one try at another size, of a job without profile.")
    first: ForeseenEnergy | None = Field(default=None, description="What the first plan foresaw of the whole job.")
    foreseen: ForeseenEnergy | None = Field(default=None, description="The same of the plan that holds.")
    counting: EnergyCounting | None = Field(default=None, description="What its pace is measured from.")
    pace_paid: Annotated[float, Field(ge=0, le=1e12)] = Field(
        default=0.0, description="Until when writes are paid for that its pace alone was worth, in seconds since 1970."
    )
    summary: str = Field(default="", max_length=40, description="The order, for kubectl get.")
