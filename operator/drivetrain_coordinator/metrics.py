"""One job's numbers for Prometheus, read from the membership when scraped: those that are not in the job's status, of
which the operator tells. A coordinator serves one job, so its series carry no label of a job: the scrape configuration
adds namespace, job and pod.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drivetrain_api.counters import LAUNCHER_COUNTERS
from drivetrain_coordinator.membership import Membership, holdup, standstill

PREFIX: Final = "drivetrain"
IDENTITY: Final = ("namespace", "job_name", "job_uid")

Values = Mapping[tuple[str, ...], float]
"""By the values of the labels; empty: not known."""


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    """Without prefix and, of counters, suffix."""
    description: str
    read: Callable[[Membership], Values | float | None]
    labels: tuple[str, ...] = ()
    grows: bool = False

    def of(self, m: Membership | None) -> Metric:
        """The metric; without samples where there is no membership."""
        kind = CounterMetricFamily if self.grows else GaugeMetricFamily
        family = kind(f"{PREFIX}_{self.name}", self.description, labels=self.labels)
        found = self.read(m) if m is not None else None
        if not isinstance(found, Mapping):
            found = {} if found is None else {(): found}
        for values, value in found.items():
            family.add_metric(values, value)
        return family


def _step_seconds(m: Membership) -> float | None:
    return m.progress.step_seconds if m.progress is not None else None


def _logged(m: Membership) -> Values:
    return {(name,): value for name, value in m.progress.metrics.items()} if m.progress is not None else {}


def _late(m: Membership) -> Values:
    return {(operation,): count for operation, count in standstill.late_ranks(m).items()}


def _holdup(m: Membership) -> Values:
    return {(stage,): value for stage, value in holdup.seconds(m).items()}


def _failures(m: Membership) -> Values:
    return {(kind,): m.failures_by_kind.get(kind, 0) for kind in ("exit", "signal")}


def _snapshot(name: str) -> Callable[[Membership], float | None]:
    def read(m: Membership) -> float | None:
        told = m.progress.snapshots if m.progress is not None else None
        return getattr(told, name) if told is not None else None

    return read


def _joules(m: Membership) -> Values:
    return {(component, source): joules for (component, source), joules in m.energy.joules.items()}


def _failing(m: Membership) -> float | None:
    told = m.progress.snapshots if m.progress is not None else None
    return float(told.failure is not None) if told is not None else None


def _of_launchers(name: str) -> Callable[[Membership], float | None]:
    def read(m: Membership) -> float | None:
        told = [counters[name] for counters in m.counters.values() if name in counters]
        return sum(told) if told else None

    return read


FAMILIES: Final = (
    _Family(
        "coordinator_info",
        "Always 1; which job this coordinator serves.",
        lambda m: {(m.identity.namespace, m.identity.job, m.identity.job_uid): 1},
        IDENTITY,
    ),
    _Family("coordinator_term", "This coordinator's term.", lambda m: m.identity.term),
    _Family(
        "coordinator_launchers_connected",
        "Launchers with an open channel.",
        lambda m: sum(launcher.connected for launcher in m.launchers.values()),
    ),
    _Family(
        "membership_term", "Term of the active membership; 0: none.", lambda m: m.active.id.term if m.active else 0
    ),
    _Family(
        "membership_number",
        "Number of the active membership within its term.",
        lambda m: m.active.id.n if m.active else 0,
    ),
    _Family(
        "membership_world_size",
        "Rank processes in the active membership.",
        lambda m: len(m.active.members) if m.active else 0,
    ),
    _Family("memberships", "Memberships whose group stood, in this term.", lambda m: m.epochs_formed, grows=True),
    _Family("training_step_seconds", "Duration of a step.", _step_seconds),
    _Family(
        "training_logged",
        "Numbers that the script gave to `run.log`, or told Kubeflow's endpoint, with the last step told; 64 at most.",
        _logged,
        ("name",),
    ),
    _Family(
        "training_still_seconds",
        "Since all members of the active membership moved last: committed a step, or came to another place.",
        standstill.seconds,
    ),
    _Family(
        "training_late_ranks",
        "Ranks that the others wait for, by the operation that they are in, once the membership stands still.",
        _late,
        ("operation",),
    ),
    _Family(
        "training_holdup_seconds",
        "By which each step is longer because one rank is later than the others, by the stage in which that one loses "
        "the time; `several`: in more than one.",
        _holdup,
        ("stage",),
    ),
    _Family(
        "training_standstills",
        "How often the membership stood still for so long that people were told, in this term.",
        lambda m: m.standstills,
        grows=True,
    ),
    _Family("training_failures", "Rank processes that ended early, in this term.", _failures, ("kind",), grows=True),
    _Family("snapshot_age_seconds", "Since so many steps were seen to be in storage.", _snapshot("age_seconds")),
    _Family(
        "snapshot_written_bytes",
        "That rank 0 has written since its process began.",
        _snapshot("bytes_written"),
        grows=True,
    ),
    _Family("snapshot_backlog_bytes", "That wait in rank 0 to be written.", _snapshot("backlog_bytes")),
    _Family(
        "snapshot_dropped_steps",
        "Steps of rank 0 for which there was no room, since its process began.",
        _snapshot("dropped_steps"),
        grows=True,
    ),
    _Family("snapshot_failing", "1 while the storage refuses what is written, else 0.", _failing),
    _Family(
        "energy_joules",
        "Electricity that this term's workers drew, by component (gpu, cpu, dram) and by how it is known (nvml, "
        "nvml-power, rapl, model).",
        _joules,
        ("component", "source"),
        grows=True,
    ),
    _Family("energy_readings_refused", "Readings of energy that cannot be.", lambda m: m.energy.refused, grows=True),
    *(_Family(f"ranks_{name}", text, _of_launchers(name), grows=True) for name, text in LAUNCHER_COUNTERS.items()),
)


class JobMetrics(Collector):
    """Collector over a membership; `registry` has all that /metrics says."""

    def __init__(self, membership: Membership | None) -> None:
        self._m = membership
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self._refused = Counter(
            f"{PREFIX}_coordinator_refused",
            "Callers of the coordinator's ports that were turned away.",
            ("port", "reason"),
            registry=self.registry,
        )

    def refused(self, port: str, reason: str) -> None:
        """`port`: channel, metrics; `reason`: a word of `drivetrain_serving`."""
        self._refused.labels(port, reason).inc()

    def describe(self) -> Iterator[Metric]:
        """Names without samples."""
        return (family.of(None) for family in FAMILIES)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape. What is not known has no family."""
        return (found for family in FAMILIES if (found := family.of(self._m)).samples)
