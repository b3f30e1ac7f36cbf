"""A year's mean of a country's grid, for accounts where nothing better is known. It never makes a job wait.

The table is CodeCarbon's (MIT), made of Our World in Data; settings may know better.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

from drivetrain_energy.feeds.judge import FOREVER
from drivetrain_energy.settings.document import EnergySettings
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot

COUNTRY: Final = re.compile(r"([A-Z]{2})(-.*)?")
ALSO: Final = {"UK": "GB"}


@functools.cache
def table() -> Mapping[str, tuple[float, int]]:
    """Grams a kilowatt-hour and the year, by ISO 3166 country."""
    text = resources.files(__package__).joinpath("means.json").read_text(encoding="utf-8")
    return {country: (grams, year) for country, (grams, year) in json.loads(text)["means"].items()}


def mean(settings: EnergySettings, zone: str) -> Signal | None:
    """Of a zone, or of the country that its name begins with. None: there is none."""
    for own in settings.means:
        if own.zone == zone:
            return _signal(zone, own.grams_per_kwh, own.year, own.source, f"the mean of {zone}")
    found = COUNTRY.fullmatch(zone)
    country = ALSO.get(found[1], found[1]) if found else ""
    if country not in table():
        return None
    grams, year = table()[country]
    return _signal(zone, grams, year, "Our World in Data, by CodeCarbon", f"the mean of {country}")


def _signal(zone: str, grams: float, year: int, source: str, what: str) -> Signal:
    why = f"{what} in {year} ({source}), for accounts only"
    slot = Slot(*FOREVER, grams)
    return Signal(zone, Measure.AVERAGE, Quality.STATIC, (slot,), FOREVER[0], "annual-mean", "g/kWh", why)


__all__ = ["mean", "table"]
