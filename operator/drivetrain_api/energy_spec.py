"""TrainingJob.spec.energy: when the job must be done, and what may be saved on the way there.

Sources of carbon intensity, tariffs and power domains are the platform's (`energy_settings`); here stands only what one
job wishes. It may change at any time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from drivetrain_api.model import SpecModel

Objective = Literal["carbon", "cost", "energy", "time"]
OnExceed = Literal["warn", "shrink", "suspend"]
MAX_POINTS = 64


def moment(text: str) -> datetime:
    """The time that an RFC 3339 timestamp means. Raises ValueError for a day, or an hour, that there is not."""
    return datetime.fromisoformat(text.upper().replace("Z", "+00:00"))


def _real(text: str) -> str:
    moment(text)
    return text


Moment = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        json_schema_extra={"format": "date-time"},
    ),
    AfterValidator(_real),
]


class EnergyPoint(SpecModel):
    """What the job does, and draws, with so many workers."""

    workers: int = Field(ge=1, le=4096, description="Workers.")
    steps_per_second: float = Field(gt=0, le=1_000_000, description="Steps a second with so many workers.")
    watts: float = Field(gt=0, le=1_000_000_000, description="Watts of all of them together.")
    cap_watts: float | None = Field(
        default=None, gt=0, le=10_000, description="Power cap of each GPU at which this holds. Default: none."
    )


class EnergyBudget(SpecModel):
    """What the job may take in all."""

    grams: float | None = Field(
        default=None, gt=0, le=1e12, description="Grams of CO2 equivalent, operational. Default: no bound."
    )
    kilowatt_hours: float | None = Field(default=None, gt=0, le=1e9, description="Kilowatt-hours. Default: no bound.")
    cost: float | None = Field(
        default=None, gt=0, le=1e12, description="Money, in the currency of its zone's tariff. Default: no bound."
    )
    on_exceed: OnExceed = Field(
        default="warn",
        description="What follows when a bound is reached. warn: an event. shrink: the job goes on with "
        "elastic.minWorkers. suspend: it is suspended until the budget is raised, deadline or not. The first two give "
        "way to the deadline.",
    )


class EnergyPower(SpecModel):
    """How much of its power may be taken from it. Caps are set by node agents; without them they are advice."""

    cap_watts: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Power cap of each of its GPUs, always, within what the card takes. Plans, a limited domain and "
        "heat may order a lower one. Default: none.",
    )
    max_slowdown_percent: int = Field(
        default=100,
        ge=0,
        le=100,
        description="How much of its pace at a number of workers a power cap of the plan may cost; points of the "
        "profile that are slower are not planned with. A limited domain may ask for more.",
    )


class Energy(SpecModel):
    """When the job must be done, and what may be saved on the way there."""

    objective: Objective = Field(
        default="carbon",
        description="What is to be least. carbon: grams of CO2 equivalent. cost: money, by the tariff of its zone. "
        "energy: joules. time: nothing is waited for; the job is only accounted for.",
    )
    deadline: Moment | None = Field(
        default=None,
        description="When the job must be done. Without it, and without maxCompletionFactor, it waits for nothing.",
    )
    max_completion_factor: float | None = Field(
        default=None,
        ge=1,
        le=100,
        description="The deadline as a multiple of how long the job takes with spec.workers and no wait, from its "
        "creation on. Not beside deadline.",
    )
    max_start_delay_seconds: int | None = Field(
        default=None, ge=0, le=31_536_000, description="How long its first start may wait. Default: as the plan has it."
    )
    suspend: bool = Field(
        default=True,
        description="Whether it may be suspended once it has trained. That needs spec.snapshots, so that no step is "
        "lost; without them it only starts later and shrinks.",
    )
    min_run_seconds: int = Field(
        default=900, ge=0, le=86_400, description="How long it runs at least, once started or resumed."
    )
    margin_percent: int = Field(
        default=10,
        ge=0,
        le=100,
        description="Work that is planned for beyond what is left: machines are slower some days.",
    )
    zone: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]*$",
        description="Zone of the grid that it draws from, as the platform's sources name it. Default: the platform's "
        "first.",
    )
    measure: Literal["average", "marginal"] = Field(
        default="average",
        description="Which carbon intensity counts: that of all generation, or that of one kilowatt-hour more. The two "
        "are never mixed.",
    )
    tier: int = Field(
        default=2,
        ge=1,
        le=3,
        description="What it gives when the platform must draw less power: 1 keeps at least 0.9 of its pace as long as "
        "others can give, 2 keeps 0.7, 3 keeps 0.5.",
    )
    profile: list[EnergyPoint] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_POINTS,
        description="What it does and draws at numbers of workers. Default: measured as it runs, and assumed before.",
    )
    budget: EnergyBudget = Field(default=EnergyBudget(), description="What it may take in all.")
    power: EnergyPower = Field(default=EnergyPower(), description="How much of its power may be taken from it.")


__all__ = ["MAX_POINTS", "Energy", "EnergyBudget", "EnergyPoint", "EnergyPower", "Objective", "moment"]
