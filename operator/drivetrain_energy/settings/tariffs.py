"""What does a kilowatt-hour cost? By the hour of the day, or as a source says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivetrain_energy.settings.model import Currency, Name, Part, TimeZone, ZoneName

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Hour = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""Of a day, as people there read their clocks."""
Price = Annotated[float, Field(ge=-1000, le=1000)]


class Window(Part):
    """Some hours of some days that cost something else."""

    since: Hour = Field(alias="from", description="The first minute.")
    to: Hour = Field(description="The first minute after it; 00:00 is midnight, and 22:00 to 06:00 goes over it.")
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, description="On which it begins.")
    per_kwh: Price = Field(alias="perKWh")


class Tariff(Part):
    """Prices by the hour (perKWh and windows), or those of a source with measure: price."""

    name: Name
    currency: Currency | None = None
    time_zone: TimeZone = "UTC"
    per_kwh: Price | None = Field(default=None, alias="perKWh", description="Whenever no window says otherwise.")
    windows: tuple[Window, ...] = Field(default=(), max_length=200, description="The first one that fits counts.")
    source: Name | None = None
    zone: ZoneName | None = Field(default=None, description="Of the source.")

    @model_validator(mode="after")
    def _one_kind(self) -> Tariff:
        if self.source is None:
            if self.per_kwh is None or self.currency is None:
                raise ValueError("perKWh and currency are needed, or a source")
            if self.zone is not None:
                raise ValueError("zone is that of a source")
        elif self.per_kwh is not None or self.windows or self.currency is not None:
            raise ValueError("prices come from source, or from perKWh and windows")
        elif self.zone is None:
            raise ValueError("zone is needed with source")
        return self


__all__ = ["DAYS", "Tariff", "Window"]
