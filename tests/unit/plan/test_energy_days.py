"""Two days of a power domain with eight places: do jobs that come, go and run a little slower than told keep within?"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from drivetrain_api.status import ProgressStatus
from drivetrain_energy.fleet.sharing import Capacity
from unit.plan import builders as b
from unit.plan.test_energy import HOUR, signal, spec
from unit.plan.test_energy_shared import Hall

TICK = 600.0
PLACES = 8


@dataclass
class Run:
    """One job as it goes."""

    begins: float
    hours: float
    steps: int
    done: float = 0.0
    sizes: list[int] = field(default_factory=list)


def days(rng: random.Random) -> tuple[Hall, dict[str, Run]]:
    values = [300 + 200 * math.sin(hour / 24 * 2 * math.pi) + rng.uniform(-30, 30) for hour in range(96)]
    hall = Hall(Capacity(PLACES), signal(*values, vintage=b.NOW.timestamp()))
    runs = {
        f"job-{at:02}": Run(rng.uniform(0, 24) * HOUR, rng.uniform(6, 30), rng.randint(4_000, 30_000))
        for at in range(14)
    }
    return hall, runs


@pytest.mark.parametrize("seed", [1, 2])
def test_places_suffice_deadlines_are_kept_and_few_are_moved(seed: int) -> None:
    rng = random.Random(seed)
    hall, runs = days(rng)
    moved, late = 0, []
    while hall.later < 60 * HOUR:
        for name, run in runs.items():
            if run.begins <= hall.later and not run.sizes and name not in hall.jobs:
                hall.add(name, spec(hours=hall.later / HOUR + run.hours, steps=run.steps))
                created = b.NOW + timedelta(seconds=hall.later)
                hall.jobs[name] = replace(hall.jobs[name], created=created)
        moved += len(hall.look())
        hall.passes()
        for name, job in list(hall.jobs.items()):
            order, run = job.status.energy.order if job.status.energy is not None else None, runs[name]
            assert order is not None
            run.sizes.append(order.workers)
            run.done += order.workers**0.9 * TICK * rng.uniform(0.93, 1.02)
            if run.done >= run.steps:
                late += [name] if hall.later + TICK > run.begins + run.hours * HOUR + TICK else []
                del hall.jobs[name]
            elif run.done:
                told = ProgressStatus(step=int(run.done), steps=run.steps)
                hall.jobs[name] = replace(job, status=job.status.model_copy(update={"progress": told}))
            if name not in hall.jobs:
                run.begins = math.inf
        hall.later += TICK
        assert sum(runs[name].sizes[-1] for name in hall.jobs) <= PLACES
    assert (late, hall.jobs) == ([], {})
    assert moved <= 8 * len(runs)
