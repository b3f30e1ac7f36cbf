"""Jobs follow the hours of a grid, on real kubelets: they wait, grow, shrink, and are done in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import pytest

from cluster.kubectl import kubectl
from e2e.cluster import day
from e2e.cluster.conftest import CHART, SYSTEM, helm
from e2e.cluster.job import Job, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMITS: Final = "drivetrain-power-limits"
TRAIN: Final = [
    *("python", "-c"),
    """
import time, torch, drivetrain
run = drivetrain.start()
data = torch.utils.data.TensorDataset(torch.randn(480, 4), torch.randn(480, 1))
run.prepare(model=torch.nn.Linear(4, 1), optimizer=lambda p: torch.optim.SGD(p, 0.01), data=data)
for batch in run.batches():
    time.sleep(0.6 / run.world_size)
    run.step(batch, lambda model, shard: (model(shard[0]) - shard[1]).square().mean())
run.finish()
""",
]
"""Twice the workers make twice the steps."""
PROFILE: Final = [{"workers": n, "stepsPerSecond": 1.5 * n**0.95, "watts": 100 * n**1.2} for n in (1, 2, 3)]
COMMON: Final[dict[str, Any]] = {
    "script": False,
    "command": TRAIN,
    "workers": 2,
    "elastic": {"minWorkers": 1, "maxWorkers": 3},
    "recovery": {"spares": 0},
}


@pytest.fixture(scope="module")
def grid(installed: str) -> Iterator[day.Day]:
    """A feed, and an operator that asks it. The feed dies in the day, which comes first: the others need none."""
    began = time.time() + 45
    flags = ["upgrade", "drivetrain", str(CHART), "--namespace", SYSTEM, "--reset-then-reuse-values"]
    try:
        kubectl("apply", "-f", "-", stdin=day.feed(SYSTEM, began))
        kubectl("wait", "--for=condition=Ready", f"pod/{day.FEED}", "--namespace", SYSTEM, "--timeout=60s", timeout=90)
        helm(*flags, "--wait", "--timeout", "3m", "--set-json", f"energy={json.dumps({'settings': day.SETTINGS})}")
        yield day.Day(began)
    finally:
        day.ends(SYSTEM)
        kubectl("delete", "service", day.FEED, "--namespace", SYSTEM, "--ignore-not-found")
        kubectl("delete", "configmap", LIMITS, "--namespace", SYSTEM, "--ignore-not-found")
        helm(*flags, "--wait", "--timeout", "3m", "--set-json", 'energy={"settings": {}}')


def test_a_day(grid: day.Day, start: Callable[..., Job], claim: str) -> None:
    """Both wait for the first green hour, or shrink until then. Half-way the feed dies, and with it all operators: no
    plan is given up for that: who may rest does so in the dirty hours after it, by what the dead feed had said."""
    wish = {"deadline": grid.deadline(), "minRunSeconds": 0, "marginPercent": 5, "profile": PROFILE}
    volume = {"storage": {"persistentVolumeClaim": claim}}
    rests = start("rests", steps=360, energy=wish, snapshots=volume, **COMMON)
    shrinks = start("shrinks", steps=340, energy=wish, **COMMON)
    jobs = {"rests": rests, "shrinks": shrinks}
    for job in jobs.values():
        job.until("its plan", lambda s: _energy(s).get("plan", {}).get("mode") == "planned", 120)
    assert rests.status()["phase"] == "Suspended"
    wait_until(30, "it has no pods", lambda: not rests.pods())
    assert rests.condition("Suspended")["reason"] == "WaitsForEnergy"
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in jobs}
    killed: dict[str, Any] | None = None
    while (left := {name: job.status() for name, job in jobs.items()}) and any(
        status.get("phase") not in ("Succeeded", "Failed") for status in left.values()
    ):
        now = time.time()
        assert now < grid.at(day.DEADLINE) + 120, "\n".join(job.describe() for job in jobs.values())
        for name, status in left.items():
            target = status.get("workers", {}).get("target", 0)
            if not seen[name] or seen[name][-1][1] != target:
                seen[name].append((now, target))
                print(f"{name}: {(now - grid.began) / day.HOUR:5.1f} h {grid.intensity(now):4.0f} g/kWh: {target}")
        if killed is None and now > grid.at(11):
            killed = {name: _energy(status).get("plan") for name, status in left.items()}
            day.ends(SYSTEM)
            kubectl(
                "delete", "pods", "--namespace", SYSTEM, "--selector=app.kubernetes.io/name=drivetrain", "--wait=false"
            )
            print("the feed is dead, and so are all operators")
        time.sleep(1)
    for name, job in jobs.items():
        status = job.status()
        assert status["phase"] == "Succeeded", job.describe()
        ended = datetime.fromisoformat(status["completionTime"].replace("Z", "+00:00")).timestamp()
        print(f"{name}: done {grid.at(day.DEADLINE) - ended:.0f} s before its deadline")
        assert ended <= grid.at(day.DEADLINE)
        assert status["restarts"] == 0
    first = next(at for at, target in seen["rests"] if target)
    assert grid.intensity(first + 2) == day.GREEN, "it waited for the first green hour"
    assert killed is not None
    sizes = {name: [target for _, target in steps] for name, steps in seen.items()}
    assert [rested for at, rested in seen["rests"] if at > first and not rested], "it rested half-way"
    assert len({target for target in sizes["shrinks"] if target}) >= 2, "it grew, or shrank"


def test_a_hall_has_to_draw_less(grid: day.Day, start: Callable[..., Job]) -> None:
    """Half of its power: within 30 s, with no process started again; and back when it is over."""
    job = start("gives", pace=0.3, steps=2000, workers=3, elastic={"minWorkers": 1, "maxWorkers": 3})
    members = job.settled(3)
    before = time.time()
    kubectl("create", "configmap", LIMITS, "--namespace", SYSTEM, "--from-literal=hall-1=40%")
    wait_until(60, "fewer members", lambda: len(job.members()) == 1)
    took = time.time() - before
    print(f"\nfrom three members to one {took:.1f} s after the limit was written")
    assert took <= 30
    told = job.status()
    assert told["energy"]["order"]["by"] == "limit"
    kubectl("delete", "configmap", LIMITS, "--namespace", SYSTEM)
    job.settled(3)
    assert sum(member.alive() for member in members) >= 1, "who stayed is the same process"
    status = job.succeeds()
    assert (status["restarts"], status.get("attempt", 0), status["membership"]["term"]) == (0, 0, 1)


def _energy(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status.get("energy") or {}
    return found
