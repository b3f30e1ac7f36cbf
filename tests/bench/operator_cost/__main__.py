"""`make bench-operator`: the real API server of tests/cluster, and pods that nobody runs, because no node takes them.

Beside it a plain loop: 16 connections that create the same pods on the same server, before, between and after.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from bench.operator_cost.process import Operator
from cluster.down import down
from cluster.kubectl import kubectl
from cluster.layout import kubeconfig
from cluster.up import up
from drivetrain_api.constants import API_VERSION, KIND
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import find_credentials
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import NotFound
from drivetrain_operator.kube.resources import PODS, TRAININGJOBS, Resource

PARALLEL: Final = 16
ROOT: Final = Path(__file__).parents[3]
OURS, RAW = "bench-ours", "bench-raw"
Json = dict[str, Any]


class CountingClient(KubeClient):
    """Can tell how many there are without fetching them: to list them again and again would cost more than to make
    them."""

    async def how_many(self, resource: Resource, namespace: str) -> int:
        """Objects of this kind."""
        answer = await self._call("list", "GET", resource, namespace, params={"limit": "1"})
        return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount") or 0)


def a_job(name: str, workers: int) -> Json:
    """A TrainingJob whose pods no node takes."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": OURS},
        "spec": {"image": "train", "command": ["python", "train.py"], "workers": workers},
    }


async def all_at_once(work: list[Callable[[], Awaitable[Any]]], parallel: int = PARALLEL) -> float:
    """Seconds that it takes with so many at a time."""
    began, queue = time.monotonic(), iter(work)

    async def take() -> None:
        for each in queue:
            await each()

    await asyncio.gather(*(take() for _ in range(parallel)))
    return time.monotonic() - began


async def raw_rate(client: KubeClient, template: Json, count: int) -> float:
    """Pods a second of the plain loop."""
    prefix = f"raw-{random.randrange(16**6):06x}"

    def create(number: int) -> Callable[[], Awaitable[Any]]:
        body = copy.deepcopy(template)
        body["metadata"] = {"name": f"{prefix}-{number}", "labels": template["metadata"]["labels"]}
        return lambda: client.create(PODS, body, RAW)

    seconds = await all_at_once([create(number) for number in range(count)])
    kubectl("delete", "pods", "--all", "--namespace", RAW, "--force", "--grace-period=0", "--wait=false", timeout=300)
    return count / seconds


async def until_pods(client: CountingClient, count: int, seconds: float) -> float:
    """When there were so many pods of ours, by the monotonic clock."""
    deadline = time.monotonic() + seconds
    while (have := await client.how_many(PODS, OURS)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{have} of {count} pods after {seconds:.0f} s")
        await asyncio.sleep(0.2)
    return time.monotonic()


async def burst(client: CountingClient, operator: Operator, name: str, jobs: int, workers: int) -> Json:
    """So many jobs at once: pods a second, requests and CPU a pod."""
    pods = jobs * (workers + 1)
    before, cpu = await operator.requests(), operator.cpu_seconds()
    there = await client.how_many(PODS, OURS)
    began = time.monotonic()
    bodies = [a_job(f"{name}-{number}", workers) for number in range(jobs)]
    await all_at_once([lambda body=body: client.create(TRAININGJOBS, body, OURS) for body in bodies])  # type: ignore[misc]
    seconds = await until_pods(client, there + pods, 600) - began
    await asyncio.sleep(3)
    after = await operator.requests()
    return {
        "pods": pods,
        "rate": pods / seconds,
        "requests": {key: after[key] - before.get(key, 0.0) for key in after},
        "cpu": operator.cpu_seconds() - cpu,
    }


async def effects(client: KubeClient, jobs: int, tries: int) -> list[float]:
    """Seconds from a worker pod's deletion to its successor's creation."""
    took = []
    for number in range(tries):
        name = f"many-{number % jobs}"
        mine = [p for p in (await client.list(PODS, OURS)).items if p["metadata"]["name"].startswith(f"{name}-0-")]
        old = mine[-1]["metadata"]["name"]
        began = time.monotonic()
        await client.delete(PODS, old, OURS, grace_seconds=0)
        index, incarnation, piece = old.rsplit("-", 3)[1:]
        successor = f"{name}-{index}-{int(incarnation) + 1}-{piece}"
        while True:
            try:
                await client.get(PODS, successor, OURS)
                break
            except NotFound:
                if time.monotonic() - began > 60:
                    raise
                await asyncio.sleep(0.005)
        took.append(time.monotonic() - began)
    return took


async def finish_all(client: KubeClient, count: int) -> None:
    """Finished jobs, which only memory remembers."""
    status = {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z", "startTime": "2026-01-01T00:00:00Z"}
    done = {"type": "Complete", "status": "True", "reason": "Completed", "message": "", "observedGeneration": 1}
    status["conditions"] = [{**done, "lastTransitionTime": "2026-01-01T00:00:00Z"}]  # type: ignore[assignment]

    async def one(number: int) -> None:
        body = a_job(f"done-{number}", 8)
        body["spec"]["suspend"] = True
        await client.create(TRAININGJOBS, body, OURS)
        await client.merge_patch(TRAININGJOBS, f"done-{number}", {"status": status}, OURS, subresource="status")

    await all_at_once([lambda number=number: one(number) for number in range(count)])  # type: ignore[misc]


async def measure(given: argparse.Namespace, folder: Path) -> None:
    clock = SystemClock()
    log = folder / "operator.log"
    async with CountingClient(find_credentials(clock, kubeconfig=str(kubeconfig())), clock) as client:
        async with Operator(OURS, log) as operator:
            await operator.answers()
            await burst(client, operator, "warm", 1, 8)
            template = next(
                p
                for p in (await client.list(PODS, OURS)).items
                if p["metadata"]["labels"]["drivetrain.dev/role"] == "worker"
            )
            template = {key: template[key] for key in ("apiVersion", "kind", "metadata", "spec")}
            raw = [await raw_rate(client, template, given.jobs * 8)]
            many = await burst(client, operator, "many", given.jobs - 1, 8) if given.jobs > 1 else {}
            raw.append(await raw_rate(client, template, given.jobs * 8))
            one = await burst(client, operator, "large", 1, given.large)
            raw.append(await raw_rate(client, template, given.large))
            took = sorted(await effects(client, given.jobs - 1, given.effects))
            busy = operator.rss_megabytes()
        await finish_all(client, given.finished)
        began = time.monotonic()
        async with Operator(OURS, log) as operator:
            await operator.answers()
            await client.create(TRAININGJOBS, a_job("last", 1), OURS)
            while not any(p["metadata"]["name"].startswith("last-0-0-") for p in (await client.list(PODS, OURS)).items):
                await asyncio.sleep(0.05)
            restart = time.monotonic() - began
            await asyncio.sleep(10)
            rss = operator.rss_megabytes()
    show(given, raw, many, one, took, busy, rss, restart)


def show(
    given: argparse.Namespace,
    raw: list[float],
    many: Json,
    one: Json,
    took: list[float],
    busy: float,
    rss: float,
    restart: float,
) -> None:
    """A table, and one line of figures."""
    plain = statistics.median(raw)
    print(f"plain loop, {PARALLEL} connections: {', '.join(f'{each:.0f}' for each in raw)} pods/s")
    for what, found in ((f"{given.jobs - 1} jobs × 8 workers", many), (f"1 job × {given.large} workers", one)):
        requests = found["requests"]
        print(
            f"{what}: {found['rate']:.0f} pods/s, {found['rate'] / plain:.2f} of the plain loop; a pod: "
            f"{requests['all'] / found['pods']:.2f} requests, {requests['writes'] / found['pods']:.2f} writes, "
            f"{1000 * found['cpu'] / found['pods']:.1f} ms of CPU"
        )
        for key, value in sorted(requests.items(), key=lambda item: -item[1]):
            if value and " " in key:
                print(f"    {key}: {value:.0f}")
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, int(0.99 * len(took)))]
    print(f"deleted pod to its successor, n={len(took)}: p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms")
    print(
        f"memory: {busy:.0f} MB with the pods of all jobs, {rss:.0f} MB with {given.finished} finished jobs beside them"
    )
    print(f"a job's first worker after a restart with all of that: {restart:.1f} s")
    writes = many["requests"]["writes"] / (given.jobs - 1)
    print(
        f"create_ratio={many['rate'] / plain:.3f} create_ratio_large={one['rate'] / plain:.3f} "
        f"writes_per_job={writes:.1f} p50_ms={1000 * p50:.0f} p99_ms={1000 * p99:.0f} "
        f"cpu_s_per_1000_pods={1000 * many['cpu'] / many['pods']:.2f} rss_mb={rss:.0f} restart_s={restart:.1f}"
    )


def main() -> int:
    """Start a control plane, measure, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=150, help="jobs of 8 workers at once (default: 150)")
    parser.add_argument("--large", type=int, default=1000, help="workers of the one large job (default: 1000)")
    parser.add_argument("--effects", type=int, default=100, help="pods that are deleted one by one (default: 100)")
    parser.add_argument("--finished", type=int, default=2000, help="finished jobs beside them (default: 2000)")
    given = parser.parse_args()
    mine = not kubeconfig().exists()
    try:
        if mine:
            up(1)
        kubectl("cordon", "node1")
        kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        for namespace in (OURS, RAW):
            kubectl("create", "namespace", namespace)
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(given, Path(folder)))
    finally:
        if mine:
            down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
