"""When would a job be on if a step had a price, whatever the sum of its steps?

The Lagrangian relaxation of `runs`: with the row that couples the windows priced instead of kept, the best runs follow
from window to window (dynamic programming), with what starting and ending takes, and long enough. What a price finds is
the optimum for the work that it does; a search over prices finds runs for about the work that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.request import Request
from drivetrain_energy.job.windows import Window

HALVINGS = 12
"""Prices that are tried."""

Runs = tuple[tuple[int, int], ...]
"""Windows from … to before …, in order, with at least one window between them."""


def relaxed(
    windows: Sequence[Window], rungs: Sequence[Sequence[Point]], request: Request, work: float
) -> Iterator[Runs]:
    """Runs that are worth a look, each once: by halving between a price at which nothing is worth it and one at which
    all is. `rungs`: of each window, with no work first."""
    rates = [window.rate(way) / way.throughput for window, ways in zip(windows, rungs, strict=True) for way in ways[1:]]
    if not rates:
        return
    seen = set[Runs]()
    low, high = 0.0, 100 * max(*rates, 1e-30)
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5 if low else high / 1000
        runs, steps = _at(price, windows, rungs, request)
        if runs and runs not in seen:
            seen.add(runs)
            yield runs
        if steps < work:
            low = price
        else:
            high = price


def _at(
    price: float, windows: Sequence[Window], rungs: Sequence[Sequence[Point]], request: Request
) -> tuple[Runs, float]:
    """The best runs at that price of a step, and the steps that they do."""
    ways = [
        max(ways[1:], key=lambda way: price * way.throughput - window.rate(way), default=None)
        for window, ways in zip(windows, rungs, strict=True)
    ]
    sums, opened = [0.0], [0]
    for window, way in zip(windows, ways, strict=True):
        gain = (price * way.throughput - window.rate(way)) * window.seconds if way is not None else 0.0
        sums.append(sums[-1] + gain)
        opened.append(opened[-1] + (way is None))
    running = request.running_since is not None
    begins = [_lost(ways, windows, range(at, len(windows)), request.switch.resume) for at in range(len(windows))]
    ends = [_lost(ways, windows, range(at - 1, -1, -1), request.switch.suspend) for at in range(len(windows) + 1)]
    if running:
        begins[0] = 0.0
    off = [0.0] * (len(windows) + 1)
    """The most that is had up to before each window, at rest there."""
    came = [(-1, -1)] * (len(windows) + 1)
    best, start, reach = float("-inf"), -1, 0
    for end in range(1, len(windows) + 1):
        off[end] = off[end - 1]
        if ways[end - 1] is None:
            best, start, reach = float("-inf"), -1, end
            continue
        while reach < end and _enough(windows, reach, end, request, running):
            value = off[reach] - price * begins[reach] - sums[reach]
            if value > best:
                best, start = value, reach
            reach += 1
        last = end == len(windows)
        value = best + sums[end] - (0.0 if last else price * ends[end])
        if start >= 0 and value > off[end]:
            off[end], came[end] = value, (start, end)
    return _back(came, off, windows, ways, begins, ends)


def _enough(windows: Sequence[Window], start: int, end: int, request: Request, running: bool) -> bool:
    """May a run be so long? The last one may be short, but which that is nobody knows here."""
    return (running and start == 0) or windows[end - 1].end - windows[start].start >= request.min_run


def _back(
    came: Sequence[tuple[int, int]],
    off: Sequence[float],
    windows: Sequence[Window],
    ways: Sequence[Point | None],
    begins: Sequence[float],
    ends: Sequence[float],
) -> tuple[Runs, float]:
    runs, steps, at = list[tuple[int, int]](), 0.0, len(windows)
    while at > 0:
        if came[at][0] < 0 or off[at] == off[at - 1]:
            at -= 1
            continue
        start, end = came[at]
        runs.append((start, end))
        steps += sum(
            way.throughput * window.seconds
            for way, window in zip(ways[start:end], windows[start:end], strict=True)
            if way is not None
        )
        steps -= begins[start] + (ends[end] if end < len(windows) else 0.0)
        at = start
    joined: list[tuple[int, int]] = []
    for start, end in reversed(runs):
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return tuple(joined), steps


def _lost(ways: Sequence[Point | None], windows: Sequence[Window], order: range, seconds: float) -> float:
    """Steps that switching takes, for so many seconds, in these windows."""
    lost = 0.0
    for at in order:
        way = ways[at]
        if seconds <= 0 or way is None:
            break
        part = min(seconds, windows[at].seconds)
        lost, seconds = lost + way.throughput * part, seconds - part
    return lost


__all__ = ["Runs", "relaxed"]
