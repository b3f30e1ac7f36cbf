"""Numbers of each job, computed when somebody scrapes and kept nowhere: a deleted job is gone from the next scrape.

The number of series is bounded by `limit` jobs; how many were left out is a gauge of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from drivetrain_api.status import Phase
from drivetrain_operator.metrics.counters import PREFIX

LABELS: Final = ("namespace", "job")


@dataclass(frozen=True, slots=True)
class JobSample:
    """What a scrape needs of one job. None: not known, no sample."""

    namespace: str
    name: str
    uid: str = ""
    readable: bool = True
    """False: its status cannot be believed, so nothing else is known."""
    phase: Phase | None = None
    workers_target: int = 0
    workers_current: int = 0
    workers_ready: int = 0
    world_size: int = 0
    restarts: int = 0
    budget_used: int = 0
    recoveries: int = 0
    standing_still: bool = False
    attempt: int = 0
    term: int = 0
    membership: int = 0
    step: int | None = None
    steps: int | None = None
    eta_seconds: float | None = None
    durable_step: int | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    started: float | None = None
    """Unix time."""
    goodput: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By category of its time."""


@dataclass(frozen=True, slots=True)
class _Gauge:
    name: str
    description: str
    value: Callable[[JobSample], float | None]


GAUGES: Final = (
    _Gauge("job_workers_target", "Workers wanted.", lambda j: j.workers_target),
    _Gauge("job_workers_current", "Live worker pods.", lambda j: j.workers_current),
    _Gauge("job_workers_ready", "Workers whose processes are all ready or training.", lambda j: j.workers_ready),
    _Gauge("job_world_size", "Rank processes in the current membership.", lambda j: j.world_size),
    _Gauge("job_restarts", "Incidents that were ever charged to the restart budget.", lambda j: j.restarts),
    _Gauge(
        "job_restart_budget_used",
        "Incidents that count now; more than recovery.maxRestarts end the job.",
        lambda j: j.budget_used,
    ),
    _Gauge("job_recoveries", "How often training went on after the loss of a member.", lambda j: j.recoveries),
    _Gauge(
        "job_standing_still",
        "1 while the membership trains and nothing in it moves; the coordinator's drivetrain_seconds_without_progress "
        "says for how long.",
        lambda j: float(j.standing_still),
    ),
    _Gauge("job_attempt", "How often training started over because all state was lost.", lambda j: j.attempt),
    _Gauge("job_membership_term", "Term of the coordinator.", lambda j: j.term),
    _Gauge("job_membership_number", "Number of the membership within its term.", lambda j: j.membership),
    _Gauge("job_step", "Steps that every member has committed.", lambda j: j.step),
    _Gauge("job_steps", "Steps in all, where known.", lambda j: j.steps),
    _Gauge("job_progress_ratio", "step / steps, 0 to 1.", lambda j: _ratio(j)),
    _Gauge("job_remaining_seconds", "Time that the rest will take at this pace.", lambda j: j.eta_seconds),
    _Gauge("job_durable_step", "Steps that the job can go back to from storage.", lambda j: j.durable_step),
    _Gauge("job_loss", "Loss of the last step told.", lambda j: j.loss),
    _Gauge("job_samples_per_second", "Samples a second over all ranks.", lambda j: j.samples_per_second),
    _Gauge(
        "job_goodput_ratio",
        "Productive part of the time since the job was created; none while nobody told of a step.",
        lambda j: j.goodput,
    ),
    _Gauge("job_start_timestamp_seconds", "Unix time at which the job became active.", lambda j: j.started),
)


def _ratio(job: JobSample) -> float | None:
    return None if job.step is None or not job.steps else min(1.0, job.step / job.steps)


class JobsCollector(Collector):
    """Register with a `CollectorRegistry`. `jobs` is called at each scrape and must only read memory."""

    def __init__(self, jobs: Callable[[], Iterable[JobSample]], *, limit: int = 2000) -> None:
        self._jobs = jobs
        self._limit = limit

    def describe(self) -> Sequence[Metric]:
        """Names without samples, so that registering does not call `jobs`."""
        return [*_families(())]

    def collect(self) -> Iterator[Metric]:
        """One family a gauge, over all jobs."""
        jobs = iter(self._jobs())
        shown = list(islice(jobs, self._limit))
        yield from _families([job for job in shown if job.readable])
        yield GaugeMetricFamily(
            f"{PREFIX}_jobs_unreadable",
            "Jobs that are left alone because their status cannot be believed; an event on each says why.",
            value=sum(1 for job in shown if not job.readable),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_jobs_omitted",
            "Jobs without series of their own because there are too many.",
            value=sum(1 for _ in jobs),
        )


def _families(jobs: Sequence[JobSample]) -> Iterator[Metric]:
    total = GaugeMetricFamily(f"{PREFIX}_jobs", "Jobs, by phase.", labels=("phase",))
    for phase in Phase:
        total.add_metric((phase.value,), sum(1 for job in jobs if job.phase is phase))
    yield total
    phases = GaugeMetricFamily(
        f"{PREFIX}_job_phase", "1 for the job's phase, 0 for all others.", labels=(*LABELS, "phase")
    )
    info = GaugeMetricFamily(f"{PREFIX}_job_info", "Always 1; joins a job with its uid.", labels=(*LABELS, "uid"))
    for job in jobs:
        for phase in Phase:
            phases.add_metric((job.namespace, job.name, phase.value), 1.0 if job.phase is phase else 0.0)
        info.add_metric((job.namespace, job.name, job.uid), 1)
    yield phases
    yield info
    times = CounterMetricFamily(
        f"{PREFIX}_job_time_seconds",
        "Time since the job was created, by what it was spent on (docs/goodput.md); together all of it, up to the last "
        "write of its status. Categories without any are left out.",
        labels=(*LABELS, "category"),
    )
    for job in jobs:
        for category, seconds in job.seconds.items():
            times.add_metric((job.namespace, job.name, category), seconds)
    yield times
    for gauge in GAUGES:
        family = GaugeMetricFamily(f"{PREFIX}_{gauge.name}", gauge.description, labels=LABELS)
        for job in jobs:
            value = gauge.value(job)
            if value is not None:
                family.add_metric((job.namespace, job.name), value)
        yield family
