"""What all models of a TrainingJob's spec have in common."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

INT32_MAX: Final = 2**31 - 1


class SpecModel(BaseModel):
    """Base of all spec models: camelCase on the wire, frozen, unknown fields ignored (the API server prunes them)."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )
