"""Each provider as its documentation has it: its settings, and the document that it makes of points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from drivetrain_energy.feeds import Ports
from drivetrain_energy.settings import Source
from drivetrain_energy.settings import of as settings_of
from unit.energy.feeds.server import HOUR, NOW, Asked, Cluster, Files, Said, iso

Points = Sequence[tuple[Any, Any]]
"""Times (seconds, or what stands there in their place) and values (the same)."""


@dataclass(frozen=True)
class Provider:
    """`document(points, zone)` is what it answers; `zone` what it says that it is of."""

    name: str
    settings: dict[str, Any]
    document: Callable[[Points, str], Any]
    zone: str
    step: float = HOUR
    ahead: bool = True
    """Has a forecast."""
    scale: float = 1.0
    """Its unit, in ours."""

    def source(self, url: str, **more: Any) -> Source:
        given = {"name": "it", "zones": ["Z"], "names": {"Z": self.zone}, **self.settings, **more}
        if "baseURL" not in self.settings and self.name not in ("trace", "configMap"):
            given["baseURL"] = url
        return settings_of({"sources": [given]}).sources[0]

    def points(self, number: int = 24) -> list[tuple[float, Any]]:
        """That vary, around now, as it writes them."""
        first = NOW - NOW % self.step - (0 if self.ahead else (number - 1) * self.step)
        return [(first + place * self.step, (200 + 10 * (place % 12)) / self.scale) for place in range(number)]

    def said(self, asked: Asked, document: Any) -> Said:
        """Logins are answered as they should be."""
        if asked.path == "/login":
            return Said({"token": "t0ken"})
        if asked.path == "/auth/token":
            return Said({"access_token": "t0ken", "token_type": "Bearer", "expires_in": 3600})
        return document if isinstance(document, Said) else Said(document)

    def put(self, ports: Ports, body: bytes) -> None:
        """Where it is no server, its document is put where it belongs."""
        if self.name == "trace":
            assert isinstance(ports.traces, Files)
            ports.traces["trace.csv"] = body
        else:
            assert isinstance(ports.config_maps, Cluster)
            ports.config_maps.held["kube-system", "carbon-intensity"] = {"data": body}

    @property
    def local(self) -> bool:
        return self.name in ("trace", "configMap")


def written(time: Any) -> Any:
    return iso(time) if isinstance(time, float) else time


def _history(kind: str) -> Callable[[Points, str], Any]:
    def document(points: Points, zone: str) -> Any:
        entries = [
            {
                "zone": zone, "carbonIntensity": value, "datetime": written(time), "updatedAt": iso(NOW),
                "createdAt": iso(NOW), "emissionFactorType": "lifecycle", "isEstimated": True,
                "estimationMethod": "TIME_SLICER_AVERAGE",
            }
            for time, value in points
        ]  # fmt: skip
        if kind == "history":
            return {"zone": zone, "history": entries}
        short = [{"carbonIntensity": each["carbonIntensity"], "datetime": each["datetime"]} for each in entries]
        return {"zone": zone, "forecast": short, "updatedAt": iso(NOW - 600)}

    return document


def _watttime(points: Points, zone: str) -> Any:
    meta = {
        "data_point_period_seconds": 300, "region": zone, "signal_type": "co2_moer", "units": "lbs_co2_per_mwh",
        "warnings": [], "model": {"date": "2026-10-01"}, "generated_at": iso(NOW - 300),
        "generated_at_period_seconds": 300,
    }  # fmt: skip
    return {"data": [{"point_time": written(time), "value": value} for time, value in points], "meta": meta}


def _neso(points: Points, zone: str) -> Any:
    data = [
        {
            "from": written(time)[:16] + "Z" if isinstance(time, float) else time,
            "to": iso(time + 1800)[:16] + "Z" if isinstance(time, float) else time,
            "intensity": {"forecast": value, "actual": None, "index": "moderate"},
        }
        for time, value in points
    ]
    return {"data": {"regionid": int(zone) if zone.isdigit() else zone, "shortname": "London", "data": data}}


def _sdk(points: Points, zone: str) -> Any:
    data = [{"location": zone, "timestamp": written(time), "duration": 5, "value": value} for time, value in points]
    return [
        {
            "requestedAt": iso(NOW), "generatedAt": iso(NOW - 300), "location": zone, "dataStartAt": iso(NOW),
            "dataEndAt": iso(NOW + 24 * HOUR), "windowSize": 5, "optimalDataPoints": [], "forecastData": data,
        }
    ]  # fmt: skip


def _config_map(points: Points, zone: str) -> Any:
    return _sdk(points, zone)[0]["forecastData"]


def _prometheus(points: Points, zone: str) -> Any:
    values = [[time + HOUR if isinstance(time, float) else time, _sample(value)] for time, value in points]
    series = [{"metric": {"__name__": "grid", "location": zone}, "values": values}] if points else []
    return {"status": "success", "data": {"resultType": "matrix", "result": series}}


def _sample(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _energy_charts(points: Points, zone: str) -> Any:
    times = [int(time) if isinstance(time, float) else time for time, _ in points]
    return {
        "license_info": "CC BY 4.0", "unix_seconds": times, "price": [value for _, value in points],
        "unit": "EUR / MWh", "deprecated": False,
    }  # fmt: skip


def _openadr(points: Points, zone: str) -> Any:
    intervals = [
        {
            "id": place,
            "intervalPeriod": {"start": written(time), "duration": "PT1H"},
            "payloads": [{"type": "GHG", "values": [value]}],
        }
        for place, (time, value) in enumerate(points)
    ]
    event = {
        "id": "event-1", "createdDateTime": iso(NOW - HOUR), "modificationDateTime": iso(NOW - HOUR),
        "objectType": "EVENT", "programID": "p-1", "eventName": "ghg", "priority": None, "targets": None,
        "payloadDescriptors": [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "GHG", "units": "GHG"}],
        "intervals": intervals,
    }  # fmt: skip
    return [event]


def _trace(points: Points, zone: str) -> bytes:
    lines = [f"{written(time)},{'' if value is None else value}" for time, value in points]
    return "\n".join(["timestamp,g_per_kwh", *lines, ""]).encode()


MAPS: Final = Provider(
    "electricityMaps", {"provider": "electricityMaps", "tokenFile": "token"}, _history("history"), "DE", ahead=False
)
MAPS_PAID: Final = Provider(
    "electricityMapsPaid",
    {"provider": "electricityMaps", "tokenFile": "token", "plan": "paid"},
    _history("forecast"),
    "DE",
)
WATTTIME: Final = Provider(
    "wattTime",
    {"provider": "wattTime", "usernameFile": "user", "passwordFile": "password"},
    _watttime,
    "CAISO_NORTH",
    step=300.0,
    scale=0.45359237,
)
NESO: Final = Provider("neso", {"provider": "neso"}, _neso, "13", step=1800.0)
SDK: Final = Provider("sdk", {"provider": "carbonAwareSdk", "measure": "average"}, _sdk, "westeurope", step=300.0)
CONFIG_MAP: Final = Provider(
    "configMap", {"provider": "carbonAwareConfigMap", "measure": "average"}, _config_map, "westeurope", step=300.0
)
PROMETHEUS: Final = Provider(
    "prometheus", {"provider": "prometheus", "query": 'grid{location="$zone"}'}, _prometheus, "DE", ahead=False
)
ENERGY_CHARTS: Final = Provider("energyCharts", {"provider": "energyCharts"}, _energy_charts, "DE-LU", scale=2.0)
OPENADR: Final = Provider(
    "openADR",
    {"provider": "openADR", "measure": "marginal", "clientIDFile": "user", "clientSecretFile": "password"},
    _openadr,
    "site",
)
TRACE: Final = Provider("trace", {"provider": "trace", "file": "trace.csv"}, _trace, "DE")
SERVED: Final = (MAPS, MAPS_PAID, WATTTIME, NESO, SDK, PROMETHEUS, ENERGY_CHARTS, OPENADR)
ALL: Final = (*SERVED, CONFIG_MAP, TRACE)


def encoded(provider: Provider, document: Any) -> bytes:
    """As a file."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def at(text: str) -> float:
    """Seconds of a time in ISO 8601."""
    return datetime.fromisoformat(text).timestamp()
