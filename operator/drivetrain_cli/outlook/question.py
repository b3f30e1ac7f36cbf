"""What is asked: a manifest, a trace, a moment. The operator's own question to the planner comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

import yaml

from drivetrain_api.constants import KIND
from drivetrain_api.energy_plan import EnergyMeasured
from drivetrain_api.energy_status import EnergyStatus
from drivetrain_api.older_python import UTC
from drivetrain_api.resolve import target_workers
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import TrainingJobStatus
from drivetrain_cli.errors import CliError, UsageError
from drivetrain_cli.manifests import documents
from drivetrain_energy.feeds.errors import FeedError
from drivetrain_energy.feeds.trace import rows
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy.asked import Unasked, asked
from drivetrain_operator.plan.observe import job_view, read_spec
from drivetrain_operator.plan.view import Supply, View

LARGEST: Final = 64 << 20
"""Bytes of a trace."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A TrainingJob that nobody submitted yet."""

    name: str
    obj: dict[str, Any]
    spec: TrainingJobSpec


def manifest(path: Path) -> Manifest:
    """The TrainingJob in a file. Raises CliError, with the field's name."""
    try:
        found = [each for each in documents(path.read_text()) if each]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    jobs = [each for each in found if isinstance(each, dict) and each.get("kind") == KIND]
    if len(jobs) != 1:
        raise UsageError(f"{path}: has {len(jobs)} objects of kind {KIND}; plan takes one")
    read = read_spec(jobs[0])
    if read.spec is None:
        raise UsageError(f"{path}: " + "; ".join(read.invalid))
    if read.spec.energy is None:
        raise UsageError(f"{path}: spec.energy is not set: there is nothing to plan")
    name = (jobs[0].get("metadata") or {}).get("name") or path.stem
    return Manifest(str(name), jobs[0], read.spec)


def trace(path: Path, zone: str, measure: Measure) -> Signal:
    """The intensities of a CSV file, with timestamp and g_per_kwh. Raises UsageError."""
    column = "per_kwh" if measure is Measure.PRICE else "g_per_kwh"
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: has more than {LARGEST >> 20} MiB")
        points = rows(path.read_bytes(), column, ZoneInfo("UTC"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except FeedError as error:
        raise UsageError(f"{path}: {error}") from None
    known = sorted({point.start: point.value for point in points if point.value is not None}.items())
    known = [(start, value) for start, value in known if math.isfinite(value)]
    if len(known) < 2:
        raise UsageError(f"{path}: has fewer than two values of {column}")
    step = median(b[0] - a[0] for a, b in pairwise(known))
    ends = [*(start for start, _ in known[1:]), known[-1][0] + step]
    slots = tuple(
        Slot(start, min(end, start + 2 * step), value) for (start, value), end in zip(known, ends, strict=True)
    )
    return Signal(zone, measure, Quality.FORECAST, slots, math.floor(known[0][0]), path.name)


def question(
    job: Manifest, signals: Sequence[Signal], now: datetime, pace: float | None, pue: float, zone: str
) -> Request:
    """As the operator would ask when the job is created at `now`. Raises CliError where it could not."""
    created = now.astimezone(UTC).replace(microsecond=0)
    stamped = {**job.obj, "metadata": {**(job.obj.get("metadata") or {}), "creationTimestamp": created.isoformat()}}
    status = TrainingJobStatus()
    if pace is not None:
        known = [EnergyMeasured(workers=target_workers(job.spec), steps_per_second=pace)]
        status = status.model_copy(update={"energy": EnergyStatus(measured=known)})
    energy = job.spec.energy
    assert energy is not None, "manifest() has looked"
    caps = any(point.cap_watts is not None for point in energy.profile or ())
    supply = Supply(zone, {each.measure: each for each in signals}, pue=pue, sets_caps=caps)
    found = asked(View(job_view(stamped), created, supply=supply), status, job.spec, energy)
    if isinstance(found, Unasked):
        flag = "; give --steps-per-second" if found.reason == "PaceUnknown" else ""
        raise CliError(f"{job.name}: {found.message}{flag}")
    return found


__all__ = ["Manifest", "manifest", "question", "trace"]
