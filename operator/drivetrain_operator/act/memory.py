"""What does this process remember of a job that stands neither in its status nor in any object we may read?

All of it can be lost at any moment: after a restart, a create is simply tried again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from drivetrain_operator.act.jobs import later
from drivetrain_operator.clock import Clock
from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.view import PodView, Refusal, RefusalKind, Sight
from drivetrain_serving.rates import Rates

FILE_SECONDS: Final = 30.0
"""So long a Secret, or the copy of a script, is not created again, although a pod waits for something."""
UNSEEN_SECONDS: Final = 600.0
WRITES_BURST: Final = 30.0
WRITES_RATE: Final = 1.0
"""Status writes of one job in a second, in the long run: a coordinator that says another thing each time must not keep
the API server busy. A job's whole life takes about 17."""


@dataclass(slots=True)
class _Refused:
    kind: RefusalKind
    message: str
    generation: int
    at: float
    count: int
    certain: bool


@dataclass(slots=True)
class _Remembered:
    refused: dict[str, _Refused] = field(default_factory=dict)
    files: dict[str, float] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    """Names of what a create may have made whose answer was lost."""
    scripts: dict[str, str] = field(default_factory=dict)
    """Digests of the texts of copies, by name."""
    tried_generation: int = -1
    written: str = ""
    written_at: float = 0.0
    status_at: float | None = None
    seen: dict[tuple[Sight, str | int], tuple[float, float]] = field(default_factory=dict)
    """When each was seen first and last, on the listening clock."""
    names: dict[str, str] = field(default_factory=dict)
    """Of pods, by uid: also of those that the cache lost."""
    told: str = ""
    """What a person was told last of why the job is left alone."""
    gone: set[str] = field(default_factory=set)
    pods: dict[str, PodView] = field(default_factory=dict)
    """As they were seen last, by name."""


class JobMemory:
    """Refused creates, files that exist, what we created but have not seen yet, and since when we see what; by the
    job's uid."""

    def __init__(self, clock: Clock, listening: Listening) -> None:
        self._clock = clock
        self._listening = listening
        self._jobs: dict[str, _Remembered] = {}
        self._writes = Rates(WRITES_BURST, WRITES_RATE, clock.monotonic)

    def status_wait(self, job_uid: str) -> float:
        """0 if the job's status may be written now, and that is charged; else the seconds until it may."""
        return self._writes.take(job_uid)

    def unsure(self, job_uid: str, name: str) -> None:
        """A create of `name` had no answer: no refusal proves any more that it does not exist."""
        self._of(job_uid).unsure.add(name)

    def is_unsure(self, job_uid: str, name: str) -> bool:
        """Whether `unsure` was said of it, and no create of it went through since."""
        return name in self._of(job_uid).unsure

    def script(self, job_uid: str, name: str, digest: str) -> None:
        """The job's copy of this name has this text."""
        self._of(job_uid).scripts[name] = digest

    def script_digest(self, job_uid: str, name: str) -> str:
        """As `script` said of it last; empty if this process never saw it."""
        return self._of(job_uid).scripts.get(name, "")

    def refused(self, job_uid: str, name: str, kind: RefusalKind, message: str, generation: int) -> None:
        """The create of `name` was refused. Refusals of one kind and generation are counted."""
        known = self._of(job_uid).refused
        before = known.get(name)
        again = before is not None and (before.kind, before.generation) == (kind, generation)
        count = before.count + 1 if before is not None and again else 1
        certain = not self.is_unsure(job_uid, name)
        known[name] = _Refused(kind, message, generation, self._clock.monotonic(), count, certain)

    def succeeded(self, job_uid: str, name: str) -> None:
        """The create of `name` went through: an earlier refusal is history, and it is there now."""
        self._of(job_uid).refused.pop(name, None)
        self._of(job_uid).gone.discard(name)
        self._of(job_uid).unsure.discard(name)

    def refusals(self, job_uid: str, generation: int, seen: Collection[str] = ()) -> tuple[Refusal, ...]:
        """What was refused for this generation of the job. Refusals of an older one are dropped: the spec changed; and
        those of what is `seen`, by name: it is there."""
        job = self._jobs.get(job_uid)
        if job is None:
            return ()
        job.refused = {
            name: item for name, item in job.refused.items() if item.generation == generation and name not in seen
        }
        now = self._clock.monotonic()
        return tuple(
            Refusal(name, item.kind, item.message, item.generation, now - item.at, item.count, item.certain)
            for name, item in sorted(job.refused.items())
        )

    def file_exists(self, job_uid: str, name: str) -> None:
        """A Secret, or the copy of the script, was created, or found to exist: no cache shows it."""
        self._of(job_uid).files[name] = self._clock.monotonic()

    def files(self, job_uid: str) -> frozenset[str]:
        """Names of those that existed a moment ago. Somebody may delete them, and nobody would tell."""
        job = self._jobs.get(job_uid)
        since = self._clock.monotonic() - FILE_SECONDS
        return frozenset(name for name, at in job.files.items() if at >= since) if job is not None else frozenset()

    def template_tried(self, job_uid: str, generation: int) -> None:
        """The API server accepted a worker pod of this generation."""
        self._of(job_uid).tried_generation = generation

    def is_template_tried(self, job_uid: str, generation: int) -> bool:
        """Whether `template_tried` was said of this generation."""
        job = self._jobs.get(job_uid)
        return job is not None and job.tried_generation == generation

    def pod_created(self, job_uid: str, resource_version: str) -> None:
        """A pod was created; until the cache has seen that version, a view of the job is older than what we did."""
        job = self._of(job_uid)
        if not job.written or later(resource_version, job.written):
            job.written, job.written_at = resource_version, self._clock.monotonic()

    def last_write(self, job_uid: str) -> tuple[str, float] | None:
        """resourceVersion of the newest pod that we created and have not seen yet, and the seconds since then."""
        job = self._jobs.get(job_uid)
        if job is None or not job.written:
            return None
        return job.written, self._clock.monotonic() - job.written_at

    def status_written(self, job_uid: str) -> None:
        """The job's status was written."""
        self._of(job_uid).status_at = self._clock.monotonic()

    def status_age(self, job_uid: str) -> float:
        """Seconds since then; infinite if it never was."""
        job = self._jobs.get(job_uid)
        at = job.status_at if job is not None else None
        return float("inf") if at is None else self._clock.monotonic() - at

    def caught_up(self, job_uid: str) -> None:
        """The cache, or a live list, shows everything that we did."""
        job = self._jobs.get(job_uid)
        if job is not None:
            job.written = ""

    def seen(self, job_uid: str, sights: Iterable[tuple[Sight, str | int]]) -> Mapping[tuple[Sight, str | int], float]:
        """For how long each of these has been seen, in listened seconds. What is not seen for long is forgotten."""
        job, now = self._of(job_uid), self._listening.seconds()
        wanted = list(sights)
        job.seen |= {sight: (job.seen.get(sight, (now, now))[0], now) for sight in wanted}
        job.seen = {sight: times for sight, times in job.seen.items() if now - times[1] <= UNSEEN_SECONDS}
        return {sight: now - job.seen[sight][0] for sight in wanted}

    def pod_names(self, job_uid: str, seen: Mapping[str, str]) -> Mapping[str, str]:
        """Names of the job's pods by uid, of those `seen` now and of those seen before that are not `gone`."""
        job = self._of(job_uid)
        job.names.update(seen)
        return job.names

    def gone(self, job_uid: str, what: Iterable[str]) -> None:
        """The API server has no pod of the job with these uids, or names."""
        job = self._of(job_uid)
        job.gone.update(what)
        for uid in job.gone & job.names.keys():
            del job.names[uid]

    def keep_gone(self, job_uid: str, spoken_of: Collection[str]) -> None:
        """Of what is gone, forget all of which nobody speaks any more."""
        self._of(job_uid).gone.intersection_update(spoken_of)

    def is_gone(self, job_uid: str, what: str) -> bool:
        """Whether `gone` was said of this uid, or name."""
        return what in self._of(job_uid).gone

    def all_gone(self, job_uid: str) -> frozenset[str]:
        """All of which `gone` was said."""
        return frozenset(self._of(job_uid).gone)

    def lost(self, job_uid: str, seen: Iterable[PodView], wanted: Collection[str]) -> Mapping[str, PodView]:
        """Pods of these names that were seen before and are not among those `seen` now, as they were then."""
        job = self._of(job_uid)
        now = {pod.name: pod for pod in seen}
        job.pods = {name: pod for name, pod in (job.pods | now).items() if name in wanted}
        return {name: pod for name, pod in job.pods.items() if name not in now}

    def news(self, job_uid: str, told: str) -> bool:
        """Whether a person is to be told this: it is not what was said last. Empty: there is nothing to tell."""
        job = self._of(job_uid)
        before, job.told = job.told, told
        return told != before

    def forget(self, job_uid: str) -> None:
        """The job is gone."""
        self._jobs.pop(job_uid, None)

    def _of(self, job_uid: str) -> _Remembered:
        return self._jobs.setdefault(job_uid, _Remembered())
