"""How much electricity do a job's workers draw? The words that launchers, coordinators and the operator share.

A launcher tells joules by meter, a coordinator by component and source for its term, each as numbers that only grow, so
that nothing is lost with a message. What cannot be is left out and counted: a meter that lies silences no worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic.functional_validators import WrapValidator

from drivetrain_api.bounds import MAX_EXACT, MAX_NAMED, MAX_SECONDS, MAX_TOLD
from drivetrain_api.older_python import StrEnum

MAX_JOULES: Final = 1e15
"""Of a job: 278 GWh."""
MAX_METER_JOULES: Final = 1e13
"""Of one device in one life of a launcher: a hundred kilowatts for three years."""
MAX_METERS: Final = 256
"""Of one launcher."""


class Component(StrEnum):
    """What draws."""

    GPU = "gpu"
    CPU = "cpu"
    DRAM = "dram"


class EnergySource(StrEnum):
    """How it is known."""

    NVML = "nvml"
    """The device's own counter of energy."""
    NVML_POWER = "nvml-power"
    """The device's power, once a second, times the time: where there is no counter, or it stands still."""
    RAPL = "rapl"
    """The node's counters; of them, the worker's share of the processor time that was used."""
    MODEL = "model"
    """From processor time and two constants: nothing was measured."""
    DCGM = "dcgm"
    """The GPU's counter of energy as dcgm-exporter has it, through Prometheus: where workers cannot read it."""
    KEPLER = "kepler"
    """What Kepler takes for the pod's part of the node's counters, through Prometheus: where workers have only the
    model."""


WORKERS_MEASURE: Final = (EnergySource.NVML, EnergySource.NVML_POWER, EnergySource.RAPL)
WORKERS_TELL: Final = (*WORKERS_MEASURE, EnergySource.MODEL)
"""Nobody else's word comes from launchers and coordinators, which are the tenant's."""
CLUSTER_TELLS: Final[Mapping[EnergySource, tuple[Component, ...]]] = {
    EnergySource.DCGM: (Component.GPU,),
    EnergySource.KEPLER: (Component.CPU, Component.DRAM),
}
"""What the cluster's own exporters know better than the model."""


WATTS_AT_MOST: Final[Mapping[str, float]] = {Component.GPU: 5e3, Component.CPU: 5e3, Component.DRAM: 2e3}
"""Of one meter: above what is built. What tells more is cut."""
WORKER_WATTS_AT_MOST: Final = 5e4
"""Of all meters of a worker."""

Joules = Mapping[str, Mapping[str, float]]
"""By component and source."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _number(told: float) -> float:
    return told if math.isfinite(told) and abs(told) <= 1e300 else -1.0


Reading = Annotated[float, AfterValidator(_number)]
"""As it is told, below zero, too: whoever adds them up looks at them first. -1 if it is no number."""


class Meter(_Told):
    """What one meter has counted since its launcher began."""

    component: str = Field(max_length=16)
    source: str = Field(max_length=16)
    device: str = Field(default="", max_length=96)
    """Which one, where others may read the same: what several launchers tell of it is divided."""
    joules: Reading
    before: Reading = 0.0
    """So much of it was counted in earlier terms."""


class EnergyCounted(_Told):
    """Up to where the operator has counted: a moment by the clock of the coordinator that had told it."""

    term: int = Field(default=0, ge=0, le=MAX_NAMED)
    """0: nothing was ever counted."""
    uptime: float = Field(default=0.0, ge=0, le=MAX_SECONDS, allow_inf_nan=False)
    """Seconds since that coordinator's term began."""


class EnergyAsked(_Told):
    """A coordinator that wants to hear of electricity says how late it is by its clock, and what is counted already."""

    uptime: float = Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)
    counted: EnergyCounted | None = None
    """By earlier terms; None: the operator does not tell."""


def _first_meters(told: Any) -> Any:
    return told[:MAX_METERS] if isinstance(told, list) else told


class Metered(_Told):
    """All that a launcher has measured. Told to coordinators that ask."""

    seconds: Reading = 0.0
    """For how long it has."""
    seconds_before: Reading = 0.0
    """So many of them were counted in earlier terms."""
    meters: Annotated[list[Meter], BeforeValidator(_first_meters)] = []
    readable: bool = True
    """False: something was told that cannot be read, and nothing of it is here."""


def _or_unreadable(told: Any, handler: ValidatorFunctionWrapHandler) -> Metered | None:
    try:
        return handler(told)  # type: ignore[no-any-return]
    except ValidationError:
        return Metered(readable=False)


MeteredByLauncher = Annotated[Metered | None, WrapValidator(_or_unreadable)]
"""None from images that do not measure."""


def possible_joules(told: Any, most: float = MAX_JOULES) -> dict[str, dict[str, float]]:
    """Of what is told by component and source, what is known and can be."""
    if not isinstance(told, dict):
        return {}
    return {
        str(component): found
        for component in Component
        if isinstance(of := told.get(component), dict)
        and (found := {str(source): float(of[source]) for source in WORKERS_TELL if _possible(of.get(source), most)})
    }


def _possible(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= most


def _possible_seconds(told: Any) -> Any:
    return told if _possible(told, MAX_SECONDS) else 0.0


def _possible_sum(told: Any) -> Any:
    return told if _possible(told, MAX_EXACT) else 0.0


def _possible_count(told: Any) -> Any:
    return told if isinstance(told, int) and 0 <= told <= MAX_TOLD else 0


class EnergyTold(_Told):
    """What a coordinator has heard in its term. What is impossible is left out."""

    joules: Annotated[dict[str, dict[str, float]], BeforeValidator(possible_joules)] = {}
    """By `Component` and `EnergySource`."""
    worker_seconds: Annotated[float, BeforeValidator(_possible_sum)] = 0.0
    """For how long workers were measured, over all of them."""
    seconds: Annotated[float, BeforeValidator(_possible_seconds)] = 0.0
    """For how long at least one was."""
    refused: Annotated[int, BeforeValidator(_possible_count)] = 0
    """Readings that cannot be, and were cut or left out."""
    uptime: Annotated[float, BeforeValidator(_possible_seconds)] = 0.0
    """Seconds since the term began."""


def _or_nothing(told: Any, handler: ValidatorFunctionWrapHandler) -> EnergyTold | None:
    try:
        return handler(told)  # type: ignore[no-any-return]
    except ValidationError:
        return None


EnergyByCoordinator = Annotated[EnergyTold | None, WrapValidator(_or_nothing)]
"""None from coordinators of older releases."""


def total(joules: Joules) -> float:
    """Over all components."""
    return sum(value for by_source in joules.values() for value in by_source.values())
