"""Who says how much carbon a kilowatt-hour is, or what it costs? One class a provider: what each needs to be asked.

A source has one measure: average and marginal intensity are two sources, and no answer moves from one to the other.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivetrain_energy.settings.model import Currency, FileName, Name, Part, TimeZone, Url, ZoneName
from drivetrain_energy.settings.reached import Reached

Carbon = Literal["average", "marginal"]
Any3 = Literal["average", "marginal", "price"]


class _Source(Part):
    name: Name = Field(description="By which tariffs, domains, logs and metrics call it.")
    zones: tuple[ZoneName, ...] = Field(min_length=1, max_length=100, description="Zones that it is asked for.")
    names: dict[ZoneName, str] = Field(
        default_factory=dict, description="How the provider calls a zone, where that differs."
    )

    def called(self, zone: str) -> str:
        """The provider's name of a zone."""
        return self.names.get(zone, zone)


class _Priced(_Source):
    measure: Any3 = Field(default="average", description="What its values are.")
    currency: Currency | None = Field(default=None, description="Of prices.")

    @model_validator(mode="after")
    def _has_currency(self) -> _Priced:
        if (self.measure == "price") != (self.currency is not None):
            raise ValueError("currency is for measure: price, which needs it")
        return self


class ElectricityMaps(_Source):
    """Average intensity. The free plan has one zone, and no forecast."""

    provider: Literal["electricityMaps"]
    measure: Literal["average"] = "average"
    base_url: Url = Field(
        default="https://api.electricitymaps.com/v3", alias="baseURL", description="With the version, v3 or v4."
    )
    token_file: FileName
    plan: Literal["free", "paid"] = Field(
        default="free", description="free: what was measured in the last 24 hours; paid: a forecast."
    )
    horizon_hours: Literal[6, 24, 48, 72] = Field(default=72, description="Of the forecast.")
    emission_factor_type: Literal["lifecycle", "direct"] = "lifecycle"


class WattTime(_Source):
    """A forecast of marginal intensity, in steps of five minutes. Without a subscription for CAISO_NORTH only."""

    provider: Literal["wattTime"]
    measure: Carbon = Field(default="marginal", description="marginal: co2_moer; average: co2_aoer.")
    base_url: Url = Field(default="https://api.watttime.org", alias="baseURL")
    username_file: FileName
    password_file: FileName
    horizon_hours: int = Field(default=24, ge=1, le=72, description="Of the forecast.")


class Neso(_Source):
    """Great Britain: a forecast of 48 hours, free and without a key. A region has its number as its name."""

    provider: Literal["neso"]
    measure: Literal["average"] = "average"
    base_url: Url = Field(default="https://api.carbonintensity.org.uk", alias="baseURL")


class CarbonAwareSdk(_Source):
    """The web API of the Carbon Aware SDK, which asks a provider of its own: say whether that tells averages."""

    provider: Literal["carbonAwareSdk"]
    measure: Carbon
    base_url: Url = Field(alias="baseURL")
    forecast: bool = Field(default=True, description="Its provider has one; if not, the last 24 hours are asked for.")


class CarbonAwareConfigMap(_Source):
    """The ConfigMap of the Carbon Aware SDK's exporter, which Azure's KEDA operator reads, too."""

    provider: Literal["carbonAwareConfigMap"]
    measure: Carbon
    namespace: Name = "kube-system"
    config_map: Name = "carbon-intensity"
    key: FileName = "data"


class Trace(_Priced):
    """A CSV file with the columns timestamp and g_per_kwh (of prices: per_kwh)."""

    provider: Literal["trace"]
    file: FileName | None = Field(default=None, description="In the folder of traces.")
    config_map: Name | None = Field(default=None, description="In the operator's namespace.")
    key: FileName = Field(default="trace.csv", description="Of the ConfigMap.")
    time_zone: TimeZone = Field(default="UTC", description="Of timestamps that have no offset.")

    @model_validator(mode="after")
    def _one_place(self) -> Trace:
        if (self.file is None) == (self.config_map is None):
            raise ValueError("either file or configMap says where it is")
        if len(self.zones) != 1:
            raise ValueError("zones: a trace is of one zone")
        return self


class Prometheus(Reached, _Priced):
    """A query whose result is one series: $zone in it is replaced by the zone's name."""

    provider: Literal["prometheus"]
    query: str = Field(min_length=1, max_length=4096)
    multiply_by: float = Field(default=1.0, gt=0, description="Makes grams (or money) a kilowatt-hour of its values.")
    hours: int = Field(default=168, ge=1, le=336, description="How far back.")
    step_minutes: int = Field(default=60, ge=1, le=60)

    @model_validator(mode="after")
    def _few_enough(self) -> Prometheus:
        if self.hours * 60 > 10000 * self.step_minutes:
            raise ValueError("hours: more than 10000 steps of stepMinutes, and Prometheus gives 11000 at most")
        return self


class EnergyCharts(_Source):
    """Day-ahead prices of bidding zones, from Energy-Charts; free, CC BY 4.0 for most zones."""

    provider: Literal["energyCharts"]
    measure: Literal["price"] = "price"
    currency: Currency = "EUR"
    base_url: Url = Field(default="https://api.energy-charts.info", alias="baseURL")


class OpenAdr(_Source):
    """Events of an OpenADR 3 server: GHG (which is marginal), PRICE, or a limit of power."""

    provider: Literal["openADR"]
    measure: Literal["marginal", "price", "limit"]
    base_url: Url = Field(alias="baseURL")
    token_url: Url | None = Field(default=None, alias="tokenURL", description="Default: baseURL and /auth/token.")
    client_id_file: FileName | None = Field(default=None, alias="clientIDFile")
    client_secret_file: FileName | None = None
    scope: str | None = Field(default=None, max_length=1024, pattern=r"^[\x21-\x7e ]+$")
    program: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9_-]{1,128}$", description="Its id. Default: all.")
    target_type: str | None = Field(default=None, min_length=1, max_length=128)
    target_values: tuple[str, ...] = ()
    currency: Currency | None = Field(default=None, description="Where events name none.")
    simple: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(),
        max_length=4,
        description="What share of a domain's power SIMPLE levels 0 to 3 leave, as [1, 0.75, 0.5, 0.25]. Default: they "
        "are not heeded.",
    )

    @model_validator(mode="after")
    def _whole(self) -> OpenAdr:
        if (self.client_id_file is None) != (self.client_secret_file is None):
            raise ValueError("clientIDFile and clientSecretFile belong together")
        if (self.target_type is None) != (not self.target_values):
            raise ValueError("targetType and targetValues belong together")
        if self.measure == "price" and self.currency is None:
            raise ValueError("currency is needed for measure: price")
        return self


Source = Annotated[
    ElectricityMaps
    | WattTime
    | Neso
    | CarbonAwareSdk
    | CarbonAwareConfigMap
    | Trace
    | Prometheus
    | EnergyCharts
    | OpenAdr,
    Field(discriminator="provider"),
]

__all__ = [
    "CarbonAwareConfigMap",
    "CarbonAwareSdk",
    "ElectricityMaps",
    "EnergyCharts",
    "Neso",
    "OpenAdr",
    "Prometheus",
    "Source",
    "Trace",
    "WattTime",
]
