"""Which class asks which provider?"""

from __future__ import annotations

from drivetrain_energy.feeds.adapter import Adapter, Ports
from drivetrain_energy.feeds.carbon_aware import CarbonAwareConfigMapFeed, CarbonAwareSdkFeed
from drivetrain_energy.feeds.electricity_maps import ElectricityMapsFeed
from drivetrain_energy.feeds.energy_charts import EnergyChartsFeed
from drivetrain_energy.feeds.neso import NesoFeed
from drivetrain_energy.feeds.openadr import OpenAdrFeed
from drivetrain_energy.feeds.prometheus import PrometheusFeed
from drivetrain_energy.feeds.trace import TraceFeed
from drivetrain_energy.feeds.watttime import WattTimeFeed
from drivetrain_energy.settings import sources
from drivetrain_energy.signals.signal import Measure


def adapter(source: sources.Source, ports: Ports) -> Adapter:
    """The one for a source."""
    match source:
        case sources.ElectricityMaps():
            return ElectricityMapsFeed(source, ports)
        case sources.WattTime():
            return WattTimeFeed(source, ports)
        case sources.Neso():
            return NesoFeed(source, ports)
        case sources.CarbonAwareSdk():
            return CarbonAwareSdkFeed(source, ports)
        case sources.CarbonAwareConfigMap():
            return CarbonAwareConfigMapFeed(source, ports)
        case sources.Trace():
            return TraceFeed(source, ports)
        case sources.Prometheus():
            return PrometheusFeed(source, ports)
        case sources.EnergyCharts():
            return EnergyChartsFeed(source, ports)
        case sources.OpenAdr():
            return OpenAdrFeed(source, ports)


def measured(source: sources.Source) -> tuple[Measure, str] | None:
    """What its values are, and in which unit; None: they are limits of power."""
    if source.measure == "limit":
        return None
    measure = Measure(source.measure)
    return measure, f"{getattr(source, 'currency', None)}/kWh" if measure is Measure.PRICE else "g/kWh"


__all__ = ["adapter", "measured"]
