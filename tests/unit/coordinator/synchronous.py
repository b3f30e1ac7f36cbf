"""Ranks that train in step, as a simulation: what would each of them tell of its stages?

Gradients leave in buckets while backward makes them; a bucket's sum begins when the last rank has come to it, and sums
follow one another. So all ranks' steps take equally long, whoever is late, and in which stage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from drivetrain_api.holdup import Stage, StageTimes

BASE: Mapping[Stage, float] = {
    Stage.DATA: 0.004,
    Stage.FORWARD: 0.020,
    Stage.BACKWARD: 0.040,
    Stage.EXCHANGE: 0.003,
    Stage.UPDATE: 0.010,
    Stage.SCRIPT: 0.002,
}
BUCKETS = 4
SUM_SECONDS = 0.006
"""Of one bucket, on the way."""


@dataclass
class Ranks:
    """`delays`: seconds a step, by rank and stage. `shares`: samples of each rank."""

    world: int
    delays: Mapping[tuple[int, Stage], float] = field(default_factory=dict)
    noise: float = 0.05
    hiccups: float = 0.01
    """Of so many steps a rank takes five times as long for a stage."""
    machines: float = 0.01
    """By which ranks differ for good."""
    shares: Sequence[int] = ()
    base: Mapping[Stage, float] = field(default_factory=lambda: dict(BASE))
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._speed = [self._random.gauss(1, self.machines) for _ in range(self.world)]
        self._clock = [0.0] * self.world
        self._own = [dict.fromkeys(Stage, 0.0) for _ in range(self.world)]
        self._waited = [0.0] * self.world
        self._samples = [0] * self.world
        self.steps = 0

    @property
    def now(self) -> float:
        return max(self._clock)

    def told(self, rank: int) -> StageTimes:
        return StageTimes(
            steps=self.steps,
            seconds={str(stage): value for stage, value in self._own[rank].items()},
            waited=self._waited[rank],
            samples=self._samples[rank],
        )

    def step(self) -> None:
        """All ranks make one."""
        takes = [self._takes(rank) for rank in range(self.world)]
        begin = [clock + each[Stage.DATA] + each[Stage.FORWARD] for clock, each in zip(self._clock, takes, strict=True)]
        summed = 0.0
        for bucket in range(1, BUCKETS + 1):
            there = max(at + each[Stage.BACKWARD] * bucket / BUCKETS for at, each in zip(begin, takes, strict=True))
            summed = max(summed, there) + SUM_SECONDS * self.scale
        for rank, each in enumerate(takes):
            ready = begin[rank] + each[Stage.BACKWARD] + each[Stage.EXCHANGE]
            done = max(ready, summed)
            self._waited[rank] += done - ready
            self._clock[rank] = done + each[Stage.UPDATE] + each[Stage.SCRIPT]
            self._samples[rank] += self.shares[rank] if self.shares else 8
            for stage, seconds in each.items():
                self._own[rank][stage] += seconds
        self.steps += 1

    def until(self, seconds: float, every: float) -> Iterator[float]:
        """Train so long; yields the time whenever another `every` seconds have passed."""
        end, at = self.now + seconds, self.now + every
        while self.now < end:
            self.step()
            while self.now >= at:
                yield at
                at += every

    def _takes(self, rank: int) -> dict[Stage, float]:
        found = {}
        for stage, seconds in self.base.items():
            factor = self._speed[rank] * self._random.lognormvariate(0, self.noise)
            if self._random.random() < self.hiccups / len(self.base):
                factor *= 5
            if self.shares and stage in (Stage.DATA, Stage.FORWARD, Stage.BACKWARD):
                factor *= self.shares[rank] / 8
            found[stage] = self.scale * seconds * factor + self.delays.get((rank, stage), 0.0)
        return found
