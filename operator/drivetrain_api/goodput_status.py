"""status.goodput: a job's time by category, and how much of what coordinators tell of it is in there."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from drivetrain_api.goodput import Category
from drivetrain_api.status_model import Count, Elapsed, Named, StatusModel

_MOST = len(Category)


def _milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    """More digits would only make every write longer."""
    return {name: round(value, 3) for name, value in seconds.items()}


Seconds = Annotated[dict[str, Elapsed], AfterValidator(_milliseconds)]


class CountedTime(StatusModel):
    """What the operator remembers over its own death, and its coordinator's."""

    standing: Category | None = Field(
        default=None,
        description="Category of the time that is not counted yet, by what the operator itself sees; absent while it "
        "is the coordinator's to tell.",
    )
    term: Named = Field(default=0, description="Term of the coordinator that told last.")
    told: Seconds = Field(
        default_factory=dict, max_length=_MOST, description="Seconds of that term that are counted, by category."
    )
    steps: Count = Field(
        default=0, description="Most steps that were ever made before training went back: up to there they are redone."
    )


class GoodputStatus(StatusModel):
    """Seconds since the job was created."""

    ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Productive part of the time. Absent while nobody told of a step.",
    )
    summary: str = Field(default="", max_length=16, description="The same as a percentage, for kubectl get.")
    seconds: Seconds = Field(
        default_factory=dict,
        max_length=_MOST,
        description=", ".join(Category) + ": seconds in each, together those since creation up to the last count.",
    )
    counted: CountedTime = Field(
        default=CountedTime(), description="How much of what coordinators tell is already counted."
    )
