"""A day in two minutes: a job that must be done by evening grows in the green hours and shrinks in the dirty ones.

The hours are short, the carbon intensities made up, and a sample takes as long as it is told to; planner, operator,
coordinator, ranks and recovery are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from drivetrain_api.constants import KIND
from drivetrain_cli import pack, plane
from drivetrain_cli.cluster import Cluster, Where, connect
from drivetrain_cli.demo.outcome import StateHash, hashes
from drivetrain_cli.demo.processes import belonging_to
from drivetrain_cli.demo.reference import logs_of, reference_of
from drivetrain_cli.demo.screen import Screen
from drivetrain_cli.demo.steps import Steps
from drivetrain_cli.errors import CliError
from drivetrain_cli.pack.pods import PodWish
from drivetrain_operator.kube.errors import KubeError
from drivetrain_operator.kube.resources import CONFIGMAPS, TRAININGJOBS, Object

JOB: Final = "by-evening"
SHAPE: Final = (
    *(420, 410, 400, 390, 380, 370, 340, 280, 200, 140, 100),
    *(80, 70, 75, 90, 130, 200, 300, 390, 450, 470, 460),
)
"""Grams a kilowatt-hour from six in the morning on: a sunny day. Two hours more than the deadline."""
HOURS: Final = 20
MOST: Final = 4
_LOOK_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Day:
    """How long and how big."""

    script: Path
    folder: Path
    hour: float = 5.5
    """Seconds."""
    steps: int = 120
    batch: int = 24
    seed: int = 0
    sample_seconds: float = 0.03

    @property
    def limit(self) -> float:
        """Seconds until the deadline."""
        return HOURS * self.hour


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it."""

    phase: str
    late: float
    """Seconds after the deadline; below 0: before it."""
    grams: float
    """Mean intensity over all that workers worked, in g/kWh."""
    flat: float
    """The same, had the same work been spread evenly over the time from its beginning to the deadline."""
    sizes: tuple[int, ...]
    """Numbers of workers that made a step, in their order."""
    hashes: list[StateHash]
    reference: StateHash | None
    left_behind: list[int]

    def problems(self) -> list[str]:
        """PURE: in words; none if all is well."""
        found = []
        if self.phase != "Succeeded":
            found.append(f"the job is {self.phase or 'without a phase'}")
        if self.late > 0:
            found.append(f"it was {self.late:.0f} s late")
        if len(set(self.sizes)) < 2:
            found.append("it never changed its size")
        if self.grams >= self.flat:
            found.append(f"its hours were no greener ({self.grams:.0f} g/kWh) than all of them ({self.flat:.0f})")
        if self.reference is None or not self.hashes:
            found.append("no hash of the state was told")
        elif {each.sha256 for each in self.hashes} != {self.reference.sha256}:
            found.append("the state is not that of the undisturbed run")
        if self.left_behind:
            found.append(f"processes are left: {self.left_behind}")
        return found


async def play(day: Day, screen: Screen) -> Seen:
    """The whole of it. Whatever happens, no process stays behind. Raises CliError."""
    state = day.folder / "plane"
    for name in ("steps", "model", "reference", "energy"):
        (day.folder / name).mkdir(parents=True)
    try:
        seen = await _play(day, screen, state)
    finally:
        screen.close()
        plane.stop(state)
    left = belonging_to(day.folder)
    return Seen(seen.phase, seen.late, seen.grams, seen.flat, seen.sizes, seen.hashes, seen.reference, left)


async def _play(day: Day, screen: Screen, state: Path) -> Seen:
    began = math.ceil(time.time()) + 12.0  # by then the first ranks train
    _write_supply(day, began)
    kubeconfig = await plane.start(state, energy=day.folder / "energy")
    config_map, job = _objects(day, began)
    async with connect(Where(kubeconfig=str(kubeconfig))) as cluster:
        await cluster.client.create(CONFIGMAPS, config_map, cluster.namespace)
        await cluster.client.create(TRAININGJOBS, job, cluster.namespace)
        screen.say(f"{KIND} {JOB}: {day.steps} steps by evening, with 1 to {MOST} workers; an hour is {day.hour:g} s")
        watched = _Watched(day, began, cluster, screen)
        final = await watched.until_finished()
        ended = time.time()
        logs = await logs_of(cluster, final)
        screen.say("The same training undisturbed, in one process …")
        async with reference_of(day.script, day.folder / "reference", job) as reference:
            undisturbed = await reference
    found = hashes("this run", logs)
    grams, flat, sizes = watched.account()
    return Seen(
        (final.get("status") or {}).get("phase", ""),
        ended - began - day.limit,
        grams,
        flat,
        sizes,
        found,
        next(iter(hashes("undisturbed", undisturbed)), None),
        [],
    )


class _Watched:
    """Looks at the job, tells of each change, and keeps who made which step when."""

    def __init__(self, day: Day, began: float, cluster: Cluster, screen: Screen) -> None:
        self._day = day
        self._began = began
        self._cluster = cluster
        self._screen = screen
        self._steps = Steps(day.folder / "steps")
        self._told = ""
        self._job: Object = {}

    async def until_finished(self) -> Object:
        """Raises CliError when it takes far too long."""
        while (self._job.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            if time.time() > self._began + 3 * self._day.limit:
                status = self._job.get("status") or {}
                raise CliError(f"the job is not done long after its deadline: {status.get('message', '')}")
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(KubeError):  # asked again at once
                self._job = await self._cluster.job(JOB)
            self._tell(self._job.get("status") or {})
        return self._job

    def _tell(self, status: dict[str, Any]) -> None:
        self._steps.read()
        energy = status.get("energy") or {}
        target = (status.get("workers") or {}).get("target")
        order = energy.get("order") or {}
        line = f"{target} workers wanted, by the {order['by']}" if order else f"{target} workers wanted"
        if target and line != self._told:
            self._told = line
            at = time.time()
            step = max((step for _, step, _ in self._steps.common()), default=-1) + 1
            hour = 6 + (at - self._began) / self._day.hour
            clock = f"{int(hour) % 24:02}:{int(hour % 1 * 60):02}"
            grams = intensity(self._day, self._began, at)
            self._screen.say(f"  {clock}  {grams:3.0f} g/kWh  step {step:3}  {line}")

    def account(self) -> tuple[float, float, tuple[int, ...]]:
        """Mean intensity of the work, mean of all the time, and the sizes."""
        self._steps.read()
        world = {made.membership: made.world for made in self._steps.made}
        common = self._steps.common()
        worked = total = 0.0
        sizes: list[int] = []
        for (before, _, _), (at, _, membership) in pairwise(common):
            seconds = world[membership] * (at - before)
            worked += seconds
            total += seconds * intensity(self._day, self._began, at)
            if not sizes or sizes[-1] != world[membership]:
                sizes.append(world[membership])
        first = common[0][0] if common else self._began
        times = [first + (self._began + self._day.limit - first) * i / 200 for i in range(200)]
        flat = sum(intensity(self._day, self._began, at) for at in times) / len(times)
        return total / worked if worked else 0.0, flat, tuple(sizes)


def intensity(day: Day, began: float, at: float) -> float:
    """PURE: of the day that is played."""
    hour = int((at - began) // day.hour)
    return float(SHAPE[min(max(hour, 0), len(SHAPE) - 1)])


def _write_supply(day: Day, began: float) -> None:
    folder = day.folder / "energy"
    rows = [(began - 60, SHAPE[0]), *((began + i * day.hour, value) for i, value in enumerate(SHAPE))]
    lines = ["timestamp,g_per_kwh", *(f"{datetime.fromtimestamp(at, UTC).isoformat()},{grams}" for at, grams in rows)]
    (folder / "day.csv").write_text("\n".join(lines))
    (folder / "energy.yaml").write_text(
        "sources:\n- {name: sunny-day, provider: trace, zones: [HERE], file: day.csv}\n"
    )


def _objects(day: Day, began: float) -> tuple[Object, Object]:
    environment = {
        "STEP_LOG": str(day.folder / "steps"),
        "OUTPUT": str(day.folder / "model"),
        "SAMPLE_SECONDS": str(day.sample_seconds),
    }
    wish = pack.Wish(
        name=JOB,
        code=pack.read(day.script),
        workers=2,
        elastic=(1, MOST),
        training={
            "steps": day.steps,
            "batch": {"global": day.batch},
            "seed": day.seed,
            "deterministic": True,
            "clipNorm": 1.0,
        },
        spares=0,
        pod=PodWish(environment=environment),
    )
    config_map, job = pack.objects(wish, "default")
    deadline = datetime.fromtimestamp(began + day.limit, UTC).isoformat()
    job["spec"]["energy"] = {"deadline": deadline, "minRunSeconds": 0, "suspend": False}
    return config_map, job


def told(seen: Seen) -> Sequence[str]:
    """PURE: for people."""
    sizes = " → ".join(map(str, seen.sizes))
    return [
        f"Done {abs(seen.late):.0f} s {'after' if seen.late > 0 else 'before'} the deadline. Workers: {sizes}",
        f"Its work was at {seen.grams:.0f} g/kWh in the mean; all hours to the deadline were at {seen.flat:.0f}.",
        *(f"  {each}" for each in [*seen.hashes, *([seen.reference] if seen.reference else [])]),
    ]
