"""What all models of a TrainingJob's status have in common: bounds of its fields, and their base."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from drivetrain_api.bounds import MAX_EXACT, MAX_NAMED, MAX_SECONDS
from drivetrain_api.older_python import UTC

FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""What is later, in a zone behind UTC, UTC cannot express. Of times that are still to come, see `plan.clocks`."""


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _possible(time: datetime) -> datetime:
    if not FIRST <= time <= LAST:
        raise ValueError(f"{time.isoformat()} is no time at which an operator can have written it")
    return time


Time = Annotated[AwareDatetime, AfterValidator(_possible), PlainSerializer(_stamp, return_type=str)]
Text = Annotated[str, Field(max_length=4096)]
Reason = Annotated[str, Field(max_length=64)]
Count = Annotated[int, Field(ge=0, le=MAX_EXACT)]
Named = Annotated[int, Field(ge=0, le=MAX_NAMED)]
Elapsed = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
"""Seconds."""
Signed32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class StatusModel(BaseModel):
    """Base of all status models: camelCase on the wire, frozen, tolerant of fields that a newer operator wrote."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
