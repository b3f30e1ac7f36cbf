"""Forty jobs that come one after another to shared nodes, beside the optimum of somebody who knew them all; and a
thousand jobs at once, by the clock."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from bench.energy.profiles import workers_only
from bench.energy.single import signal
from bench.energy.zones import Zone
from drivetrain_energy.fleet.member import Granted, Member
from drivetrain_energy.fleet.sharing import Capacity, share
from drivetrain_energy.job.curve import Curve, Point
from drivetrain_energy.job.request import Request, Switch

HOUR = 3600.0
JOBS, HOURS, NODES = 40, 96, 40


@dataclass(frozen=True, slots=True)
class Job:
    """One that arrives."""

    name: str
    curve: Curve
    arrives: int
    deadline: int
    work: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Carbon over that of the optimum."""

    ours: float
    at_once: float
    """All jobs known at the start: what of the distance is not for want of knowing the future."""
    scaler: float
    """CarbonScaler, first come first served."""
    missed: int
    scaler_missed: int


def jobs(seed: int, count: int = JOBS) -> list[Job]:
    """8 to 24 hours of one worker, 12 to 48 hours to do it in, arriving over two days."""
    rng = random.Random(seed)
    curves = list(workers_only(host=True).values())
    made = []
    for number in range(count):
        curve, arrives, length = rng.choice(curves), rng.randrange(0, HOURS - 48), rng.uniform(8, 24)
        deadline = arrives + max(int(length * rng.uniform(1, 2)) + 1, 12)
        one = next(point.throughput for point in curve if point.workers == 1)
        made.append(Job(f"job-{number:02d}", curve, arrives, min(deadline, HOURS), length * one * HOUR))
    return made


def measure(values: Zone, seed: int) -> Fleet:
    """One zone and one set of jobs."""
    window, some = values[:HOURS], jobs(seed)
    best = _optimum(some, window)
    ours, missed = _rolling(some, window)
    at_once, _ = _rolling([replace(job, arrives=0) for job in some], window)
    known = _optimum([replace(job, arrives=0) for job in some], window)
    scaler, scaler_missed = _first_come(some, window)
    return Fleet(ours / best, at_once / known, scaler / best, missed, scaler_missed)


def seconds_for(count: int, hours: int) -> float:
    """Processor seconds to plan so many jobs over so many hours, best of three: others use this machine, too."""
    values = [300 + 150 * np.sin(at / 24 * 2 * np.pi) for at in range(hours)]
    told = signal(values, 0, hours)
    members = [
        Member(
            f"team-{at % 20}",
            job.name + str(at),
            Request(0.0, job.work * 3, job.curve, told, deadline=hours * HOUR, switch=Switch(2.0, 30.0, 1.0)),
        )
        for at, job in enumerate(jobs(1, count))
    ]
    took = []
    for _ in range(3):
        start = time.process_time()
        share(members, Capacity(count))
        took.append(time.process_time() - start)
    return min(took)


def _rolling(some: list[Job], values: Zone) -> tuple[float, int]:
    """Planned again whenever a job arrives."""
    left = {job.name: job.work for job in some}
    told, grams, granted = signal(values, 0, len(values)), 0.0, list[Granted]()
    for hour in range(len(values)):
        here = [job for job in some if job.arrives <= hour < job.deadline and left[job.name] > 1e-6 * job.work]
        if any(job.arrives == hour for job in here) and here:
            members = [
                Member(
                    job.name[-1],
                    job.name,
                    Request(hour * HOUR, left[job.name], job.curve, told, deadline=job.deadline * HOUR, margin=0.0),
                )
                for job in here
            ]
            granted = share(members, Capacity(NODES))
        for one in granted:
            for slot in one.slots:
                seconds = min(slot.end, (hour + 1) * HOUR) - max(slot.start, hour * HOUR)
                if seconds > 0:
                    grams += slot.watts * seconds * values[hour] / 3.6e6
                    left[one.member.name] -= slot.throughput * seconds
    return grams, sum(left[job.name] > 1e-6 * job.work for job in some)


def _first_come(some: list[Job], values: Zone) -> tuple[float, int]:
    """CarbonScaler for each as it arrives, in what those before it left."""
    free, grams, missed = [NODES] * len(values), 0.0, 0
    for job in sorted(some, key=lambda job: (job.arrives, job.name)):
        points = [Point(0, 0.0, 0.0), *sorted(job.curve, key=lambda point: point.workers)]
        steps = sorted(
            (-(high.throughput - low.throughput) / ((high.watts - low.watts) * values[at]), at, high.workers)
            for at in range(job.arrives, job.deadline)
            for low, high in pairwise(points)
            if high.workers <= free[at]
        )
        ways, done = dict[int, Point](), 0.0
        for _, at, workers in steps:
            if done >= job.work:
                break
            before = ways.get(at, points[0])
            if workers > before.workers:
                ways[at] = points[workers]
                done += (points[workers].throughput - before.throughput) * HOUR
        left = job.work
        for at, point in sorted(ways.items()):
            part = min(1.0, left / (point.throughput * HOUR))
            grams += part * point.watts * HOUR * values[at] / 3.6e6
            left -= part * point.throughput * HOUR
            free[at] -= point.workers
        missed += left > 1e-6 * job.work
    return grams, missed


def _optimum(some: list[Job], values: Zone) -> float:
    """The linear optimum of all of them, with the nodes of each hour as a bound."""
    cost, rows, columns, data = list[float](), list[int](), list[int](), list[float]()
    row = len(some) + len(values)
    for number, job in enumerate(some):
        for at in range(job.arrives, job.deadline):
            for point in job.curve:
                column = len(cost)
                cost.append(point.watts * HOUR * values[at] / 3.6e6)
                rows += [number, len(some) + at, row]
                columns += [column] * 3
                data += [-point.throughput * HOUR / job.work, point.workers, 1.0]
            row += 1
    bounds = [-1.0] * len(some) + [float(NODES)] * len(values) + [1.0] * (row - len(some) - len(values))
    matrix = sparse.csr_matrix((data, (rows, columns)), shape=(row, len(cost)))
    found = linprog(cost, A_ub=matrix, b_ub=bounds, method="highs")
    assert found.success, found.message
    return float(found.fun)


__all__ = ["Fleet", "jobs", "measure", "seconds_for"]
