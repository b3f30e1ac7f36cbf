"""Prometheus, asked what the pods of many jobs have drawn, in few requests (`/api/v1/query`).

The first asks which counters their pods have had; the others fetch raw samples of these, whoever had them: who else has
a GPU, and where it stood before a pod came, is needed to share out what it drew. Pods are known by their names, which
have a piece of the job's uid in them: so those that are gone are found, and those of a job of the same name are not.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivetrain_api.energy import WATTS_AT_MOST
from drivetrain_energy.counters import Metered, Sample, Stretch, complete_until, stretches
from drivetrain_energy.feeds.adapter import Ports, Told, joined, told
from drivetrain_energy.feeds.errors import Unreadable
from drivetrain_energy.feeds.exporters import Exporter
from drivetrain_energy.feeds.reading import items, mapping
from drivetrain_energy.feeds.transport import Answer, Request, secret
from drivetrain_energy.feeds.values import number, within
from drivetrain_energy.settings.joules import JoulesSource

BEFORE_SECONDS: Final = 300.0
"""A counter's last sample before the time that is asked for is not older; Prometheus itself looks back as far."""
SAMPLES: Final = 40_000
"""In one answer: about a megabyte."""
SCRAPED_SECONDS: Final = 15.0
"""As often as is usual at most."""

Counter = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobAsked:
    """Whose pods. `pods`: a regular expression that names of its workers match as a whole."""

    uid: str
    namespace: str
    pods: str
    since: float
    """By Prometheus' clock."""


@dataclass(slots=True)
class _Found:
    """Of one counter."""

    component: str
    by_target: defaultdict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """By what was scraped."""

    @property
    def samples(self) -> list[Sample]:
        """Without those of targets that know of no pods, where others do."""
        told = [of for of in self.by_target.values() if any(each.holders for each in of)]
        return [each for of in told for each in of]


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
        found: dict[Counter, _Found] = {}
        for batch in _batches(sorted(by_id), max(1, int(SAMPLES * SCRAPED_SECONDS / seconds))):
            wanted = "|".join(literal(each) for each in batch)
            query = f'{{{self._exporter.selector},{self._exporter.id_label}=~"{wanted}"}}[{seconds}s]'
            answer = await self._ask(query, end, now)
            await asyncio.to_thread(self._collect, answer, found)
        return await asyncio.to_thread(self._metered, jobs, by_id, found, end, skew)

    async def _ask(self, query: str, at: float | None, now: float) -> Told:
        headers = {"Accept": "application/json"}
        if self._settings.token_file is not None:
            headers["Authorization"] = f"Bearer {secret(self._ports.secrets, self._settings.token_file)}"
        url = joined(self._settings.base_url, "api/v1/query")
        form = {"query": query} | ({"time": f"{at:.3f}"} if at is not None else {})
        answer = await self._ports.http.send(Request(url, headers=headers, form=form))
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
        pods = [(job.namespace, re.compile(job.pods), job.uid) for job in jobs]
        found: defaultdict[str, set[str]] = defaultdict(set)
        for each in _result(answer, "vector"):
            labels = mapping(each.get("metric"), "metric")
            name, holder = labels.get(self._exporter.id_label), self._exporter.holder(labels)
            if not isinstance(name, str) or not name or len(name) > 128 or holder is None:
                continue
            found[name] |= {uid for where, named, uid in pods if where == holder[0] and named.fullmatch(holder[1])}
        return found

    def _collect(self, answer: Told, found: dict[Counter, _Found]) -> None:
        for each in _result(answer, "matrix"):
            labels = mapping(each.get("metric"), "metric")
            counter, component = self._exporter.counter(labels), self._exporter.component(labels)
            if counter is None or component is None:
                continue
            holder = self._exporter.holder(labels)
            holders = frozenset({"/".join(holder)} if holder is not None else ())
            of = found.setdefault(counter, _Found(str(component)))
            of.by_target[str(labels.get("instance"))] += _samples(
                items(each.get("values"), "values"), self._exporter.unit, holders
            )

    def _metered(
        self,
        jobs: Sequence[JobAsked],
        by_id: Mapping[str, set[str]],
        found: Mapping[Counter, _Found],
        asked: float,
        skew: float,
    ) -> dict[str, Metered]:
        known: dict[str, list[_Found]] = {job.uid: [] for job in jobs}
        for counter, of in found.items():
            for uid in by_id.get(counter[0], ()):
                known[uid].append(of)
        return {job.uid: self._of(job, known[job.uid], asked, skew) for job in jobs}

    def _of(self, job: JobAsked, counters: Sequence[_Found], asked: float, skew: float) -> Metered:
        pods, drawn, refused, last = re.compile(job.pods), list[Stretch](), 0, list[float]()
        for each in counters:
            samples = each.samples
            holders = {holder for sample in samples for holder in sample.holders}
            mine = frozenset(holder for holder in holders if _is_of(holder, job.namespace, pods))
            if not mine:
                continue
            found, wrong = stretches(samples, mine, each.component, WATTS_AT_MOST[each.component])
            drawn += [stretch for stretch in found if stretch.end > job.since]
            refused += wrong
            last.append(max(sample.at for sample in samples))
        until = complete_until(last, job.since, self._exporter.stale)
        return Metered(job.since, min(until, asked), tuple(drawn), asked, skew, refused)


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


def _result(answer: Told, kind: str) -> Iterator[Mapping[str, Any]]:
    data = mapping(mapping(answer.found, "the answer").get("data"), "data")
    if data.get("resultType") != kind:
        raise Unreadable(f"the query's result is no {kind}")
    for each in items(data.get("result"), "result"):
        yield mapping(each, "a series")


def _samples(pairs: Iterable[Any], unit: float, holders: frozenset[str]) -> Iterator[Sample]:
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            continue
        at, value = within(number(pair[0])), number(pair[1])
        if at is not None and value is not None and value >= 0:
            yield Sample(at, value * unit, holders)


def literal(text: str) -> str:
    """For a regular expression within a string of PromQL."""
    return "".join(each if each.isalnum() or each in "-_" else f"[{each}]" for each in text if each not in '"\\[]^\n')


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]


__all__ = ["BEFORE_SECONDS", "JobAsked", "JoulesFeed", "literal"]
