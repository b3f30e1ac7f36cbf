"""Numbers of each job, computed when somebody scrapes and kept nowhere: a deleted job is gone from the next scrape.

The number of series is bounded by `limit` jobs, and by `MAX_SERIES` of each; how many jobs were left out is a gauge of
its own. What counts jobs counts all of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from drivetrain_api.status import Phase
from drivetrain_operator.metrics.counters import PREFIX

LABELS: Final = ("namespace", "job_name")
"""Not `job`, which Prometheus calls what it scrapes."""
MAX_SERIES: Final = 30
"""Of one job; six of them are of its electricity."""


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
    workers_ready: int = 0
    restarts: int = 0
    recoveries: int = 0
    standing_still: bool = False
    state_losses: int = 0
    step: int | None = None
    steps: int | None = None
    durable_step: int | None = None
    loss: float | None = None
    samples_per_second: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By category of its time."""
    joules: float | None = None
    grams: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By kind and signal."""
    cost: float | None = None
    avoided: float | None = None
    planned: float | None = None


@dataclass(frozen=True, slots=True)
class _Number:
    name: str
    description: str
    value: Callable[[JobSample], float | None]
    grows: bool = False
    """It only ever rises: a counter."""


NUMBERS: Final = (
    _Number("job_workers_target", "Workers wanted.", lambda j: j.workers_target),
    _Number("job_workers_ready", "Workers whose processes are all ready or training.", lambda j: j.workers_ready),
    _Number("job_restarts", "Incidents that were ever charged to the restart budget.", lambda j: j.restarts, True),
    _Number("job_recoveries", "How often training went on after the loss of a member.", lambda j: j.recoveries, True),
    _Number(
        "job_standing_still",
        "1 while the membership trains and nothing in it moves; the coordinator's drivetrain_training_still_seconds "
        "says for how long.",
        lambda j: float(j.standing_still),
    ),
    _Number(
        "job_state_losses",
        "How often training started over because all state was lost.",
        lambda j: j.state_losses,
        True,
    ),
    _Number("job_step", "Steps that every member has committed.", lambda j: j.step),
    _Number("job_steps", "Steps in all, where known.", lambda j: j.steps),
    _Number("job_durable_step", "Steps that the job can go back to from storage.", lambda j: j.durable_step),
    _Number("job_loss", "Loss of the last step told.", lambda j: j.loss),
    _Number("job_samples_per_second", "Samples a second over all ranks.", lambda j: j.samples_per_second),
    _Number(
        "job_energy_joules",
        "Electricity that its workers drew; the coordinator's drivetrain_energy_joules says how it is known.",
        lambda j: j.joules,
        True,
    ),
    _Number("job_energy_cost", "What it cost by the tariff of its zone, in that currency.", lambda j: j.cost),
    _Number(
        "job_carbon_avoided_grams",
        "CO2 equivalent that the same power would have emitted beyond that, had it been drawn at once, with no pause.",
        lambda j: j.avoided,
    ),
    _Number(
        "job_carbon_planned_grams",
        "CO2 equivalent, operational, that its first plan foresaw for all of it.",
        lambda j: j.planned,
    ),
)


class JobsCollector(Collector):
    """Register with a `CollectorRegistry`. `jobs` is called at each scrape and must only read memory."""

    def __init__(self, jobs: Callable[[], Iterable[JobSample]], *, limit: int = 2000) -> None:
        self._jobs = jobs
        self._limit = limit

    def describe(self) -> Sequence[Metric]:
        """Names without samples, so that registering does not call `jobs`."""
        return [*_of_each(()), *_of_all(Counter(), 0, 0)]

    def collect(self) -> Iterator[Metric]:
        """One family a number, over all jobs."""
        phases: Counter[Phase | None] = Counter()
        shown: list[JobSample] = []
        unreadable = omitted = 0
        for job in self._jobs():
            if not job.readable:
                unreadable += 1
                continue
            phases[job.phase] += 1
            if len(shown) < self._limit:
                shown.append(job)
            else:
                omitted += 1
        yield from _of_each(shown)
        yield from _of_all(phases, unreadable, omitted)


def _of_all(phases: Counter[Phase | None], unreadable: int, omitted: int) -> Iterator[Metric]:
    total = GaugeMetricFamily(f"{PREFIX}_jobs", "Jobs, by phase.", labels=("phase",))
    for phase in Phase:
        total.add_metric((phase.value,), phases[phase])
    yield total
    yield GaugeMetricFamily(
        f"{PREFIX}_jobs_unreadable",
        "Jobs that are left alone because their status cannot be believed; an event on each says why.",
        value=unreadable,
    )
    yield GaugeMetricFamily(
        f"{PREFIX}_jobs_omitted", "Jobs without series of their own because there are too many.", value=omitted
    )


def _of_each(jobs: Sequence[JobSample]) -> Iterator[Metric]:
    phases = GaugeMetricFamily(
        f"{PREFIX}_job_phase",
        "Always 1; the labels say in which phase the job is (empty: nobody has looked yet), and join it with its uid.",
        labels=(*LABELS, "phase", "uid"),
    )
    times = CounterMetricFamily(
        f"{PREFIX}_job_time_seconds",
        "Time since the job was created, by what it was spent on (docs/goodput.md); together all of it, up to the last "
        "write of its status. Categories without any are left out.",
        labels=(*LABELS, "category"),
    )
    grams = CounterMetricFamily(
        f"{PREFIX}_job_carbon_grams",
        "CO2 equivalent: embodied, and operational by the one signal that counts for the job, average or marginal "
        "(spec.energy.measure). Its status has both.",
        labels=(*LABELS, "kind", "signal"),
    )
    for job in jobs:
        phase = job.phase.value if job.phase is not None else ""
        phases.add_metric((job.namespace, job.name, phase, job.uid), 1)
        for category, seconds in job.seconds.items():
            times.add_metric((job.namespace, job.name, category), seconds)
        for by, emitted in job.grams.items():
            grams.add_metric((job.namespace, job.name, *by), emitted)
    yield from (phases, times, grams)
    for number in NUMBERS:
        kind = CounterMetricFamily if number.grows else GaugeMetricFamily
        family = kind(f"{PREFIX}_{number.name}", number.description, labels=LABELS)
        for job in jobs:
            value = number.value(job)
            if value is not None:
                family.add_metric((job.namespace, job.name), value)
        yield family
