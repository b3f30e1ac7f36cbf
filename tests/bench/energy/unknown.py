"""A job that nobody has profiled: is it worth a try at other sizes, before it is planned?

Three of the same job: one whose curve is known; one whose curve is assumed from its usual size and measured at the
sizes that plans give it (as the operator does it); and one that tries other sizes first, for some minutes each.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean

from bench.energy.profiles import workers_only
from bench.energy.simulate import HOUR
from bench.energy.single import signal
from bench.energy.zones import Zone
from drivetrain_energy.job.curve import Curve
from drivetrain_energy.job.plan import Plan
from drivetrain_energy.job.profile import Profile
from drivetrain_energy.job.replan import renew
from drivetrain_energy.job.request import JOULES_PER_KWH, Request

TICK = 300.0
"""Seconds after which what a size does is known."""
TRY = 180.0
"""Seconds of a try at another size."""
Tries = Callable[[Profile], int | None]


@dataclass(frozen=True, slots=True)
class Ran:
    """How it went."""

    grams: float
    missed: bool


def run(true: Curve, usual: int, request: Request, values: Sequence[float], tries: Tries | None) -> Ran:
    """To the end of the work. `tries`: which size to try next; None: the curve is known."""
    points = {point.workers: point for point in true}
    now, left, grams = request.now, request.work_steps, 0.0
    known = {usual}
    since: float | None = None
    made: Plan | None = None

    def spend(workers: int, seconds: float) -> None:
        nonlocal now, left, grams
        seconds = min(seconds, left / points[workers].throughput)
        left -= seconds * points[workers].throughput
        left = 0.0 if left < 1e-6 * request.work_steps else left
        grams += seconds * points[workers].watts * values[int(now // HOUR)] / JOULES_PER_KWH
        now += seconds

    def profile() -> Profile:
        return Profile(sorted(points), measured=tuple(points[size] for size in sorted(known)))

    if tries is not None:
        since = now
        spend(usual, TRY)  # so its pace becomes known at all
        while left > 0 and (size := tries(profile())) is not None:
            spend(size, TRY)
            known.add(size)
    while left > 0:
        curve = true if tries is None else profile().curve()
        asked = replace(request, now=now, work_steps=left, curve=curve, running_since=since, started=since is not None)
        renewed = renew(made, asked)
        made = renewed[0] if renewed is not None else made
        assert made is not None
        until, workers = now + TICK, 0
        while left > 0 and now < until:
            slot = made.at(now)
            workers = slot.workers if slot is not None else usual
            end = min(until, slot.end) if slot is not None else until
            if workers:
                known.add(workers)
                spend(workers, end - now)
            if now < end and left > 0:
                now = end
        since = (since if since is not None else now) if workers else None
    return Ran(grams, now > (request.deadline or math.inf) + 1)


def never(_: Profile) -> int | None:
    """What plans do anyway is enough."""
    return None


def fully(profile: Profile) -> int | None:
    """The ends first, then the middle, until the curve fits what was measured."""
    sizes, known = profile.sizes, sorted(point.workers for point in profile.measured)
    for size in (sizes[-1], sizes[0]):
        if size not in known and len(known) < 2:
            return size
    middle = math.sqrt(sizes[0] * sizes[-1])
    rest = [size for size in sizes if size not in known]
    return min(rest, key=lambda size: abs(math.log(size / middle)), default=None) if len(known) < 3 else None


def once(profile: Profile) -> int | None:
    """One other size: twice as many workers, or as near to that as may be."""
    known = [point.workers for point in profile.measured]
    if len(known) > 1:
        return None
    wanted = min(2 * known[0], profile.sizes[-1])
    return wanted if wanted not in known else max(1, known[0] // 2)


def compared(zones: dict[str, Zone], hours: Sequence[float], starts: int, seed: int = 18) -> list[str]:
    """One line for each length of job: grams over those of a known curve, mean and worst, and deadlines missed."""
    rng = random.Random(seed)
    lines = []
    cells = list(product(zones.values(), workers_only(host=True).values(), (1, 2, 4), (1.25, 2.0), range(starts)))
    for length in hours:
        ratios: dict[str, list[float]] = {way: [] for way in WAYS}
        missed = dict.fromkeys(WAYS, 0)
        for values, curve, usual, slack, _ in cells:
            start = rng.randrange(max(1, len(values) - int(2 * slack * length) - 26))
            asked = _request(curve, usual, start, length, slack, values)
            base = run(curve, usual, asked, values, None)
            for way, tries in WAYS.items():
                ran = run(curve, usual, asked, values, tries)
                ratios[way].append(ran.grams / base.grams)
                missed[way] += ran.missed
        told = "  ".join(f"{w} {mean(r):.4f} worst {max(r):.2f} missed {missed[w]}" for w, r in ratios.items())
        lines.append(f"{length:g} h, {len(cells)} runs: {told}")
    return lines


def _request(curve: Curve, usual: int, start: int, length: float, slack: float, values: Zone) -> Request:
    rate = next(point.throughput for point in curve if point.workers == usual)
    hours = int(slack * length) + 25
    return Request(
        now=start * HOUR,
        work_steps=length * HOUR * rate,
        curve=curve,
        signal=signal(values, start, hours),
        deadline=(start + slack * length) * HOUR,
        margin=0.1,
        usual_workers=usual,
        reserve=min(2 * HOUR, 0.1 * slack * length * HOUR),
    )


WAYS: dict[str, Tries] = {"plans": never, "once": once, "fully": fully}

__all__ = ["compared"]
