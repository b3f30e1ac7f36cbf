"""How do the jobs of a power domain get by with so many watts?

In this order: caps, then fewer workers, then jobs suspended; nothing is restarted. Each job keeps the share of its
throughput that its tier promises. Who may be suspended is, highest tier first, before a job is held below its share.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from drivetrain_energy.job.curve import Curve
from drivetrain_energy.power.caps import Limits, Line, Rung, line
from drivetrain_energy.power.waterfill import Gang, fill, steady


class Means(StrEnum):
    """The hardest thing that is done to a job."""

    NOTHING = "nothing"
    CAP = "cap"
    SHRINK = "shrink"
    SUSPEND = "suspend"


def least_share(tier: int) -> float:
    """Of its throughput, what a job of the tier keeps: all in 0, 0.9 in 1, 0.7 in 2, 0.5 in 3, and so on."""
    if tier < 0:
        raise ValueError(f"tier: 0 or more, not {tier}")
    return 1.0 if tier == 0 else max(0.0, 1.1 - 0.2 * tier)


def watts_of(limit: str, whole: float) -> float:
    """A limit as people write it, `75%` of `whole` or `12000` watts, in watts. ValueError if it is neither."""
    text = limit.strip()
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"a limit is watts, such as 12000, or a part of the domain's, such as 75%, not {limit!r}")
    return whole * min(value, 100.0) / 100 if text.endswith("%") else value


# No slots: its lines are made once.
@dataclass(frozen=True)
class Job:
    """A job of the domain, as it would run if there were no limit."""

    name: str
    curve: Curve
    limits: Limits
    workers: int
    least_workers: int
    tier: int = 3
    weight: float = 1.0
    """What its whole throughput is worth beside that of others; such as its devices."""
    may_suspend: bool = True
    capped: bool = True
    """Somebody sets the caps. Without a node agent they are advice, and save nothing."""
    keep: float | None = None
    """The share of its throughput that it keeps; None: as its tier has it."""
    whole: float | None = None
    """The throughput that shares are shares of; None: what it gets with all its workers."""

    def line(self, workers: int) -> Line:
        """What it gets and draws with so many."""
        if workers not in self._lines:
            whole = line(self.curve, workers, self.limits)
            self._lines[workers] = whole if self.capped else Line((whole.most,), self.limits)
        return self._lines[workers]

    @cached_property
    def full(self) -> float:
        """Its throughput without a limit."""
        return self.whole if self.whole is not None else self.line(self.workers).most.throughput

    @property
    def share(self) -> float:
        return least_share(self.tier) if self.keep is None else self.keep

    def gang(self, workers: int, share: float | None = None) -> Gang:
        """Its part in the water-filling, with so many workers."""
        return Gang(self.name, self.line(workers), self.weight, self.share if share is None else share, self.full)

    @cached_property
    def _lines(self) -> dict[int, Line]:
        return {}


@dataclass(frozen=True, slots=True)
class Order:
    """How a job is to run."""

    name: str
    means: Means
    workers: int
    """0: suspended."""
    cap: float | None
    """Of each device, in whole watts; None: as it comes."""
    watts: float
    """What it then draws, as its curve says."""
    share: float
    """Of its throughput, that it then keeps."""


@dataclass(frozen=True, slots=True)
class Shed:
    """What all jobs of a domain are to do."""

    orders: tuple[Order, ...]
    """In the order of the jobs."""
    below: tuple[str, ...]
    """Jobs that keep less than their tier promises, as nothing else is left."""
    watts: float
    short: float
    """Watts by which even that is too much: what is left may neither be suspended nor run on less."""


def shed(jobs: Sequence[Job], watts: float, ordered: dict[str, float | None] | None = None) -> Shed:
    """Fit the jobs into `watts`, which is for them alone; caps stay near those that were `ordered` before.

    The same jobs, in whatever order, end the same.
    """
    jobs = sorted(jobs, key=lambda job: job.name)
    running, shares = _who_runs(jobs, watts)
    counts = _shrunk(running, shares, watts)
    gangs = [job.gang(counts[job.name], shares[job.name]) for job in running]
    filled = fill(gangs, watts)
    if ordered is not None:
        filled = steady(gangs, filled, ordered, watts)
    grants = {grant.name: grant for grant in filled.grants}
    orders, below = [], []
    for job in jobs:
        if (grant := grants.get(job.name)) is None:
            orders.append(Order(job.name, Means.SUSPEND, 0, None, 0.0, 0.0))
        else:
            shrunk = counts[job.name] < job.workers
            means = Means.SHRINK if shrunk else Means.NOTHING if grant.cap is None else Means.CAP
            share = grant.throughput / job.full if job.full else 1.0
            orders.append(Order(job.name, means, counts[job.name], grant.cap, grant.watts, share))
        if orders[-1].share < job.share - 1e-9:
            below.append(job.name)
    return Shed(tuple(orders), tuple(below), filled.watts, filled.short)


def as_wished(jobs: Iterable[Job]) -> tuple[Order, ...]:
    """No limit."""
    return tuple(
        Order(job.name, Means.NOTHING, job.workers, None, job.line(job.workers).most.watts, 1.0)
        for job in sorted(jobs, key=lambda job: job.name)
    )


def _who_runs(jobs: Sequence[Job], watts: float) -> tuple[list[Job], dict[str, float]]:
    """Those who are not suspended, and the share that each keeps."""
    least = {job.name: _least(job, job.share) for job in jobs}
    total = sum(rung.watts for rung in least.values())
    suspended: list[Job] = []
    for job in sorted(
        (job for job in jobs if job.may_suspend), key=lambda job: (-job.tier, _worth(job, least), job.name)
    ):
        if total <= watts:
            break
        suspended.append(job)
        total -= least[job.name].watts
    # The last ones may have been large enough for some before them to go on; the lowest tier first.
    for job in reversed(suspended.copy()):
        if total + least[job.name].watts <= watts:
            suspended.remove(job)
            total += least[job.name].watts
    shares = {job.name: job.share for job in jobs}
    gone = {job.name for job in suspended}
    running = [job for job in jobs if job.name not in gone]
    for job in sorted(running, key=lambda job: (-job.tier, job.name)):
        if total <= watts:
            break
        total -= least[job.name].watts - _least(job, 0.0).watts
        shares[job.name] = 0.0
    return running, shares


def _shrunk(jobs: Sequence[Job], shares: dict[str, float], watts: float) -> dict[str, int]:
    """How many workers each has: all, if caps do; else those go first that are worth their watts the least."""
    counts = {job.name: job.workers for job in jobs}
    total = sum(job.gang(job.workers, shares[job.name]).floor.watts for job in jobs)
    steps = [step for job in jobs if (step := _step(job, job.workers, shares[job.name]))]
    by_name = {job.name: job for job in jobs}
    heapq.heapify(steps)
    while total > watts and steps:
        _, name, saved = heapq.heappop(steps)
        counts[name] -= 1
        total -= saved
        if step := _step(by_name[name], counts[name], shares[name]):
            heapq.heappush(steps, step)
    return counts


def _step(job: Job, workers: int, share: float) -> tuple[float, str, float] | None:
    """(worth per watt, job, watts saved) of one worker less, if the job may and that saves anything."""
    if workers <= max(1, job.least_workers) or job.full <= 0:
        return None
    if job.line(workers - 1).most.throughput < share * job.full - 1e-9:
        return None
    before, after = job.gang(workers, share).floor, job.gang(workers - 1, share).floor
    saved = before.watts - after.watts
    if saved <= 0:
        return None
    return job.weight * (before.throughput - after.throughput) / job.full / saved, job.name, saved


def _least(job: Job, share: float) -> Rung:
    """The fewest watts on which it keeps the share."""
    workers = job.workers
    while _step(job, workers, share):
        workers -= 1
    return job.gang(workers, share).floor


def _worth(job: Job, least: dict[str, Rung]) -> float:
    rung = least[job.name]
    return job.weight * rung.throughput / job.full / rung.watts if job.full and rung.watts else float("inf")


__all__ = ["Job", "Means", "Order", "Shed", "as_wished", "least_share", "shed", "watts_of"]
