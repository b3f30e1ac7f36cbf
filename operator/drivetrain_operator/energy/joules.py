"""What do the cluster's own exporters know of what jobs draw? Asked of Prometheus beside the leader, for all jobs at
once; passes read what is here, and never wait.

Only of jobs that wait for it: up to where each is settled stands in its status, so nothing here has to outlive the
process.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from drivetrain_api.energy import EnergySource
from drivetrain_energy.accounts.awaited import BEFORE_SECONDS, Awaited
from drivetrain_energy.accounts.counters import Metered
from drivetrain_energy.feeds import exporters
from drivetrain_energy.feeds.adapter import Ports
from drivetrain_energy.feeds.asked import Asked
from drivetrain_energy.feeds.clock import Clock
from drivetrain_energy.feeds.errors import FeedError, Slow, TooLarge, Unreadable
from drivetrain_energy.feeds.feeds import Age
from drivetrain_energy.feeds.joules import JobAsked, JoulesFeed, literal
from drivetrain_energy.feeds.source import Counts, counted
from drivetrain_energy.settings import EnergySettings
from drivetrain_energy.settings.joules import JoulesSource
from drivetrain_operator.energy.turns import NEAR_SECONDS, Turns
from drivetrain_operator.plan.energy_words import from_status
from drivetrain_operator.plan.view import JobView
from drivetrain_operator.render import names

log = logging.getLogger(__name__)

FAR_SECONDS: Final = 86_400.0
"""What is older is not asked for."""
TICK_SECONDS: Final = 5.0
COUNTERS_A_WORKER: Final = 64
"""GPUs, or pods, that a worker has had in one time: what is more is made up."""
MAX_COUNTERS: Final = 1 << 16
"""Of a job: of 4,096 workers with 16 GPUs each."""
STRANGE_SECONDS: Final = 600.0
"""A job that has waited for so long has been scraped, if anybody scrapes it."""
AT_ONCE: Final = 50
"""So many jobs are read without a breath."""
MAX_TOO_LARGE: Final = 32
"""So many questions of one look may be too large."""
MAX_FAILED: Final = 4
"""So many of one look may have no answer for other reasons: each may take as long as one may."""
BEGIN_SECONDS: Final = 120.0
"""So long after a look began no other question does: who is left comes first in the next one."""
BATCH_SECONDS: Final = 300.0
"""For all requests of one question."""
NAMED: Final = 5
"""So many jobs a line of the log names."""


_NOTHING: Final = Metered(since=math.inf, until=0.0)


@dataclass(slots=True)
class _Exporter:
    """One, at one Prometheus."""

    settings: JoulesSource
    source: EnergySource
    feed: JoulesFeed
    selector: str
    """Of its series."""
    asked: Asked
    began: float
    there: tuple[float, float] | None = None
    """What time it was there, at a time of our monotonic clock."""
    known: dict[str, Metered] = field(default_factory=dict)
    """By uid."""
    turns: Turns = field(default_factory=Turns)
    partial: int = 0
    """Looks in a row that had no answer for some jobs."""
    knows_nothing: bool = False
    """Of none of the jobs that have waited for a while: said once."""

    @property
    def measure(self) -> str:
        """How metrics call it."""
        return self.source.value


class Joules:
    """`run` asks, `of` tells. Without `joules` in the settings nothing is ever asked."""

    def __init__(
        self,
        settings: Callable[[], EnergySettings | None],
        clock: Clock,
        jobs: Callable[[], Iterable[JobView]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`settings`: None while they are not known. `jitter`: from 0 to 1."""
        self._settings = settings
        self._clock = clock
        self._jobs = jobs
        self._jitter = jitter
        self._given: object = None
        self._exporters: list[_Exporter] = []
        self._counts: dict[str, Counts] = {}

    async def run(self, ports: Ports) -> None:
        """Ask for ever."""
        self._given = None  # what was there asks through ports that are closed
        while True:
            await self.poll(ports)
            await self._clock.sleep(TICK_SECONDS)

    async def poll(self, ports: Ports) -> None:
        """Ask once what is due. Never raises."""
        settings = self._settings()
        if settings is None:
            return
        if (settings.joules, settings.polling) != self._given:
            self._configure(settings, ports)
        due = [each for each in self._exporters if each.asked.due <= self._clock.monotonic()]
        await asyncio.gather(*(self._look(each) for each in due))

    def of(self, job: JobView) -> Mapping[EnergySource, Metered | None]:
        """By exporter that is asked for this job; None: nothing is known so far."""
        settings = self._settings()
        if settings is None:  # who was asked before may still be: what is set aside stays so
            return dict.fromkeys(_awaited(job))
        asked = {source for each in settings.joules for source in _sources(each)}
        if job.spec is not None and not job.spec.gpus_per_worker:
            asked.discard(EnergySource.DCGM)
        known = {each.source: self._metered(each, job.uid) for each in self._exporters}
        return {each: known.get(each) for each in sorted(asked)}

    def _metered(self, exporter: _Exporter, uid: str) -> Metered | None:
        """Our wall clock may have been set since: what time it is there, our monotonic one knows."""
        if exporter.there is None:
            return None
        at, told_so = exporter.there
        skew = told_so + self._clock.monotonic() - at - self._clock.now().timestamp()
        return replace(exporter.known.get(uid, _NOTHING), skew=skew)

    def ages(self) -> list[Age]:
        """Of each exporter, with those of other sources."""
        now = self._clock.now().timestamp()
        return [
            Age(each.settings.name, "", each.measure, max(0.0, now - (each.asked.good_at or each.began)),
                each.asked.interval)
            for each in self._exporters
        ]  # fmt: skip

    def counts(self) -> list[Counts]:
        """What was asked, and how it ended."""
        return list(self._counts.values())

    def _configure(self, settings: EnergySettings, ports: Ports) -> None:
        before, self._given = self._exporters, (settings.joules, settings.polling)
        self._exporters = []
        for given in settings.joules:
            counts = self._counts.setdefault(given.name, Counts(given.provider))
            limited = replace(ports, http=counted(ports.http, counts, settings.polling.timeout_seconds))
            for source, exporter in _sources(given).items():
                now = self._clock.now().timestamp()
                feed = JoulesFeed(given, exporter, limited)
                new = _Exporter(given, source, feed, exporter.selector, Asked(given.look_seconds), now)
                for same in [each for each in before if each.settings == given and each.source is source]:
                    new = replace(same, feed=new.feed)
                self._exporters.append(new)

    async def _look(self, exporter: _Exporter) -> None:
        asked, began, counts = exporter.asked, self._clock.monotonic(), self._counts[exporter.settings.name]
        error: FeedError | None = None
        reason = problem = ""
        try:
            await self._ask(exporter)
        except FeedError as caught:
            error, reason, problem = caught, caught.reason, f"{exporter.settings.name} {caught}"
        except Exception as caught:
            log.exception("joules cannot be read, by a defect", extra={"source": exporter.settings.name})
            reason = "defect"
            problem = f"{exporter.settings.name} cannot be read, by a defect: {type(caught).__name__}"
        if not reason:
            asked.due, asked.failures, asked.problem = began + asked.interval, 0, ""
            asked.good_at = self._clock.now().timestamp()
            counts.answers += 1
            return
        asked.failed(problem)
        asked.due = began + asked.wait(error, self._jitter())
        counts.failures[reason] += 1
        if asked.failures & (asked.failures - 1) == 0:  # one outage, few lines
            log.warning(
                "joules cannot be read",
                extra={"source": exporter.settings.name, "failures": asked.failures, "why": problem},
            )

    async def _ask(self, exporter: _Exporter) -> None:
        now = self._clock.now().timestamp()
        at = self._clock.monotonic()
        there = await exporter.feed.clock(now)
        exporter.there, skew = (at, there), there - now
        wanted = await self._wanted(exporter, there)
        waiting = {job.uid for job, _ in wanted}
        exporter.known = {uid: each for uid, each in exporter.known.items() if uid in waiting}
        batches = exporter.turns.batches(wanted, at)
        await self._all(exporter, batches, at, skew)
        self._say(exporter, [job for job, _ in wanted if there - job.since > STRANGE_SECONDS])

    async def _all(self, exporter: _Exporter, left: list[list[JobAsked]], began: float, skew: float) -> None:
        """What one question has no answer to keeps nobody else's out, and what came is kept. Raises where nothing
        came."""
        failed: list[FeedError] = []
        unanswered: set[str] = set()
        good = too_large = 0
        while left and too_large < MAX_TOO_LARGE and len(failed) < MAX_FAILED:
            if self._clock.monotonic() - began > BEGIN_SECONDS:
                break
            batch = left.pop(0)
            exporter.turns.begins(batch)
            unanswered |= {job.uid for job in batch}
            try:
                await self._within(exporter, batch, skew)
            except TooLarge as error:
                # What one job's pods have scraped is their tenant's: it makes no other one's unknown.
                too_large += 1
                self._counts[exporter.settings.name].failures[error.reason] += 1
                if len(batch) == 1:
                    self._say_alone(exporter, batch[0].uid, error)
                    unanswered.discard(batch[0].uid)
                left[:0] = exporter.turns.failed(batch)
            except (Slow, Unreadable) as error:
                failed.append(error)
                if len(batch) == 1:
                    exporter.turns.rests(batch[0], self._clock.monotonic(), exporter.asked.interval)
                left += exporter.turns.failed(batch)  # others come first
            except FeedError:
                self._counts[exporter.settings.name].failures.update(each.reason for each in failed)
                raise
            else:
                good += 1
                exporter.turns.answered(batch)
                unanswered -= {job.uid for job in batch}
        counts = self._counts[exporter.settings.name]
        counts.failures.update(each.reason for each in (failed if good else failed[:-1]))
        if failed and not good:
            raise failed[-1]
        unanswered |= {job.uid for batch in left for job in batch}
        self._say_partial(exporter, sorted(unanswered), failed)

    async def _within(self, exporter: _Exporter, batch: Sequence[JobAsked], skew: float) -> None:
        try:
            async with asyncio.timeout(BATCH_SECONDS):
                await self._batch(exporter, batch, skew)
        except TimeoutError:
            raise Slow(f"no whole answer of all counters within {BATCH_SECONDS:g} s") from None

    def _say_alone(self, exporter: _Exporter, uid: str, error: FeedError) -> None:
        if uid not in exporter.turns.told_of:
            exporter.turns.told_of.add(uid)
            log.warning(
                "joules of a job cannot be asked for",
                extra={"source": exporter.settings.name, "job": uid, "why": str(error)},
            )

    def _say_partial(self, exporter: _Exporter, uids: Sequence[str], failed: Sequence[FeedError]) -> None:
        exporter.partial = exporter.partial + 1 if uids else 0
        if uids and exporter.partial & (exporter.partial - 1) == 0:  # few lines
            log.warning(
                "joules of some jobs are not known: others have theirs",
                extra={
                    "source": exporter.settings.name,
                    "exporter": exporter.source.value,
                    "jobs": len(uids),
                    "first": ", ".join(uids[:NAMED]),
                    "why": str(failed[-1]) if failed else "no time is left in this look",
                },
            )

    def _say(self, exporter: _Exporter, old: Sequence[JobAsked]) -> None:
        """A label that has another name than is thought is no failure of Prometheus': it knows nothing."""
        nothing = bool(old) and not any(each.buckets for each in exporter.known.values())
        if nothing and not exporter.knows_nothing:
            log.warning(
                "no joules of any pod are found: are the metric and its labels as joules has them?",
                extra={
                    "source": exporter.settings.name,
                    "exporter": exporter.source.value,
                    "jobs": len(old),
                    "series": exporter.selector,
                },
            )
        exporter.knows_nothing = nothing

    async def _batch(self, exporter: _Exporter, jobs: Sequence[JobAsked], skew: float) -> None:
        """Where there is nothing in a while, there may be in a longer one: counters tell of gaps, too."""
        reach = NEAR_SECONDS
        while jobs:
            now = self._clock.now().timestamp()
            latest = now + skew
            end = min(latest, max(job.since for job in jobs) + reach)
            found = await exporter.feed.fetch(jobs, end, now, skew)
            exporter.known |= found
            if end >= latest:
                return
            jobs = [job for job in jobs if found[job.uid].until <= job.since]
            reach *= 2

    async def _wanted(self, exporter: _Exporter, now: float) -> list[tuple[JobAsked, int]]:
        """Jobs that wait, with how many workers they have. `now`: by Prometheus' clock."""
        found: list[tuple[JobAsked, int]] = []
        for number, job in enumerate(self._jobs()):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # each is read from its status as it comes
            awaited = _awaited(job).get(exporter.source)
            if awaited is None or not awaited.pending:
                continue
            size = max(1, job.status.workers.current, job.status.workers.target)
            found.append((_asked(job, awaited, now), size))
        return found


def _awaited(job: JobView) -> Mapping[EnergySource, Awaited]:
    used = job.status.energy.used if job.status.energy is not None else None
    return from_status(used).awaited if used is not None and used.counted.awaited else {}


def _most_workers(job: JobView) -> int:
    """That it has had: one that has ended or rests has none now."""
    known = [job.status.workers.current, job.status.workers.target]
    if job.spec is not None:
        known += [job.spec.workers, job.spec.elastic.max_workers if job.spec.elastic is not None else 0]
    return max(known)


def _asked(job: JobView, awaited: Awaited, now: float) -> JobAsked:
    suffix = names.of(job.status)
    end = f"-{literal(suffix)}" if suffix else ""
    since = awaited.since or now - awaited.until - BEFORE_SECONDS
    return JobAsked(
        job.uid,
        job.namespace,
        f"{literal(job.name)}-[0-9]+-[0-9]+{end}",
        max(since, now - FAR_SECONDS),
        min(COUNTERS_A_WORKER * (1 + _most_workers(job)), MAX_COUNTERS),
    )


def _sources(given: JoulesSource) -> dict[EnergySource, exporters.Exporter]:
    found: dict[EnergySource, exporters.Exporter] = {}
    if given.dcgm is not None:
        found[EnergySource.DCGM] = exporters.dcgm(given.dcgm)
    if given.kepler is not None:
        found[EnergySource.KEPLER] = exporters.kepler(given.kepler)
    return found


__all__ = ["Joules"]
