"""A Prometheus in memory: scrapes what it is handed, and answers the kinds of query that joules are asked by, in the
shapes that its HTTP API documents. That a real one answers alike, `test_real_prometheus.py` shows."""

from __future__ import annotations

import email.utils
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from drivetrain_energy.feeds.errors import Unavailable
from drivetrain_energy.feeds.transport import Answer, Request

_SELECTOR: Final = re.compile(r"\{([^{}]*)\}\[(\d+)s\]")
_MATCHER: Final = re.compile(r'(\w+)(=~|=)"((?:[^"\\]|\\.)*)"')
Labels = Mapping[str, str]


class Prometheus:
    """`clock` is its own, in seconds since 1970. As an `Http` it is asked without a server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.series: defaultdict[frozenset[tuple[str, str]], list[tuple[float, float]]] = defaultdict(list)
        self.away = False
        """Not reached."""
        self.asked: list[str] = []
        """Queries."""
        self.change: Callable[[dict[str, Any]], Any] = lambda found: found
        """What is answered instead."""

    def scrape(self, exported: Iterable[tuple[Labels, float]]) -> None:
        """What exporters say now; the name of the metric is the label __name__."""
        at = round(self.clock(), 3)
        for labels, value in exported:
            self.series[frozenset((k, v) for k, v in labels.items() if v)].append((at, value))

    async def send(self, request: Request) -> Answer:
        if self.away:
            raise Unavailable("not reached: ClientConnectorError", answered=False)
        assert request.form is not None
        date = email.utils.format_datetime(datetime.fromtimestamp(self.clock(), UTC), usegmt=True)
        found = self.answer(request.form["query"], float(request.form.get("time", self.clock())))
        return Answer(200, {"date": date}, json.dumps(found).encode())

    def answer(self, query: str, at: float) -> Any:
        """The document."""
        self.asked.append(query)
        if query == "time()":
            return self.change(
                {"status": "success", "data": {"resultType": "scalar", "result": [self.clock(), str(self.clock())]}}
            )
        selected: list[tuple[dict[str, str], list[tuple[float, float]]]] = []
        for matchers, seconds in _SELECTOR.findall(query):
            found = list(self._matching(matchers))
            for labels, samples in found:
                within = [each for each in samples if at - float(seconds) < each[0] <= at]
                if within:
                    selected.append((labels, within))
        if not query.startswith("group"):
            result = [{"metric": labels, "values": [[t, str(v)] for t, v in samples]} for labels, samples in selected]
            return self.change({"status": "success", "data": {"resultType": "matrix", "result": result}})
        by = query.partition("(")[2].partition(")")[0].split(", ")
        groups = {tuple((label, labels[label]) for label in by if label in labels) for labels, _ in selected}
        vector = [{"metric": dict(group), "value": [at, "1"]} for group in sorted(groups)]
        return self.change({"status": "success", "data": {"resultType": "vector", "result": vector}})

    def _matching(self, matchers: str) -> Iterable[tuple[dict[str, str], list[tuple[float, float]]]]:
        wanted = _MATCHER.findall(matchers)
        for key, samples in self.series.items():
            labels = dict(key)
            if all(_fits(labels.get(name, ""), how, value) for name, how, value in wanted):
                yield labels, samples


def _fits(found: str, how: str, value: str) -> bool:
    return found == value if how == "=" else re.fullmatch(value.replace("\\\\", "\\"), found) is not None
