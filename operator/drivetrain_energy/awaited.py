"""PURE: what do the cluster's own exporters know better than workers, and what until they have told it?

Where workers measure a component themselves, that stands. Where they have only the model, or nothing, what they tell is
set aside until Prometheus tells of the same time: then that counts, and the model for those workers and seconds only of
which it knows nothing. Where it is silent for too long, the model counts after all. Each moment is settled once: up to
where it is, stands in status, by Prometheus' own clock, so that what two looks know of one stretch are its two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_api.energy import CLUSTER_TELLS, WORKERS_MEASURE, Component, EnergySource, Joules
from drivetrain_energy.counters import Metered, drawn

PATIENCE_SECONDS: Final[Mapping[EnergySource, float]] = {EnergySource.DCGM: 6 * 3600.0, EnergySource.KEPLER: 900.0}
"""So long silence of Prometheus is waited out. There is no model of a GPU that could stand in."""
ENDED_SECONDS: Final = 900.0
"""The same of a job that has ended."""
BEFORE_SECONDS: Final = 300.0
"""So long before what was told of last may have been what nobody told of: a worker that was replaced."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """Of one exporter. Nothing of it is counted yet."""

    since: float = 0.0
    """By Prometheus' clock: up to there it is counted. 0: as `start`."""
    start: float = 0.0
    """By the operator's: what is set aside was drawn from then on, ..."""
    until: float = 0.0
    """... up to then."""
    joules: Joules = field(default_factory=dict)
    """By the model."""
    worker_seconds: float = 0.0

    @property
    def pending(self) -> bool:
        """There is a time of which neither is counted."""
        return self.until > self.start and self.worker_seconds > 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What counts now, drawn from `start` to `end` by the operator's clock, and what is still awaited."""

    rest: Awaited
    start: float
    end: float
    joules: Joules = field(default_factory=dict)
    refused: int = 0


def measured_by_workers(told: Joules, source: EnergySource) -> bool:
    """They tell of what the exporter knows, too."""
    return any(told.get(c, {}).get(each, 0.0) > 0 for c in CLUSTER_TELLS[source] for each in WORKERS_MEASURE)


def aside(news: Joules, source: EnergySource) -> tuple[Joules, Joules]:
    """What is counted at once, and what is set aside."""
    model = {
        component: {EnergySource.MODEL.value: by_source[EnergySource.MODEL]}
        for component, by_source in news.items()
        if component in CLUSTER_TELLS[source] and EnergySource.MODEL in by_source
    }
    kept = {
        component: {each: value for each, value in by_source.items() if each not in model.get(component, {})}
        for component, by_source in news.items()
    }
    return kept, model


def extended(
    before: Awaited | None, joules: Joules, worker_seconds: float, seconds: float, at: float, skew: float | None
) -> Awaited:
    """With news that were drawn in the last `seconds` before `at`."""
    began = at - seconds
    if before is None:
        return Awaited(began + skew if skew is not None else 0.0, began, at, joules, worker_seconds)
    until = before.until if before.until <= at else began  # a clock was set back
    if before.pending:
        start = min(before.start, began) if before.until > at else before.start
        return Awaited(before.since, start, at, _plus(before.joules, joules), before.worker_seconds + worker_seconds)
    # Before that it has waited: nobody drew.
    start = max(until, began - BEFORE_SECONDS)
    since = max(before.since, began - BEFORE_SECONDS + skew) if before.since and skew is not None else before.since
    return Awaited(since, start, at, joules, worker_seconds)


def settled(
    before: Awaited,
    source: EnergySource,
    metered: Metered | None,
    now: float,
    watts_at_most: float,
    *,
    ended: bool = False,
    closes: bool = False,
) -> Settled:
    """`watts_at_most`: of all that may draw. `ended`: nothing will come after it. `closes`: what is not told by now
    is not waited for, because workers measure it themselves from now on, or nobody is asked any more."""
    found = Settled(before, before.start, before.start)
    if metered is not None and before.pending:
        found = _by(before, source, metered, watts_at_most)
    rest = found.rest
    if not rest.pending:
        return found
    over = rest.until if closes else min(rest.until, _waited_out(rest, source, metered, now, ended=ended))
    if over <= rest.start:
        return found
    after, by_model, _ = _split(rest, rest.until if ended else over)
    since = rest.since + (after.start - rest.start) if rest.since else 0.0
    return replace(found, rest=replace(after, since=since), end=after.start, joules=_plus(found.joules, by_model))


def _waited_out(rest: Awaited, source: EnergySource, metered: Metered | None, now: float, *, ended: bool) -> float:
    """Up to when silence was waited out. Where Prometheus answers, its own clock says how long it has said nothing of
    the job: that of an operator may be another one than what is awaited was written by."""
    patience = min(PATIENCE_SECONDS[source], ENDED_SECONDS) if ended else PATIENCE_SECONDS[source]
    if metered is not None and rest.since and now - (metered.asked - metered.skew) < patience:
        return rest.start + metered.asked - patience - rest.since
    return now - patience


def _by(before: Awaited, source: EnergySource, metered: Metered, watts_at_most: float) -> Settled:
    """As far as Prometheus has told, and no farther than workers have."""
    since = before.since or before.start + metered.skew
    end = min(metered.until, before.until + metered.skew)
    if end <= since or metered.since > since:
        return Settled(before, before.start, before.start)
    told = drawn(metered.stretches, since, end)
    until = min(before.until, max(before.start, end - metered.skew))
    after, by_model, worker_seconds = _split(before, until)
    unknown = max(0.0, 1 - told.pod_seconds / worker_seconds) if worker_seconds > 0 else 0.0
    total = sum(told.joules.values())
    most = watts_at_most * (end - since)
    cut = most / total if total > most else 1.0
    by_exporter = {c: {source.value: value * cut} for c, value in told.joules.items() if c in set(map(str, Component))}
    joules = _plus(by_exporter, _times(by_model, unknown))
    return Settled(
        replace(after, since=end), before.start, max(until, before.start), joules, int(cut < 1) + metered.refused
    )


def _split(before: Awaited, at: float) -> tuple[Awaited, Joules, float]:
    """What remains after that moment, and what is before it: joules, and workers' seconds."""
    part = min(1.0, max(0.0, (at - before.start) / (before.until - before.start)))
    after = replace(
        before,
        start=max(before.start, at),
        joules=_times(before.joules, 1 - part) if part < 1 else {},
        worker_seconds=before.worker_seconds * (1 - part),
    )
    return after, _times(before.joules, part), before.worker_seconds * part


def _times(joules: Joules, factor: float) -> Joules:
    return {c: {s: value * factor for s, value in of.items()} for c, of in joules.items()}


def _plus(one: Joules, other: Joules) -> Joules:
    found = {c: dict(of) for c, of in one.items()}
    for component, by_source in other.items():
        known = found.setdefault(component, {})
        for source, value in by_source.items():
            known[source] = known.get(source, 0.0) + value
    return found


__all__ = [
    "BEFORE_SECONDS",
    "ENDED_SECONDS",
    "PATIENCE_SECONDS",
    "Awaited",
    "Settled",
    "aside",
    "extended",
    "measured_by_workers",
    "settled",
]
