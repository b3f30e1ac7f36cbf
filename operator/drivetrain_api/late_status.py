"""Part of a job's status: where the ranks are that hold it up."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from drivetrain_api.status_model import Count, StatusModel

MAX_LATE_STACK: Final = 2000


class LateRankStatus(StatusModel):
    """A rank that holds the others up, as its launcher saw it."""

    rank: Count = Field(description="Its rank.")
    process: str = Field(default="", max_length=160, description="Id of the rank process.")
    pod: str = Field(default="", max_length=253, description="Pod in which it runs.")
    node: str = Field(default="", max_length=253, description="Node on which it runs.")
    where: str = Field(default="", max_length=200, description="The line of its script, such as `data.py:33 in load`.")
    collective: str = Field(
        default="", max_length=200, description="The collective that it is in, or the last one that it was in."
    )
    stack: str = Field(
        default="", max_length=MAX_LATE_STACK, description="The end of its threads' stacks, that of the script last."
    )
