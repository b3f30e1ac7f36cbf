"""status.energy: the plan, what is done by it now, and what was measured for it. It outlives the operator."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from drivetrain_api.bounds import MAX_EXACT
from drivetrain_api.spec import MAX_WORKERS
from drivetrain_api.status_model import Named, StatusModel, Text, Time

MAX_SLOTS: Final = 200
MAX_MEASURED: Final = 16
MAX_VALUES: Final = 168
Amount = Annotated[float, Field(ge=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=MAX_WORKERS)]


class EnergySlot(StatusModel):
    """From its start to the next one's, the job is to run so."""

    start: Time = Field(description="When it begins.")
    workers: Count = Field(description="Workers; 0: it is suspended, or not started yet.")
    cap_watts: Amount | None = Field(default=None, description="Power cap of each GPU; absent: none.")
    steps_per_second: Amount = Field(default=0.0, description="What is expected, with what starting takes off it.")
    watts: Amount = Field(default=0.0, description="What is expected of all its workers together.")


class EnergyTotals(StatusModel):
    """What a plan takes, with the site's overhead (PUE)."""

    kwh: Amount = Field(description="Electricity.")
    grams: Amount | None = Field(default=None, description="CO2 equivalent; absent where no intensity is known.")
    cost: Annotated[float, Field(ge=-1e15, le=1e15)] | None = Field(
        default=None, description="By the tariff; absent where there is none."
    )
    node_hours: Amount = Field(description="Workers, times hours.")


class EnergySignal(StatusModel):
    """What was known, when the plan was made, of the hours to its deadline: while no source answers it is planned anew
    by that."""

    start: Time = Field(description="When the first value begins to hold.")
    seconds: Annotated[float, Field(gt=0, le=1e12)] = Field(description="How long each of them holds.")
    values: list[Annotated[float, Field(ge=-1e9, le=1e9)]] = Field(
        max_length=MAX_VALUES, description="Grams a kilowatt-hour, or money."
    )


class EnergyHeld(StatusModel):
    """What the limit of its power domain left the job when the plan was made."""

    until: Time = Field(description="When the limit ends.")
    workers: Count = Field(description="Workers that it may have until then; 0: none.")
    pace: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Share of their pace, under the limit's power cap."
    )


class EnergyPlan(StatusModel):
    """When, and with how many workers, the job is to run."""

    made: Time = Field(description="When it was made.")
    mode: Literal["planned", "now", "flat-out"] = Field(
        description="planned: the least of the objective. now: at once, at the usual size, as nothing known justifies "
        "a wait. flat-out: as fast as can be, for the deadline."
    )
    deadline: Time = Field(description="When the job must be done.")
    asked: str = Field(default="", max_length=64, description="What of spec.energy the deadline follows from.")
    finish: Time = Field(description="When it is done, if all goes as planned.")
    meets_deadline: bool = Field(description="Whether that is in time.")
    steps: Amount = Field(description="Steps that were left when it was made.")
    expected: EnergyTotals = Field(description="What it takes.")
    usual: EnergyTotals = Field(description="What the same work takes at once, at the usual size.")
    measure: Literal["average", "marginal", "price"] | None = Field(default=None, description="What grams are of.")
    vintages: list[Annotated[float, Field(ge=0, le=1e12)]] = Field(
        default_factory=list,
        max_length=2,
        description="When the signals were made that it is of, in seconds since 1970.",
    )
    why: Text = Field(default="", description="For a person.")
    end: Time = Field(description="When its last slot ends.")
    signal: EnergySignal | None = Field(
        default=None, description="The signal that it is of; absent where it waits for none."
    )
    held: EnergyHeld | None = Field(
        default=None, description="The limit that it was made with; absent: none, or nobody says until when it holds."
    )
    slots: list[EnergySlot] = Field(default_factory=list, max_length=MAX_SLOTS, description="By time.")


class EnergyMeasured(StatusModel):
    """What the job did with so many workers."""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = Field(description="Workers.")
    steps_per_second: Annotated[float, Field(ge=1e-9, le=1e6)] = Field(description="Steps a second, of late.")
    seconds: Annotated[float, Field(ge=0, le=1e9)] = Field(
        default=0.0, description="Over so long; what was before counts no more."
    )


class EnergyCounting(StatusModel):
    """From where on the steps of the pace are counted that is measured now: of one membership, less its first ones."""

    term: Named = Field(description="Term of the membership.")
    epoch: Named = Field(description="Its number in that term.")
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = Field(description="Workers that it has.")
    step: Annotated[int, Field(ge=0, le=MAX_EXACT)] = Field(description="The step from which on.")
    at: Annotated[float, Field(ge=0, le=1e12)] = Field(description="When that was, in seconds since 1970.")
    warm: bool = Field(default=False, description="Its first steps are over.")
    apart: Literal[-1, 0, 1] = Field(
        default=0, description="Whether what was measured last was slower (-1), or faster (1), by more than noise."
    )


class EnergyTry(StatusModel):
    """Another number of workers than the plan's, for some minutes, once: to know how the job scales."""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = Field(description="Workers that are tried.")
    began: Time = Field(description="Since when.")
    over: bool = Field(default=False, description="It has ended; there is no second one.")


class EnergyOrder(StatusModel):
    """How the job is to run now."""

    workers: Count = Field(description="Workers; 0: none.")
    cap_watts: Amount | None = Field(default=None, description="Power cap of each GPU; absent: none.")
    by: Literal["plan", "deadline", "budget", "limit"] = Field(description="What decides.")
    why: Text = Field(default="", description="For a person.")


__all__ = [
    "MAX_MEASURED", "MAX_SLOTS", "MAX_VALUES", "EnergyCounting", "EnergyHeld", "EnergyMeasured", "EnergyOrder",
    "EnergyPlan", "EnergySignal", "EnergySlot", "EnergyTotals", "EnergyTry",
]  # fmt: skip
