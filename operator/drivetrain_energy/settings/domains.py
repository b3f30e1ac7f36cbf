"""Which nodes hang on which supply, and what may they draw?"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from drivetrain_energy.settings.model import Name, Part, ZoneName

Label = Annotated[str, Field(max_length=63)]


class Tier(Part):
    """What jobs must be left with when power is short; the first tier that fits a job is its own, and the later ones
    give first."""

    name: Name
    keep: float = Field(ge=0, le=1, description="The share of its throughput that a job keeps.")
    suspend: bool = Field(default=False, description="May be suspended where caps and shrinking do not suffice.")
    namespaces: tuple[str, ...] = Field(default=(), description="Of its jobs. Default: all.")
    job_labels: dict[str, Label] = Field(default_factory=dict, description="That its jobs have. Default: any.")


class PowerDomain(Part):
    """A room, a row, a site."""

    name: Name
    node_selector: dict[str, Label] = Field(min_length=1, description="Labels of its nodes.")
    zone: ZoneName = Field(description="Of the grid that it hangs on.")
    pue: float = Field(default=1.0, ge=1.0, le=5.0, description="Power of the site for each watt of the nodes.")
    watts: float | None = Field(default=None, gt=0, description="What its nodes may draw together. Default: no limit.")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Places for workers on its nodes, which jobs then share. Default: each job is planned alone.",
    )
    max_temperature_c: float | None = Field(
        default=None,
        ge=40,
        le=110,
        alias="maxTemperatureC",
        description="What the hottest sensor of a node may say, where node agents report: then its cards are capped, "
        "and workers leave if that does not help. Default: no limit.",
    )
    embodied_kg: float | None = Field(
        default=None, ge=0, description="CO2 equivalent that making one of its nodes took; lifespanYears goes with it."
    )
    lifespan_years: float | None = Field(default=None, gt=0, le=30)
    tiers: tuple[Tier, ...] = Field(default=(), max_length=20)
    limit_from: Name | None = Field(default=None, description="Source with measure: limit whose events hold for it.")

    @model_validator(mode="after")
    def _together(self) -> PowerDomain:
        if (self.embodied_kg is None) != (self.lifespan_years is None):
            raise ValueError("embodiedKg and lifespanYears belong together")
        if self.limit_from is not None and self.watts is None:
            raise ValueError("watts is needed with limitFrom: a share of what?")
        return self


__all__ = ["PowerDomain", "Tier"]
