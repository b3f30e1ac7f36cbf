"""energy.yaml, the platform's own settings: sources, tariffs, domains, placement, joules. `read` makes them of text."""

from drivetrain_energy.settings.document import EnergySettings, Mean, Polling, SettingsError, of, read
from drivetrain_energy.settings.domains import PowerDomain, Tier
from drivetrain_energy.settings.joules import Dcgm, JoulesSource, Kepler
from drivetrain_energy.settings.placement import Efficiency, Placement
from drivetrain_energy.settings.sources import Source
from drivetrain_energy.settings.tariffs import Tariff, Window

__all__ = [
    "Dcgm",
    "Efficiency",
    "EnergySettings",
    "JoulesSource",
    "Kepler",
    "Mean",
    "Placement",
    "Polling",
    "PowerDomain",
    "SettingsError",
    "Source",
    "Tariff",
    "Tier",
    "Window",
    "of",
    "read",
]
