"""When is a job on, and when suspended, where that is not free? A search over runs, judged by what filling them costs.

Each run is at the least size or higher for all of its time, loses seconds at its start and end, and lasts as long as
`min_run`. The search starts from where the free optimum works, and takes any change of one run that makes it cheaper:
not the optimum of that (it is a problem with fixed charges), but never dearer than the best start that was tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from drivetrain_energy.job.fill import Filled, Ladder
from drivetrain_energy.job.relaxed import Runs, relaxed
from drivetrain_energy.job.request import Request
from drivetrain_energy.job.windows import Window

MOST_TRIES = 400
"""Sets of runs that are judged for one plan, or a few more."""

LONG = 0.05
"""Of a window: a start that takes more moves where it is worth to run. Less does not, and guesses take time."""
BEGUN = 3
"""Guesses that the search begins with: one ends where another does not."""
ALONE = 16
"""Single runs that are judged before any others."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a set of runs comes to."""

    runs: Runs
    useful: tuple[float, ...]
    """Seconds of each window that make progress."""
    filled: Filled


class Search:
    """Over runs of one request."""

    def __init__(self, request: Request, ladder: Ladder, work: float, most: int = MOST_TRIES) -> None:
        """`ladder` has the least size above no work. `most`: sets of runs that are judged, more or less."""
        self._request, self._ladder, self._work, self._most = request, ladder, work, most
        self._windows = ladder.windows
        self._closed = list(accumulate((len(rungs) < 2 for rungs in ladder.rungs), initial=0))
        """Windows without room for it, before each one."""
        self._tries = 0
        mean = (self._windows[-1].end - self._windows[0].start) / len(self._windows) if self._windows else 0.0
        self._long_starts = request.switch.resume + request.switch.suspend > LONG * mean
        since = request.running_since
        on_until = request.now if since is None else max(request.now, since + request.min_run)
        self._on_until = min(on_until, self._windows[-1].end) if self._windows else on_until
        late = request.max_start_delay
        self._start_by = None if request.started or late is None else request.now + late

    def best(self, begin: Sequence[bool]) -> Found | None:
        """From the windows that are on to begin with; None: the work fits no runs that are allowed."""
        if not self._request.may_suspend:
            return self._single(begin)
        return min((self._climbed(found) for found in self._begun(begin)), key=_cost, default=None)

    def _begun(self, begin: Sequence[bool]) -> list[Found]:
        """Where it is worth to begin: the cheapest guesses, of which there are more where a start takes long."""
        free = (self._judge(self._allowed(runs)) for runs in self._earlier(_runs(begin)))
        judged = [next((found for found in free if found is not None), None), self._judge(self._open())]
        if self._long_starts:
            guesses = relaxed(self._windows, self._ladder.rungs, self._request, self._work)
            judged += [self._judge(self._allowed(runs)) for runs in guesses]
            judged += [self._judge(runs) for runs in self._alone()]
        distinct = {found.runs: found for found in judged if found is not None}
        return sorted(distinct.values(), key=_cost)[: BEGUN if self._long_starts else 1]

    def _climbed(self, best: Found) -> Found:
        """With any change of one run that makes it cheaper, until none does."""
        better: Found | None = best
        while better is not None:
            best, better = better, None
            for runs in self._neighbours(best.runs):
                if self._tries >= self._most:
                    return best
                better = self._judge(runs, _cost(best) * (1 - 1e-9))
                if better is not None:
                    break
        return best

    def _single(self, begin: Sequence[bool]) -> Found | None:
        """One run, from the start to the end: every pair of ends, most promising first, until none can be better."""
        windows, rungs = self._windows, self._ladder.rungs
        worth = self._worth_of_work(begin)
        gains = [
            min((window.rate(rung) - worth * rung.throughput for rung in ways[1:]), default=0.0) * window.seconds
            for window, ways in zip(windows, rungs, strict=True)
        ]
        sums = [0.0]
        for gain in gains:
            sums.append(sums[-1] + gain)
        last = 0 if self._request.running_since is not None else len(windows) - 1
        pairs = [
            (worth * self._work + sums[end] - sums[start], end, start)
            for start in range(last + 1)
            if self._start_by is None or windows[start].start <= self._start_by
            for end in range(start + 1, len(windows) + 1)
            if self._closed[start] == self._closed[end]
        ]
        best: Found | None = None
        for bound, end, start in sorted(pairs):
            if (best is not None and bound >= _cost(best)) or self._tries > self._most:
                break
            best = self._judge(((start, end),), math.inf if best is None else _cost(best)) or best
        return best or self._judge(((0, len(windows)),))

    def _worth_of_work(self, begin: Sequence[bool]) -> float:
        """A price of a step at which the free optimum does about this work: any bounds truly, this one closely."""
        ways = zip(self._windows, self._ladder.rungs, begin, strict=True)
        return max((window.rate(rungs[-1]) / rungs[-1].throughput for window, rungs, on in ways if on), default=0.0)

    def _judge(self, runs: Runs | None, below: float = math.inf) -> Found | None:
        """None: they are not allowed, do not do the work, or cost no less than `below`."""
        if not runs or not self._holds(runs):
            return None
        self._tries += 1
        useful = self._useful(runs)
        filled, lost = self._ladder.fill(self._work, useful, 1, below), 0.0
        for _ in range(2):  # what resizing loses has to be done, too, and hardly changes how often it is resized
            if filled is None or not self._request.switch.resize:
                break
            before, lost = lost, self._lost_by_resizing(filled)
            if lost == before:
                break
            filled = self._ladder.fill(self._work + lost, useful, 1, below)
        return None if filled is None else Found(runs, useful, filled)

    def _useful(self, runs: Runs) -> tuple[float, ...]:
        """Seconds of progress: a run's first window loses what resuming takes, its last what suspending takes."""
        useful = [0.0] * len(self._windows)
        for start, end in runs:
            for at in range(start, end):
                useful[at] = self._windows[at].seconds
        switch, now = self._request.switch, self._request.running_since is not None
        for start, end in runs:
            if not (now and start == 0):
                _lose(useful, range(start, end), switch.resume)
            if end < runs[-1][1]:
                _lose(useful, range(end - 1, start - 1, -1), switch.suspend)
        return tuple(useful)

    def _lost_by_resizing(self, filled: Filled) -> float:
        steps, before = 0.0, 0
        for rungs, level in zip(self._ladder.rungs, filled.levels, strict=True):
            way = rungs[level]
            if before and way.workers and before != way.workers:
                steps += way.throughput
            before = way.workers
        if filled.partial is not None:
            at = filled.partial[0]
            steps += self._ladder.rungs[at][filled.levels[at] + 1].throughput
        return self._request.switch.resize * steps

    def _holds(self, runs: Runs) -> bool:
        """Are they allowed? The last run may be short: it ends because the job does."""
        first = runs[0][0]
        if any(self._closed[start] < self._closed[end] for start, end in runs):
            return False
        if self._on_until > self._request.now and (
            first > 0 or self._seconds(runs[0]) < self._on_until - self._request.now
        ):
            return False
        if self._start_by is not None and self._windows[first].start > self._start_by:
            return False
        running = self._request.running_since is not None
        return all(
            self._seconds(run) >= self._request.min_run or (running and run[0] == 0) or run is runs[-1] for run in runs
        )

    def _seconds(self, run: tuple[int, int]) -> float:
        return self._windows[run[1] - 1].end - self._windows[run[0]].start

    def _price(self, at: int) -> float:
        """Without end where it cannot run."""
        there = 0 <= at < len(self._windows) and self._closed[at] == self._closed[at + 1]
        return self._windows[at].price if there else float("inf")

    def _allowed(self, runs: Runs) -> Runs:
        """The nearest runs that are long enough, begin in time, and go on while they must."""
        grown = [list(run) for run in runs]
        if self._start_by is not None and (not grown or self._windows[grown[0][0]].start > self._start_by):
            early = [at for at, window in enumerate(self._windows) if window.start <= self._start_by]
            cheapest = min(early, key=lambda at: (self._price(at), at))
            grown.insert(0, [cheapest, cheapest + 1])
        if self._on_until > self._request.now:
            grown.insert(0, [0, 1])
            while grown[0][1] < len(self._windows) and self._windows[grown[0][1]].start < self._on_until:
                grown[0][1] += 1
        for run in grown:
            while self._seconds((run[0], run[1])) < self._request.min_run:
                before, after = self._price(run[0] - 1), self._price(run[1])
                if min(before, after) == float("inf"):
                    break
                if after <= before:
                    run[1] += 1
                else:
                    run[0] -= 1
        return self._long(_joined(grown))

    def _open(self) -> Runs:
        """Whenever there is room for it."""
        there = [self._closed[at] == self._closed[at + 1] for at in range(len(self._windows))]
        return self._long(_runs(there))

    def _long(self, runs: Runs) -> Runs:
        """Without those that have no room to be long enough, but for the first, which may have begun, and the last."""
        ends = (runs[0], runs[-1]) if runs else ()
        return tuple(run for run in runs if run in ends or self._seconds(run) >= self._request.min_run)

    def _earlier(self, runs: Runs) -> Iterator[Runs]:
        """The same; then with starts that come earlier, where what they take is so long that all does not fit."""
        for by in (0, 1, 2, 4, 8):
            yield _joined([[max(0, start - by), end] for start, end in runs])

    def _neighbours(self, runs: Runs) -> Iterator[Runs]:
        """One run dropped, joined with the next, with another end, or with a rest in its dearest windows."""
        count = len(self._windows)
        for at, (start, end) in enumerate(runs):
            rest = [list(run) for run in runs if run != (start, end)]
            if rest:
                yield _joined(rest)
            if at + 1 < len(runs):
                yield _joined([*rest, [start, runs[at + 1][1]]])
            for by in (1, 2, 4):
                for first, last in ((start - by, end), (start + by, end), (start, end - by), (start, end + by)):
                    if 0 <= first < last <= count:
                        yield _joined([*rest, [first, last]])
            if (rest_in := self._dearest(start, end)) is not None:
                yield _joined([*rest, [start, rest_in[0]], [rest_in[1], end]])
            for by in (1, -1):
                if start + by >= 0 and end + by <= count:
                    yield _joined([*rest, [start + by, end + by]])

        yield from self._with_another(runs)

    def _with_another(self, runs: Runs) -> Iterator[Runs]:
        """And one run more, in the cheapest windows of each rest."""
        rests = pairwise([0, *(edge for run in runs for edge in run), len(self._windows)])
        for number, (start, end) in enumerate(rests):
            if number % 2 or end - start < 1:
                continue
            best = min(range(start, end), key=lambda at: (self._price(at), at))
            for length in (1, 2, 4):
                for first in {max(start, best - length + 1), min(best, end - length)}:
                    if start <= first and first + length <= end:
                        yield _joined([*(list(run) for run in runs), [first, first + length]])

    def _alone(self) -> list[Runs]:
        """Single runs that are just long enough at full speed, or a little longer: the cheapest at a glance."""
        lost, count = self._request.switch.resume, len(self._windows)
        steps, costs = [0.0], [0.0]
        for window, rungs in zip(self._windows, self._ladder.rungs, strict=True):
            steps.append(steps[-1] + rungs[-1].throughput * window.seconds)
            costs.append(costs[-1] + window.rate(rungs[-1]) * window.seconds)
        found, end = [], 1
        for start in range(count):
            least = self._work + self._ladder.rungs[start][-1].throughput * lost
            end = max(end, start + 1)
            while end < count and steps[end] - steps[start] < least:
                end += 1
            for last in range(end, min(end + 3, count) + 1):
                done = steps[last] - steps[start]
                if done > 0 and self._closed[start] == self._closed[last]:
                    found.append(((costs[last] - costs[start]) / done, start, last))
        return [((start, end),) for _, start, end in sorted(found)[:ALONE]]

    def _dearest(self, start: int, end: int) -> tuple[int, int] | None:
        """Within a run, the windows around the dearest that are dearer than its mean; None: they are at its ends."""
        prices = [window.price for window in self._windows[start:end]]
        mean = sum(prices) / len(prices)
        first = last = max(range(len(prices)), key=prices.__getitem__)
        while first > 0 and prices[first - 1] > mean:
            first -= 1
        while last + 1 < len(prices) and prices[last + 1] > mean:
            last += 1
        return (start + first, start + last + 1) if first > 0 and last + 1 < len(prices) else None


def begin(windows: Sequence[Window], free: Filled) -> tuple[list[Window], list[bool]]:
    """Where the free optimum is on. The window of which it uses a share is cut in two, the part that is on next to what
    is on anyhow."""
    on = [level > 0 for level in free.levels]
    if free.partial is None or on[free.partial[0]]:
        return list(windows), on
    at, share = free.partial
    window, late = windows[at], at + 1 < len(on) and on[at + 1]
    middle = window.end - share * window.seconds if late else window.start + share * window.seconds
    if not window.start < middle < window.end:
        return list(windows), on
    cut = [replace(window, end=middle), replace(window, start=middle)]
    return [*windows[:at], *cut, *windows[at + 1 :]], [*on[:at], not late, late, *on[at + 1 :]]


def _lose(useful: list[float], windows: range, seconds: float) -> None:
    for at in windows:
        lost = min(useful[at] * (1 - 1e-9), seconds)
        useful[at], seconds = useful[at] - lost, seconds - lost
        if seconds <= 0:
            return


def _runs(on: Sequence[bool]) -> Runs:
    return _joined([[at, at + 1] for at, is_on in enumerate(on) if is_on])


def _joined(runs: list[list[int]]) -> Runs:
    """In order, and those that touch as one."""
    joined: list[list[int]] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return tuple((start, end) for start, end in joined)


def _cost(found: Found) -> float:
    return found.filled.cost


__all__ = ["Found", "Runs", "Search", "begin"]
