"""256 GPUs and their jobs, SIMULATED: what really happens when somebody is told to draw less.

Nothing here knows what the operator expects: power and throughput of each job differ from its curve, GPUs from each
other, load goes up and down, orders come late, a few of them very late, clocks take time to follow a cap, a job
shrinks when its step is over, stops after it has saved, and comes back after it has started; the meter is noisy and a
second old.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from bench.power.profiles import IDLE_WATTS, LIMITS, Profile
from drivetrain_energy.job.curve import Point
from drivetrain_energy.power.course import Seen
from drivetrain_energy.power.demand import Job

TICK_S = 0.2
GPUS_A_WORKER = 4
DVFS_S = 0.3
"""Time constant with which a GPU's power follows its cap."""


@dataclass(slots=True)
class Told:
    """An order on its way."""

    time: float
    workers: int | None = None
    """None: it is about the cap."""


@dataclass
class Gang:
    """One job, as it is. Its workers have four GPUs each."""

    job: Job
    profile: Profile
    power: float
    """What it draws, over what its curve says."""
    speed: float
    step_s: float
    random: Random
    gpus: list[float]
    """Of each GPU that it has in full size: what that draws, over the mean."""
    workers: int = 0
    cap: float = LIMITS.most
    load: float = 1.0
    drawn: float = 0.0
    shown_cap: float | None = None
    told: list[Told] = field(default_factory=list)
    ordered: tuple[int, float | None] = (0, None)

    def tell(self, time: float, workers: int, cap: float | None) -> None:
        """What the operator writes; who looks after it sees that when he looks."""
        if cap != self.ordered[1]:
            late = 1 + 2 * self.random.random() if self.random.random() > 0.02 else 4 + 6 * self.random.random()
            # It is told the newest whenever it looks, and looks once it was told that there is one.
            if not any(told.workers is None for told in self.told):
                self.told.append(Told(time + late))
        if workers != self.ordered[0]:
            self.told = [told for told in self.told if told.workers is None]
            self.told.append(Told(time + self._until(workers), workers=workers))
        self.ordered = (workers, cap)

    def pass_time(self, time: float) -> None:
        for told in [told for told in self.told if told.time <= time]:
            self.told.remove(told)
            if told.workers is not None:
                self.workers = told.workers
            else:
                self.shown_cap = self.ordered[1]
                self.cap = LIMITS.most if self.shown_cap is None else self.shown_cap
        # Slow ups and downs of a per cent, as of data and of communication.
        self.load += (1.0 - self.load) * TICK_S / 20 + self.random.gauss(0, 0.01 * (2 * TICK_S / 20) ** 0.5)
        busy = self.workers * GPUS_A_WORKER
        wanted = self.profile.at(self.cap)[0] * self.power * self.load
        # The hardware holds each GPU to its cap, whatever it would draw.
        settled = (
            sum(min(wanted * gpu, self.cap * 1.005) for gpu in self.gpus[:busy]) + (len(self.gpus) - busy) * IDLE_WATTS
        )
        self.drawn += (settled - self.drawn) * min(1.0, TICK_S / DVFS_S)

    @property
    def throughput(self) -> float:
        """Beside that without a limit. One cap for all, so no GPU waits for another."""
        return self.workers / self.job.workers * self.profile.at(self.cap)[1] * self.load

    @property
    def seen(self) -> Seen:
        return Seen(self.workers, self.shown_cap)

    def _until(self, workers: int) -> float:
        step = self.random.random() * self.step_s
        if workers == 0:
            return 1 + step + 2 + 4 * self.random.random()  # it saves first
        if workers < self.workers:
            return 1 + step + 0.5
        return 15 + 25 * self.random.random()  # pods start, and join at a step


@dataclass
class Cluster:
    """All of them, and the meter of the domain."""

    gangs: list[Gang]
    random: Random
    time: float = 0.0
    last_second: deque[float] = field(default_factory=lambda: deque(maxlen=round(1 / TICK_S)))
    readings: deque[float] = field(default_factory=lambda: deque(maxlen=5))

    def pass_tick(self) -> None:
        self.time += TICK_S
        for gang in self.gangs:
            gang.pass_time(self.time)
        self.last_second.append(sum(gang.drawn for gang in self.gangs))

    @property
    def watts(self) -> float:
        """Really drawn, a mean of the last second."""
        return sum(self.last_second) / len(self.last_second)

    def read(self) -> float:
        """What the operator is told: a mean of five readings with half a per cent of noise, the newest a second old."""
        shown = sum(self.readings) / len(self.readings) if self.readings else self.watts
        self.readings.append(self.watts * (1 + self.random.gauss(0, 0.005)))
        return shown

    @property
    def throughput(self) -> float:
        weights = [len(gang.gpus) for gang in self.gangs]
        return sum(gang.throughput * weight for gang, weight in zip(self.gangs, weights, strict=True)) / sum(weights)


def build(random: Random, profiles: dict[str, Profile], gpus: int, tiers: tuple[int, ...]) -> Cluster:
    """Jobs of random workloads, sizes and tiers, on all GPUs."""
    gangs: list[Gang] = []
    left = gpus // GPUS_A_WORKER
    while left:
        workers = min(left, random.choice((1, 2, 4, 4, 8, 8, 12, 16)))
        left -= workers
        gangs.append(_gang(random, profiles[random.choice(sorted(profiles))], f"job-{len(gangs):02}", workers, tiers))
    return Cluster(gangs, random)


def _gang(random: Random, profile: Profile, name: str, workers: int, tiers: tuple[int, ...]) -> Gang:
    job = Job(
        name,
        _curve(profile, workers),
        LIMITS,
        workers,
        max(1, workers // 4),
        random.choice(tiers),
        float(workers * GPUS_A_WORKER),
    )
    spread = [random.gauss(1, 0.02) for _ in range(workers * GPUS_A_WORKER)]
    mean = sum(spread) / len(spread)
    return Gang(
        job,
        profile,
        random.uniform(0.96, 1.04),
        1.0,
        random.uniform(0.5, 6),
        random,
        [gpu / mean for gpu in spread],
        workers,
        ordered=(workers, None),
        drawn=workers * GPUS_A_WORKER * profile.points[-1][1],
    )


def _curve(profile: Profile, workers: int) -> tuple[Point, ...]:
    """Watts above idle: a GPU that is given up draws that still."""
    return tuple(
        Point(n, n * share, n * GPUS_A_WORKER * (watts - IDLE_WATTS), None if cap >= LIMITS.most else cap)
        for n in range(1, workers + 1)
        for cap, watts, share in profile.points
    )
