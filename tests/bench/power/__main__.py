"""Do 256 GPUs get to where they are told, in time, and what is left of their work? SIMULATED: see cluster.py.

For each target a cluster of random jobs draws its full power, is told a part of it for three minutes, and then that
it is over. The operator's own code (`drivetrain_energy.power.course`) decides, each second, by what a noisy meter and
late reports tell it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from random import Random

from bench.power.cluster import TICK_S, Cluster, build
from bench.power.profiles import IDLE_WATTS, LIMITS, Profile, published
from drivetrain_energy.power.course import Course, advance

GPUS = 256
BEFORE_S, EVENT_S, AFTER_S = 20, 180, 100
REACH_GOAL_S, OVERSHOOT_GOAL = 30.0, 0.01


@dataclass(frozen=True, slots=True)
class Result:
    """Of one target."""

    part: float
    reach_s: float
    overshoot: float
    """Of the highest second after 30 s, over the target; below 0: never above it."""
    used: float
    throughput: float
    uniform: float
    uniform_below: int
    """Jobs that one uniform cap holds below their tier."""
    pausing: float
    below: int
    """The same of ours, suspended ones included."""
    jobs: int
    suspended: int
    back_s: float
    moves: int

    @property
    def met(self) -> bool:
        return self.reach_s <= REACH_GOAL_S and self.overshoot <= OVERSHOOT_GOAL


class Operator:
    """Ticks each second; learns of the limit up to two seconds after it was set."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.course = Course()
        self.moves = 0
        self.below: tuple[str, ...] = ()

    def tick(self, limit: float | None) -> None:
        gangs = {gang.job.name: gang for gang in self.cluster.gangs}
        tick = advance(
            self.course,
            self.cluster.time,
            limit,
            [gang.job for gang in gangs.values()],
            {name: gang.seen for name, gang in gangs.items()},
            fixed=GPUS * IDLE_WATTS,
            measured=self.cluster.read(),
        )
        self.course = tick.course
        self.below = tick.target.below if tick.target else ()
        for order in tick.orders:
            self.moves += order.workers != gangs[order.name].ordered[0]
            gangs[order.name].tell(self.cluster.time, order.workers, order.cap)


def run(seed: int, profiles: dict[str, Profile], low: float, high: float, tiers: tuple[int, ...]) -> Result:
    random = Random(seed)
    cluster = build(random, profiles, GPUS, tiers)
    operator = Operator(cluster)
    for _ in range(round(BEFORE_S / TICK_S)):
        cluster.pass_tick()
    full = cluster.watts
    part = random.uniform(low, high)
    target = part * full
    late = random.uniform(0.5, 2)
    watts, throughputs = _pass(cluster, operator, EVENT_S, late, None, target)
    steady = watts[round(REACH_GOAL_S / TICK_S) :]
    above = [index for index, drawn in enumerate(watts) if drawn > target * (1 + OVERSHOOT_GOAL)]
    suspended, below = sum(gang.workers == 0 for gang in cluster.gangs), len(operator.below)
    settled = throughputs[len(throughputs) // 3 :]
    moves = operator.moves
    after, _ = _pass(cluster, operator, AFTER_S, late, target, None)
    slow = [index for index, drawn in enumerate(after) if drawn < 0.98 * full]
    cap, uniform = _uniform(cluster, target)
    idle = GPUS * IDLE_WATTS
    return Result(
        part,
        (above[-1] + 1) * TICK_S if above else 0.0,
        max(steady) / target - 1,
        statistics.fmean(steady) / target,
        statistics.fmean(settled),
        uniform,
        sum(gang.profile.at(cap)[1] < gang.job.share - 1e-3 for gang in cluster.gangs),
        max(0.0, (target - idle) / (full - idle)),
        below,
        len(cluster.gangs),
        suspended,
        (slow[-1] + 1) * TICK_S if slow else 0.0,
        moves,
    )


def _pass(
    cluster: Cluster, operator: Operator, seconds: float, late: float, before: float | None, limit: float | None
) -> tuple[list[float], list[float]]:
    """Watts and throughput of each tick."""
    watts, throughputs = [], []
    for index in range(round(seconds / TICK_S)):
        if index % round(1 / TICK_S) == 0:
            operator.tick(limit if index * TICK_S >= late else before)
        cluster.pass_tick()
        watts.append(cluster.watts)
        throughputs.append(cluster.throughput)
    return watts, throughputs


def _uniform(cluster: Cluster, target: float) -> tuple[float, float]:
    """The best that one cap for all could do: by the true watts, which nobody knows, without margin or delay."""
    low, high = LIMITS.least, LIMITS.most
    for _ in range(40):
        cap = (low + high) / 2
        drawn = sum(min(gang.profile.at(cap)[0] * gang.power, cap) * len(gang.gpus) for gang in cluster.gangs)
        low, high = (cap, high) if drawn <= target else (low, cap)
    return low, sum(gang.profile.at(low)[1] * len(gang.gpus) for gang in cluster.gangs) / GPUS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-power", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--targets", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--low", type=float, default=0.5, help="least part of full power (default 0.5)")
    parser.add_argument("--high", type=float, default=0.95, help="highest (default 0.95)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.targets < 1 or not 0 < arguments.low <= arguments.high <= 1:
        parser.error("--targets: at least 1; 0 < --low <= --high <= 1")
    profiles = published()

    def runs(tiers: tuple[int, ...]) -> list[Result]:
        seeds = range(arguments.seed * 100_000, arguments.seed * 100_000 + arguments.targets)
        return [run(seed, profiles, arguments.low, arguments.high, tiers) for seed in seeds]

    print("SIMULATED: 256 GPUs by published profiles (profiles.md); what decides is the operator's own code")
    print("\nJobs keep 0.9, 0.7 or 0.5 of their throughput, by their tier; one uniform cap does not know of that")
    kept = runs((1, 2, 3))
    report(kept)
    print("\nAny job may be slowed as far as one likes, as by one uniform cap")
    free = runs((6,))
    report(free)
    return 0 if all(result.met for result in (*kept, *free)) else 1


def report(results: list[Result]) -> None:
    """A table, and a line of all."""
    columns = ("targets", "met", "reach p50", "max", "overshoot", "used", "throughput", "uniform", "pausing", "back")
    print(f"{'of full power':13}" + "".join(f"{column:>11}" for column in columns))
    for low, high in ((0.0, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
        some = [result for result in results if low <= result.part < high]
        if some:
            print(f"{low:.1f} to {min(high, 1.0):.1f}   " + "".join(f"{cell:>11}" for cell in _cells(some)))
    print(
        f"below their tier: {sum(r.below for r in results)} of {sum(r.jobs for r in results)} jobs, "
        f"{sum(r.suspended for r in results)} suspended (one uniform cap: {sum(r.uniform_below for r in results)}); "
        f"sizes changed on the way there: {sum(r.moves for r in results)}"
    )
    met = sum(result.met for result in results)
    print(
        f"met={met}/{len(results)} reach_s={max(r.reach_s for r in results):.1f} "
        f"overshoot={max(0.0, max(r.overshoot for r in results)):.4f} throughput={_mean(results, 'throughput'):.3f} "
        f"uniform={_mean(results, 'uniform'):.3f} pausing={_mean(results, 'pausing'):.3f}"
    )


def _cells(some: list[Result]) -> list[str]:
    reach = [result.reach_s for result in some]
    return [
        str(len(some)),
        str(sum(result.met for result in some)),
        f"{statistics.median(reach):.1f}",
        f"{max(reach):.1f}",
        f"{max(result.overshoot for result in some):.4f}",
        *(f"{_mean(some, of):.3f}" for of in ("used", "throughput", "uniform", "pausing")),
        f"{max(result.back_s for result in some):.1f}",
    ]


def _mean(some: list[Result], of: str) -> float:
    return statistics.fmean(getattr(result, of) for result in some)


if __name__ == "__main__":
    sys.exit(main())
