"""One job's numbers for Prometheus, read from the membership when scraped. A coordinator serves one job, so its series
carry no job label of our own: the scrape configuration adds namespace and pod."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from drivetrain_api.counters import LAUNCHER_COUNTERS
from drivetrain_api.messages import Snapshotted
from drivetrain_coordinator.membership import Membership, standstill

BUCKETS = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0)


class JobMetrics(Collector):
    """Collector over a membership; `registry` has all that /metrics says."""

    def __init__(self, membership: Membership) -> None:
        self._m = membership
        self.registry = CollectorRegistry()
        self.registry.register(self)  # first, because a scrape of it brings the histogram up to date
        self._recovery = Histogram(
            "drivetrain_recovery_seconds",
            "From the first sign of a loss to the first step that all members finished.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._refused = Counter(
            "drivetrain_coordinator_refused",
            "Callers of the coordinator's ports that were turned away.",
            ("port", "reason"),
            registry=self.registry,
        )

    def refused(self, port: str, reason: str) -> None:
        """`port`: channel, metrics; `reason`: a word of `drivetrain_serving`."""
        self._refused.labels(port, reason).inc()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        m = self._m
        for seconds in m.recovery.durations:
            self._recovery.observe(seconds)
        m.recovery.durations.clear()
        info = InfoMetricFamily("drivetrain_job", "Which job this coordinator serves.")
        info.add_metric((), {"namespace": m.identity.namespace, "job": m.identity.job, "job_uid": m.identity.job_uid})
        yield info
        active = m.active
        yield _gauge("world_size", "Members of the active membership epoch.", len(active.members) if active else 0)
        yield _gauge("membership_term", "This coordinator's term.", m.identity.term)
        yield _gauge("membership_epoch_term", "Term of the active membership epoch.", active.id.term if active else 0)
        yield _gauge("membership_epoch", "Number of the active membership epoch.", active.id.n if active else 0)
        connected = sum(launcher.connected for launcher in m.launchers.values())
        yield _gauge("launchers_connected", "Launchers with an open channel.", connected)
        yield _gauge("steps_committed", "Last step that a member committed, counted from 1.", m.step + 1)
        if m.progress is not None:
            for name, text, value in (
                ("steps_planned", "Steps after which training ends.", m.progress.steps),
                ("loss", "Loss of the last step that all members hold.", m.progress.loss),
                ("samples_per_second", "Throughput of the whole job.", m.progress.samples_per_second),
                ("step_seconds", "Duration of a step.", m.progress.step_seconds),
            ):
                if value is not None:
                    yield _gauge(name, text, value)
            yield from _snapshots(m.progress.snapshots)
        text = "Since all members of the active membership moved last: committed a step, or came to another place."
        yield _gauge("seconds_without_progress", text, standstill.seconds(m))
        late = GaugeMetricFamily(
            "drivetrain_late_ranks",
            "Ranks that the others wait for, by the operation that they are in, once the membership stands still.",
            labels=["operation"],
        )
        for operation, count in standstill.late_ranks(m).items():
            late.add_metric([operation], count)
        yield late
        yield _counter("epochs_formed", "Membership epochs whose group stood.", m.epochs_formed)
        yield _counter("recoveries", "Losses after which training went on.", m.recovery.count)
        yield _counter("state_lost", "Times that all holders of the state were lost.", m.state_lost)
        failures = CounterMetricFamily("drivetrain_failures", "Rank processes that ended early.", labels=["kind"])
        for kind in ("exit", "signal"):
            failures.add_metric([kind], m.failures_by_kind.get(kind, 0))
        yield failures
        yield from self._launcher_counters()

    def _launcher_counters(self) -> Iterator[Metric]:
        for name, text in LAUNCHER_COUNTERS.items():
            told = [counters[name] for counters in self._m.counters.values() if name in counters]
            if told:
                yield _counter(name, text, sum(told))


def _snapshots(told: Snapshotted | None) -> Iterator[Metric]:
    if told is None:
        return
    for name, text, value in (
        ("snapshot_durable_step", "Steps that the job can go back to from storage.", told.durable),
        ("snapshot_age_seconds", "Since so many steps were seen to be in storage.", told.age_seconds),
        ("snapshot_written_bytes", "That rank 0 has written since its process began.", told.bytes_written),
        ("snapshot_backlog_bytes", "That wait in rank 0 to be written.", told.backlog_bytes),
        ("snapshot_dropped_steps", "Steps of rank 0 for which there was no room.", told.dropped_steps),
        ("snapshot_failing", "1 while the storage refuses what is written, else 0.", float(told.failure is not None)),
    ):
        if value is not None:
            yield _gauge(name, text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"drivetrain_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"drivetrain_{name}", text, value=value)
