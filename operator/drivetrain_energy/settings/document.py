"""energy.yaml: what the platform knows of its electricity. The chart writes it, the operator's leader reads it.

No credential stands in it, only names of files in the folder that holds them. `read` refuses what it does not know,
and names the field: a name that is misspelt and passed over would be a job that waits for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from drivetrain_energy.settings.domains import PowerDomain
from drivetrain_energy.settings.joules import JoulesSource
from drivetrain_energy.settings.model import Part, ZoneName
from drivetrain_energy.settings.placement import Placement
from drivetrain_energy.settings.sources import Source
from drivetrain_energy.settings.tariffs import Tariff

MAX_BYTES: Final = 1 << 20
"""What a ConfigMap can hold."""
MAX_TOLD: Final = 10
"""Errors in one message."""


class SettingsError(ValueError):
    """The document cannot be used. The message has a line for each field."""


class Mean(Part):
    """A year's mean of a zone that is not in our own table, or is known better."""

    zone: ZoneName
    grams_per_kwh: float = Field(ge=0, le=2500, alias="gramsPerKWh")
    year: int = Field(ge=1990, le=2200)
    source: str = Field(min_length=1, max_length=256, description="Who says so.")


class Polling(Part):
    """How often sources are asked, and how long an answer is good."""

    minutes: int = Field(default=15, ge=5, le=180, description="Between two requests for a zone.")
    limit_seconds: int = Field(default=15, ge=5, le=300, description="Between two requests for limits of power.")
    timeout_seconds: float = Field(default=10.0, ge=1, le=60, description="For one request, as a whole.")
    stale_minutes: int = Field(default=360, ge=15, le=2880, description="After which the last good answer is no more.")


class EnergySettings(Part):
    """The document."""

    sources: tuple[Source, ...] = Field(default=(), max_length=100, description="The first good one of a zone counts.")
    tariffs: tuple[Tariff, ...] = Field(default=(), max_length=100)
    power_domains: tuple[PowerDomain, ...] = Field(default=(), max_length=1000)
    means: tuple[Mean, ...] = Field(default=(), max_length=500)
    polling: Polling = Polling()
    placement: Placement | None = Field(default=None, description="Default: workers are not steered.")
    joules: tuple[JoulesSource, ...] = Field(
        default=(), max_length=2, description="Who else measures what pods draw. Default: only workers do."
    )

    @model_validator(mode="after")
    def _whole(self) -> EnergySettings:
        said = [
            *_twice("sources", [each.name for each in self.sources]),
            *_twice("joules", [each.name for each in self.joules]),
            *self._told_twice(),
            *_twice("tariffs", [each.name for each in self.tariffs]),
            *_twice("powerDomains", [each.name for each in self.power_domains]),
            *_twice("means", [each.zone for each in self.means]),
            *self._pointing_nowhere(),
        ]
        if said:
            raise ValueError("; ".join(said))
        return self

    def _told_twice(self) -> Iterable[str]:
        for exporter in ("dcgm", "kepler"):
            if len([each for each in self.joules if getattr(each, exporter) is not None]) > 1:
                yield f"joules: only one of them can have {exporter}: of two, each joule would count twice"
        for number, each in enumerate(self.joules):
            if any(each.name == source.name for source in self.sources):
                yield f"joules[{number}]: a source is called {each.name}, too"

    def _pointing_nowhere(self) -> Iterable[str]:
        for number, tariff in enumerate(self.tariffs):
            if tariff.source is not None and not any(
                each.name == tariff.source and each.measure == "price" and tariff.zone in each.zones
                for each in self.sources
            ):
                yield (
                    f"tariffs[{number}].source: no source {tariff.source} has measure: price and the zone {tariff.zone}"
                )
        for number, domain in enumerate(self.power_domains):
            if domain.limit_from is not None and not any(
                each.name == domain.limit_from and each.measure == "limit" for each in self.sources
            ):
                yield f"powerDomains[{number}].limitFrom: no source {domain.limit_from} has measure: limit"


def _twice(field: str, names: Sequence[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"{field}[{number}]: {name} stands there already"


def read(text: str) -> EnergySettings:
    """energy.yaml as it stands in its ConfigMap; an empty one is all defaults. Raises SettingsError."""
    import yaml  # processes that read no settings need not have it

    class Strict(yaml.SafeLoader):
        """A key that stands twice is an error, and there are no aliases, of which a short text makes a long one."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.MarkedYAMLError(
                    problem="aliases are not read", problem_mark=parent.start_mark if parent else None
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            for number, name in enumerate(names):
                if name in names[:number]:
                    raise yaml.MarkedYAMLError(problem=f"{name} stands twice", problem_mark=node.start_mark)
            return super().construct_mapping(node, deep)

    if len(text.encode()) > MAX_BYTES:
        raise SettingsError(f"more than {MAX_BYTES} bytes")
    try:
        found = yaml.load(text, Loader=Strict)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"no YAML: {' '.join(str(error).split())}") from None
    return of(found if found is not None else {})


def of(found: Any) -> EnergySettings:
    """The same of what YAML or JSON made of it. Raises SettingsError. A name with nothing behind it is refused: it may
    be meant as all defaults, and would be read as not set."""
    try:
        empty = [f"{path}: is empty: leave it out, or write {{}} for all defaults" for path in _empty(found)]
        if empty:
            raise SettingsError(_listed(empty))
        return EnergySettings.model_validate_json(json.dumps(found, default=str))
    except ValidationError as error:
        lines = [_line(each["loc"], _said(each)) for each in error.errors(include_url=False)]
        raise SettingsError(_listed(lines)) from None
    except SettingsError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(str(error)) from None


def _listed(lines: Sequence[str]) -> str:
    more = [] if len(lines) <= MAX_TOLD else [f"and {len(lines) - MAX_TOLD} more"]
    return "\n".join([*lines[:MAX_TOLD], *more])


def _empty(found: Any, path: str = "") -> Iterable[str]:
    """Where nothing stands behind a name."""
    if isinstance(found, dict):
        for name, value in found.items():
            here = f"{path}.{name}" if path else str(name)
            if value is None and not path.endswith("nodeSelector"):  # nothing of a label's value can be left out
                yield here
            yield from _empty(value, here)
    elif isinstance(found, list):
        for number, value in enumerate(found):
            yield from _empty(value, f"{path}[{number}]")


_PROVIDERS: Final = frozenset(
    {
        "electricityMaps", "wattTime", "neso", "carbonAwareSdk", "carbonAwareConfigMap", "trace", "prometheus",
        "energyCharts", "openADR",
    }
)  # fmt: skip


def _said(error: ErrorDetails) -> str:
    """What YAML makes of `zone: NO` and `hall: 1`, nobody guesses from what pydantic says."""
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        word = json.dumps(error["input"])
        return f"{error['msg']}; YAML reads NO, yes, on and digits as {word} or such: put it in quotes"
    if error["type"] == "string_type" and error["input"] is None:
        return f'{error["msg"]}; write "" for an empty one'
    return error["msg"]


def _line(where: Sequence[int | str], what: str) -> str:
    """sources[0].zones: …"""
    path = ""
    for place, part in enumerate(where):
        if isinstance(part, int):
            path += f"[{part}]"
        elif place == 2 and where[0] == "sources" and part in _PROVIDERS:
            continue  # pydantic's own mark, not a field
        else:
            path += f".{part}" if path else part
    said = what.removeprefix("Value error, ")
    return f"{path}: {said}" if path else said


__all__ = ["MAX_BYTES", "EnergySettings", "Mean", "Polling", "SettingsError", "of", "read"]
