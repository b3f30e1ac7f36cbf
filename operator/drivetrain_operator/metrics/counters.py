"""What the operator counts about itself and about all jobs together. No label names a job: such series never end.

Each class below is the observer that one part takes; `OperatorMetrics` holds them all and the registry.
"""

import math
import platform
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

PREFIX: Final = "drivetrain"
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_QUEUE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 1.0, 4.0, 15.0)
_RECOVERY_BUCKETS: Final = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0)


class QueueMetrics:
    """Observer of `act.queue.WorkQueue`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depth = Gauge(f"{PREFIX}_queue_depth", "Jobs that are due and not yet worked on.", registry=registry)
        self._adds = Counter(f"{PREFIX}_queue_adds", "Requests to look at a job.", registry=registry)
        self._retries = Counter(
            f"{PREFIX}_queue_retries", "Looks that are repeated after a failure.", registry=registry
        )
        self._wait = Histogram(
            f"{PREFIX}_queue_wait_seconds",
            "From a job being due to a worker taking it.",
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self._work = Histogram(
            f"{PREFIX}_queue_work_seconds",
            "Time that a worker holds a job.",
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )

    def depth(self, ready: int) -> None:
        self._depth.set(ready)

    def added(self) -> None:
        self._adds.inc()

    def retried(self) -> None:
        self._retries.inc()

    def started(self, waited: float) -> None:
        self._wait.observe(waited)

    def finished(self, worked: float) -> None:
        self._work.observe(worked)


class RequestMetrics:
    """Observer of `kube.transport.Transport`. Watches are counted when they end, and not timed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("verb", "resource", "code")
        self._requests = Counter(
            f"{PREFIX}_api_requests",
            "Requests to the API server, by HTTP status or `unreachable`.",
            labels,
            registry=registry,
        )
        self._retries = Counter(
            f"{PREFIX}_api_retries", "Requests repeated after this answer.", labels, registry=registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_api_request_seconds",
            "Duration of requests to the API server, without watches.",
            ("verb",),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        self._requests.labels(verb, resource, code).inc()
        if verb != "watch":
            self._seconds.labels(verb).observe(seconds)

    def retry(self, verb: str, resource: str, code: str) -> None:
        self._retries.labels(verb, resource, code).inc()


class InformerMetrics:
    """Observer of `kube.informer.Informer`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._events = Counter(
            f"{PREFIX}_watch_events", "Events received on watches.", ("resource", "type"), registry=registry
        )
        self._lists = Counter(
            f"{PREFIX}_watch_lists",
            "Complete lists, by what made them necessary.",
            ("resource", "reason"),
            registry=registry,
        )
        self._interruptions = Counter(
            f"{PREFIX}_watch_interruptions", "Lists and watches that failed.", ("resource", "reason"), registry=registry
        )
        self._age = Gauge(
            f"{PREFIX}_watch_age_seconds",
            "Since the last sign of life of a watch; NaN before the first.",
            ("resource",),
            registry=registry,
        )

    def event(self, resource: str, kind: str) -> None:
        self._events.labels(resource, kind).inc()

    def listed(self, resource: str, reason: str) -> None:
        self._lists.labels(resource, reason).inc()

    def interrupted(self, resource: str, reason: str) -> None:
        self._interruptions.labels(resource, reason).inc()

    def age_from(self, resource: str, age: Callable[[], float | None]) -> None:
        """From now on the age of this watch is read at each scrape, as `Informer.last_event_age` gives it."""
        self._age.labels(resource).set_function(lambda: math.nan if (seconds := age()) is None else seconds)


class OperatorMetrics:
    """All counters of one operator process, in one registry."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self.registry = registry
        self.queue = QueueMetrics(registry)
        self.requests = RequestMetrics(registry)
        self.informers = InformerMetrics(registry)
        ProcessCollector(registry=registry)
        build = Gauge(
            f"{PREFIX}_build_info", "Always 1; the labels say what runs.", ("version", "python"), registry=registry
        )
        build.labels(version, platform.python_version()).set(1)
        self._leader = Gauge(f"{PREFIX}_leader", "1 while this process may act, else 0.", registry=registry)
        self._passes = Counter(
            f"{PREFIX}_reconciles", "Looks at a job, by how they ended.", ("result",), registry=registry
        )
        self._errors = Counter(
            f"{PREFIX}_reconcile_errors",
            "Looks at a job that failed, by kind of error.",
            ("reason",),
            registry=registry,
        )
        self._effects = Counter(
            f"{PREFIX}_effects",
            "Changes made in the cluster, by how they ended.",
            ("effect", "result"),
            registry=registry,
        )
        self._events_dropped = Counter(
            f"{PREFIX}_events_dropped", "Events that nobody will see.", ("reason",), registry=registry
        )
        self._spans = Counter(
            f"{PREFIX}_spans",
            "Pieces of traces that ended: sent, refused by the receiver, or dropped because they found no room.",
            ("result",),
            registry=registry,
        )
        self._recovery = Histogram(
            f"{PREFIX}_recovery_seconds",
            "From a loss to the first step that all members finished, by what was lost: process, pod, unreachable, "
            "communication, standstill, formation, coordinator, unknown.",
            ("cause",),
            buckets=_RECOVERY_BUCKETS,
            registry=registry,
        )
        self._recovery_phase = Histogram(
            f"{PREFIX}_recovery_phase_seconds",
            "The same in phases, one after the other: detected, formed, copied, first_step.",
            ("cause", "phase"),
            buckets=_RECOVERY_BUCKETS,
            registry=registry,
        )
        self._restarts = Counter(
            f"{PREFIX}_restarts", "Incidents that cost a restart of a job's budget.", ("cause",), registry=registry
        )
        self._finished = Counter(f"{PREFIX}_jobs_finished", "Jobs that ended.", ("result",), registry=registry)
        self._replaced = Counter(
            f"{PREFIX}_coordinators_replaced",
            "Coordinators that got a successor: Ended, Deleted, Gone, NotReady, Unreachable, NoNode.",
            ("cause",),
            registry=registry,
        )
        self._refused = Counter(
            f"{PREFIX}_operator_refused",
            "Callers of the operator's ports that were turned away.",
            ("port", "reason"),
            registry=registry,
        )
        self._deaf = Counter(
            f"{PREFIX}_operator_deaf_seconds",
            "Pauses of a second or more in which the operator heard nobody. Nobody's silence meanwhile counts.",
            registry=registry,
        )
        self._lag = Histogram(
            f"{PREFIX}_operator_loop_lag_seconds",
            "How late the event loop came to what was due, asked five times a second.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )

    def leading(self, check: Callable[[], bool]) -> None:
        """From now on `drivetrain_leader` is what `check` says at each scrape."""
        self._leader.set_function(lambda: 1.0 if check() else 0.0)

    def reconciled(self, result: str) -> None:
        """`result`: ok, conflict, refused, unreadable, error."""
        self._passes.labels(result).inc()

    def reconcile_failed(self, reason: str) -> None:
        """`reason`: the class name of the error."""
        self._passes.labels("error").inc()
        self._errors.labels(reason).inc()

    def effect(self, effect: str, result: str) -> None:
        """`effect`: its class name; `result`: ok, refused, error."""
        self._effects.labels(effect, result).inc()

    def event_dropped(self, reason: str) -> None:
        """For `kube.recorder.Recorder`."""
        self._events_dropped.labels(reason).inc()

    def spans(self, result: str, number: int) -> None:
        """`result`: sent, refused, dropped."""
        self._spans.labels(result).inc(number)

    def recovered(self, cause: str, seconds: float, phases: Mapping[str, float] | None = None) -> None:
        """A membership lost somebody and trains again. `cause`: a `RecoveryCause`; `phases`: those of a recovery."""
        self._recovery.labels(cause).observe(seconds)
        for phase, part in (phases or {}).items():
            self._recovery_phase.labels(cause, phase).observe(part)

    def restarted(self, cause: str) -> None:
        """`cause`: the reason of the failure, one of a fixed set."""
        self._restarts.labels(cause).inc()

    def coordinator_replaced(self, cause: str) -> None:
        """`cause`: a `ReplacedFor`."""
        self._replaced.labels(cause).inc()

    def refused(self, port: str, reason: str) -> None:
        """`port`: reports, metrics; `reason`: a word of `drivetrain_serving`."""
        self._refused.labels(port, reason).inc()

    def loop_was_late(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def deaf(self, seconds: float) -> None:
        """This process heard nothing for so long."""
        self._deaf.inc(seconds)

    def job_finished(self, result: str) -> None:
        """`result`: succeeded, failed."""
        self._finished.labels(result).inc()
