"""Prometheus, asked what the pods of many jobs have drawn, in few requests (`/api/v1/query`).

The first asks which counters their pods have had; the others fetch raw samples of these, whoever had them: who else has
a GPU, and where it stood before a pod came, is needed to share out what it drew. Pods are known by their names, which
have a piece of the job's uid in them: so those that are gone are found, and those of a job of the same name are not.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.energy import WATTS_AT_MOST
from drivetrain_energy.accounts.counters import Gathered, Metered, Sample, complete_until, stretches
from drivetrain_energy.feeds.adapter import Ports, Told, joined, told
from drivetrain_energy.feeds.errors import Slow, TooLarge, Unavailable, Unreadable
from drivetrain_energy.feeds.exporters import Exporter
from drivetrain_energy.feeds.reached import asking
from drivetrain_energy.feeds.reading import items, mapping
from drivetrain_energy.feeds.transport import Answer, Request, document
from drivetrain_energy.feeds.values import number, within
from drivetrain_energy.settings.joules import JoulesSource

BEFORE_SECONDS: Final = 300.0
"""A counter's last sample before the time that is asked for is not older; Prometheus itself looks back as far."""
SAMPLES: Final = 40_000
"""In one answer: about a megabyte."""
SCRAPED_SECONDS: Final = 15.0
"""As often as is usual at most."""
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
"""Of a counter. Who can have something scraped chooses its labels: others do not get into a query."""

Counter = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobAsked:
    """Whose pods. `pods`: a regular expression that names of its workers match as a whole."""

    uid: str
    namespace: str
    pods: str
    since: float
    """By Prometheus' clock."""
    counters: int
    """More its pods cannot have had: then nothing of them is looked at."""


@dataclass(frozen=True, slots=True)
class _Series:
    """`rank`: by which of the exporter's labels its holder is known."""

    target: str
    rank: int
    holder: str | None
    samples: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class _Found:
    """Of one counter."""

    component: str
    series: list[_Series] = field(default_factory=list)

    @property
    def samples(self) -> list[Sample]:
        """Without those of targets that know of no pods, where others do. Where the exporter's own labels name pods,
        those that Prometheus gives a target are the exporter's pod."""
        best = min((each.rank for each in self.series if each.holder is not None), default=0)
        knows = {each.target for each in self.series if each.holder is not None and each.rank == best}
        return [
            Sample(at, joules, holders)
            for each in self.series
            if each.target in knows
            for holders in [frozenset({each.holder} if each.holder is not None and each.rank == best else ())]
            for at, joules in each.samples
        ]


class JoulesFeed:
    """Of one exporter. Raises FeedError, and nothing else whatever is answered."""

    def __init__(self, settings: JoulesSource, exporter: Exporter, ports: Ports) -> None:
        self._settings = settings
        self._exporter = exporter
        self._ports = ports

    async def clock(self, now: float) -> float:
        """What time it is there; `now`: here."""
        told_so = await self._ask("time()", None, now)
        result = items(mapping(mapping(told_so.found, "the answer").get("data"), "data").get("result"), "result")
        found = within(number(result[0])) if result else None
        if found is None:
            raise Unreadable("time() is no time")
        return found

    async def fetch(self, jobs: Sequence[JobAsked], end: float, now: float, skew: float) -> dict[str, Metered]:
        """By uid, what they drew up to `end`, which is by Prometheus' clock; `now` is by ours, which that one is ahead
        of by `skew`."""
        start = min(job.since for job in jobs) - BEFORE_SECONDS
        seconds = max(1, int(end - start))
        first = await self._ask(self._counters(jobs, seconds), end, now)
        by_id = await asyncio.to_thread(self._ids, first, jobs)
        found = {job.uid: Gathered(job.since) for job in jobs}
        batches = list(_batches(sorted(by_id), max(1, int(SAMPLES * SCRAPED_SECONDS / seconds))))
        while batches:
            batch = batches.pop()
            wanted = "|".join(literal(each) for each in batch)
            query = f'{{{self._exporter.selector},{self._exporter.id_label}=~"{wanted}"}}[{seconds}s]'
            try:
                answer = await self._ask(query, end, now)
            except TooLarge:
                if len(batch) == 1:
                    raise
                batches += _batches(batch, (len(batch) + 1) // 2)  # scraped oftener, or shared by many
                continue
            await asyncio.to_thread(self._add, answer, jobs, by_id, found)
        return await asyncio.to_thread(lambda: {job.uid: self._metered(job, found[job.uid], end, skew) for job in jobs})

    async def _ask(self, query: str, at: float | None, now: float) -> Told:
        by = asking(self._settings, self._ports.secrets)
        url = joined(self._settings.base_url, "api/v1/query")
        form = {"query": query} | ({"time": f"{at:.3f}"} if at is not None else {})
        answer = await self._ports.http.send(Request(url, headers=by.headers, form=form, ca=by.ca))
        if answer.status == 404:
            raise Unavailable("answered 404: is baseURL what stands before /api/v1/query?")
        if answer.status == 422:
            raise TooLarge("cannot be computed (422), for too many samples or such")
        if answer.status == 504 or (answer.status == 503 and _timed_out(answer)):
            raise Slow(f"the query has taken too long there ({answer.status})")
        return await asyncio.to_thread(_read, answer, now)

    def _counters(self, jobs: Sequence[JobAsked], seconds: int) -> str:
        exporter = self._exporter
        namespaces = "|".join(sorted({literal(job.namespace) for job in jobs}))
        pods = "|".join(sorted({job.pods for job in jobs})).replace("\\", "\\\\")
        had = " or ".join(
            f'last_over_time({{{exporter.selector},{namespace}=~"{namespaces}",{pod}=~"{pods}"}}[{seconds}s])'
            for pod, namespace in exporter.holders
        )
        labels = ", ".join(dict.fromkeys([exporter.id_label, *(each for pair in exporter.holders for each in pair)]))
        return f"group by ({labels}) ({had})"

    def _ids(self, answer: Told, jobs: Sequence[JobAsked]) -> dict[str, set[str]]:
        """Of counters, with the uids of jobs whose pods had them."""
        pods: defaultdict[str, list[tuple[re.Pattern[str], str]]] = defaultdict(list)
        for job in jobs:
            pods[job.namespace].append((re.compile(job.pods), job.uid))
        found: defaultdict[str, set[str]] = defaultdict(set)
        of_job: Counts[str] = Counts()
        for each in _result(answer, "vector"):
            labels = mapping(each.get("metric"), "metric")
            name, holder = labels.get(self._exporter.id_label), self._exporter.holder(labels)
            if not isinstance(name, str) or ID.fullmatch(name) is None or holder is None:
                continue
            uids = {uid for named, uid in pods.get(holder[1], ()) if named.fullmatch(holder[2])}
            of_job.update(uids - found[name])
            found[name] |= uids
        many = {job.uid for job in jobs if of_job[job.uid] > job.counters}
        return {name: uids - many for name, uids in found.items() if uids - many}

    def _add(
        self, answer: Told, jobs: Sequence[JobAsked], by_id: Mapping[str, set[str]], known: Mapping[str, Gathered]
    ) -> None:
        """Counters are in one answer with all of their samples, which are not kept."""
        found: dict[Counter, _Found] = {}
        for each in _result(answer, "matrix"):
            labels = mapping(each.get("metric"), "metric")
            counter, component = self._exporter.counter(labels), self._exporter.component(labels)
            if counter is None or component is None:
                continue
            holder = self._exporter.holder(labels)
            of = found.setdefault(counter, _Found(str(component)))
            of.series.append(
                _Series(
                    str(labels.get("instance")),
                    holder[0] if holder is not None else 0,
                    f"{holder[1]}/{holder[2]}" if holder is not None else None,
                    tuple(_samples(items(each.get("values"), "values"), self._exporter.unit)),
                )
            )
        by_uid = {job.uid: job for job in jobs}
        for counter, of in found.items():
            samples = of.samples
            for uid in by_id.get(counter[0], ()):
                _measure(by_uid[uid], of.component, samples, known[uid])

    def _metered(self, job: JobAsked, found: Gathered, asked: float, skew: float) -> Metered:
        until = complete_until(found.last, job.since, self._exporter.stale)
        return Metered(job.since, min(until, asked), found.buckets(until), asked, skew)


def _measure(job: JobAsked, component: str, samples: Sequence[Sample], found: Gathered) -> None:
    pods = re.compile(job.pods)
    holders = {holder for sample in samples for holder in sample.holders}
    mine = frozenset(holder for holder in holders if _is_of(holder, job.namespace, pods))
    if not mine:
        return
    drew, refused = stretches(samples, mine, component, WATTS_AT_MOST[component])
    found.add(drew)
    found.refuse(refused)
    found.last.append(max(sample.at for sample in samples))


def _is_of(holder: str, namespace: str, pods: re.Pattern[str]) -> bool:
    where, _, pod = holder.partition("/")
    return where == namespace and pods.fullmatch(pod) is not None


def _read(answer: Answer, now: float) -> Told:
    found = told(answer, now)
    said = mapping(found.found, "the answer")
    if said.get("status") != "success":
        raise Unreadable(f"the query fails: {str(said.get('error') or 'no status')[:200]}")
    if said.get("warnings"):
        raise Unreadable(f"the answer may be in part: {str(said['warnings'])[:200]}")
    return found


def _timed_out(answer: Answer) -> bool:
    """Of a Prometheus that is well, and whose `--query.timeout` is over; one that is not has no such document."""
    try:
        found = document(answer.body)
    except Unreadable:
        return False
    return isinstance(found, dict) and found.get("errorType") == "timeout"


def _result(answer: Told, kind: str) -> Iterator[Mapping[str, Any]]:
    data = mapping(mapping(answer.found, "the answer").get("data"), "data")
    if data.get("resultType") != kind:
        raise Unreadable(f"the query's result is no {kind}")
    for each in items(data.get("result"), "result"):
        yield mapping(each, "a series")


def _samples(pairs: Iterable[Any], unit: float) -> Iterator[tuple[float, float]]:
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            continue
        at, value = within(number(pair[0])), number(pair[1])
        if at is not None and value is not None and value >= 0:
            yield at, value * unit


def literal(text: str) -> str:
    """For a regular expression within a string of PromQL."""
    return "".join(each if each.isalnum() or each in "-_" else f"[{each}]" for each in text if each not in '"\\[]^\n')


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]


__all__ = ["BEFORE_SECONDS", "JobAsked", "JoulesFeed", "literal"]
