"""PURE: what do the cluster's own exporters know better than workers, and what until they have told it?

Where workers measure a component themselves, that stands. Where they have only the model, or nothing, or less than any
device draws, what they tell is set aside until Prometheus tells of the same time: then that counts, and theirs for
those workers and seconds only of which it knows nothing. Where it is silent for too long, theirs counts after all. Each
moment is settled once: up to where it is, stands in status, by Prometheus' own clock. The operator's, which may be
another one's tomorrow, decides neither that nor for how long silence has lasted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_api.energy import CLUSTER_TELLS, WORKERS_MEASURE, Component, EnergySource, Joules
from drivetrain_energy.accounts.counters import Metered, drawn

PATIENCE_SECONDS: Final[Mapping[EnergySource, float]] = {EnergySource.DCGM: 6 * 3600.0, EnergySource.KEPLER: 900.0}
"""So much of a job that runs may be unsettled. There is no model of a GPU that could stand in."""
ENDED_SECONDS: Final = 900.0
"""So long after its end it is waited for what Prometheus has yet to tell."""
SET_BACK_SECONDS: Final = 900.0
"""A Prometheus whose clock is so far behind what it was when workers told of last has another clock now: what was set
aside by the other one will not be found by it."""
BEFORE_SECONDS: Final = 300.0
"""So long before what was told of last may have been what nobody told of: a worker that was replaced."""


LEAST_WATTS: Final[Mapping[EnergySource, tuple[Component, float]]] = {
    EnergySource.DCGM: (Component.GPU, 20.0),
    EnergySource.KEPLER: (Component.CPU, 1.0),
}
"""What a worker draws at least, on average over its term's workers, where they measure what the exporter knows: GPUs at
work, and a package's share. Less is of few of them, or made up, and keeps no exporter's joules out."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """Of one exporter: nothing of it is counted yet. Times are by Prometheus' clock."""

    since: float = 0.0
    """Up to there all is settled. 0: that clock is not known yet, and `until` is for how long something is awaited."""
    until: float = 0.0
    """Up to there workers have told."""
    joules: Joules = field(default_factory=dict)
    """What they have, which stands for what the exporter does not know: by the model, or measured by few."""
    worker_seconds: float = 0.0

    @property
    def pending(self) -> bool:
        """There is a time that is not settled."""
        return self.until > self.since and self.worker_seconds > 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What counts now, drawn from `start` to `end` by Prometheus' clock, and what is still awaited."""

    rest: Awaited
    start: float
    end: float
    joules: Joules = field(default_factory=dict)
    refused: int = 0


def measured_by_workers(told: Joules, seconds: float, source: EnergySource) -> bool:
    """They tell of what the exporter knows, too. `told`: of a term, in so many seconds of workers. Over the term, not
    of the news: who was not heard for a while tells of times that were settled without it."""
    component, watts = LEAST_WATTS[source]
    measured = sum(told.get(component, {}).get(each, 0.0) for each in WORKERS_MEASURE)
    return 0 < measured >= watts * seconds


def aside(news: Joules, source: EnergySource) -> tuple[Joules, Joules]:
    """What is counted at once, and what is set aside: all of what the exporter tells of, or it would count twice."""
    late = CLUSTER_TELLS[source]
    return {c: of for c, of in news.items() if c not in late}, {c: of for c, of in news.items() if c in late}


def extended(
    before: Awaited, joules: Joules, worker_seconds: float, seconds: float, passed: float, now: float | None
) -> Awaited:
    """With news of `seconds`, since which `passed` were told of last; told `now`, if Prometheus' clock is known."""
    passed = max(seconds, passed) if before.until else seconds
    after = replace(before, joules=_plus(before.joules, joules), worker_seconds=before.worker_seconds + worker_seconds)
    if now is None:
        return replace(after, until=before.until + passed)
    if not before.since:
        return replace(after, since=now - before.until - passed, until=now)
    until = max(before.until, now)
    if before.pending:
        return replace(after, until=until)
    return replace(after, since=max(before.since, until - seconds - BEFORE_SECONDS), until=until)  # it had waited


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
    """`now`: by Prometheus' clock, or by what has passed since something was told.
    `watts_at_most`: of a worker, of all that may draw. `ended`: no news will come.
    `closes`: what is not told by now is not waited for, because workers measure it themselves from now on, or nobody is
    asked any more."""
    found = Settled(before, before.since, before.since)
    if metered is not None and before.pending:
        found = _by(before, source, metered, watts_at_most)
    rest = found.rest
    if not rest.pending:
        return found
    if metered is not None and rest.since and rest.until > now + SET_BACK_SECONDS:
        return replace(found, rest=Awaited(), end=rest.until, joules=_plus(found.joules, rest.joules))
    over = rest.until - PATIENCE_SECONDS[source]
    if closes or (ended and now > rest.until + ENDED_SECONDS):
        over = rest.until
    if over <= rest.since:
        return found
    after, by_model, _ = _split(rest, over)
    if not rest.since:
        after = replace(after, since=0.0, until=rest.until - over)
    return replace(found, rest=after, end=over, joules=_plus(found.joules, by_model))


def _by(before: Awaited, source: EnergySource, metered: Metered, watts_at_most: float) -> Settled:
    """As far as Prometheus has told, and no farther than workers have."""
    since, end = before.since, min(metered.until, before.until)
    if not since or end <= since or metered.since > since:
        return Settled(before, since, since)
    told = drawn(metered.buckets, since, end)
    after, by_model, worker_seconds = _split(before, end)
    unknown = max(0.0, 1 - told.pod_seconds / worker_seconds)
    total = sum(told.joules.values())
    most = watts_at_most * worker_seconds  # of those that there were then, not now
    cut = most / total if total > most else 1.0
    by_exporter = {component: {source.value: value * cut} for component, value in told.joules.items()}
    refused = told.refused + (cut < 1)
    # A component of which the exporter knows nothing at all, as memory without counters, it has not replaced.
    rest = {c: _times({c: of}, unknown if told.joules.get(c) else 1.0)[c] for c, of in by_model.items()}
    return Settled(after, since, end, _plus(by_exporter, rest), refused)


def _split(before: Awaited, at: float) -> tuple[Awaited, Joules, float]:
    """What remains after that moment, and what is before it: joules, and workers' seconds."""
    part = min(1.0, max(0.0, (at - before.since) / (before.until - before.since)))
    joules = _times(before.joules, 1 - part) if part < 1 else {}
    after = replace(before, since=at, joules=joules, worker_seconds=before.worker_seconds * (1 - part))
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
    "LEAST_WATTS",
    "PATIENCE_SECONDS",
    "Awaited",
    "Settled",
    "aside",
    "extended",
    "measured_by_workers",
    "settled",
]
