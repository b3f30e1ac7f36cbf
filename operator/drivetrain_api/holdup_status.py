"""status.holdUp: the rank for which the others wait in every step."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from drivetrain_api.holdup import MAX_LATE
from drivetrain_api.status_model import Count, Elapsed, StatusModel, Time


class HoldUpStatus(StatusModel):
    """Written when it begins, is another one, changes much, or is over."""

    rank: Count = Field(description="Its rank.")
    pod: str = Field(default="", max_length=253, description="Pod in which it runs.")
    node: str = Field(default="", max_length=253, description="Node on which it runs.")
    process: str = Field(default="", max_length=160, description="Id of the rank process.")
    stage: str = Field(
        default="",
        max_length=64,
        description="In what it takes longer: data, forward, backward, exchange, update, snapshot or script; empty if "
        "it is not one alone.",
    )
    slower_by_seconds: Elapsed = Field(default=0.0, description="By which each step is longer for it.")
    share: float = Field(default=0.0, ge=0, le=1, description="The same, of a step.")
    ranks: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(
        default_factory=list,
        max_length=MAX_LATE,
        description="Ranks that are about as late: more than one if it is ambiguous.",
    )
    since: Time = Field(description="When the operator heard of it.")
    message: str = Field(default="", max_length=1024, description="All of it, for a person.")
