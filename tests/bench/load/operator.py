"""Five thousand jobs' reports on one operator, on a real API server, and two thousand strangers beside them."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.load.children import Child
from bench.load.probe import LoopDelay, cpu_seconds, peak_mb, percentile, resident_mb
from bench.operator_cost.__main__ import OURS, CountingClient, a_job, all_at_once
from bench.operator_cost.process import Operator
from cluster.kubectl import kubectl
from cluster.layout import kubeconfig
from drivetrain_api.constants import LABEL_JOB_UID, LABEL_ROLE, LABEL_TERM, ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.kube.auth import find_credentials
from drivetrain_operator.kube.resources import PODS, SECRETS, TRAININGJOBS
from drivetrain_operator.reports.keystore import ROOT_SECRET
from drivetrain_operator.reports.trust import Trust
from harness.ports import free_port

ROOT: Final = Path(__file__).parents[3]
CREWS: Final = 2
CREATE_SECONDS: Final = 600.0
SETTLE_SECONDS: Final = 40.0


@dataclass
class Found:
    """What one operator needed."""

    rss_mb: float
    report_p99: float
    hostile_p99: float
    delay: LoopDelay
    hostile_delay: LoopDelay


async def measure(jobs: int, strangers: int, folder: Path) -> Found:
    """On the cluster that is up."""
    kubectl("cordon", "node1")
    kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    kubectl("create", "namespace", OURS)
    clock, port = SystemClock(), free_port()
    async with AsyncExitStack() as stack:
        client = CountingClient(find_credentials(clock, kubeconfig=str(kubeconfig())), clock)
        await stack.enter_async_context(client)
        operator = await stack.enter_async_context(Operator(OURS, folder / "operator.log", port))
        await operator.answers()
        print(f"operator alone: {resident_mb(operator.pid):.0f} MB")
        began = time.monotonic()
        bodies = [a_job(f"load-{number}", 1) for number in range(jobs)]
        await all_at_once([lambda body=body: client.create(TRAININGJOBS, body, OURS) for body in bodies])  # type: ignore[misc]
        while (have := await client.how_many(PODS, OURS)) < 2 * jobs:
            if time.monotonic() - began > CREATE_SECONDS:
                raise TimeoutError(f"{have} of {2 * jobs} pods after {CREATE_SECONDS:.0f} s")
            await asyncio.sleep(1)
        print(
            f"{jobs} jobs with their pods after {time.monotonic() - began:.0f} s: {resident_mb(operator.pid):.0f} MB, "
            f"{cpu_seconds(operator.pid):.0f} s of CPU"
        )
        crews = []
        for number, share in enumerate(await _shares(client, folder)):
            crews.append(await stack.enter_async_context(Child("bench.load.coordinators", str(port), str(share))))
            assert number < CREWS
        await asyncio.sleep(30)
        delay, p99 = await _phase(operator, crews, "with their reports")
        async with Child("bench.load.hostile", "127.0.0.1", str(port), str(strangers), quiet=True):
            await asyncio.sleep(3)
            hostile, hostile_p99 = await _phase(operator, crews, f"with {strangers} hostile connections")
        print(f"at most {peak_mb(operator.pid):.0f} MB")
        return Found(peak_mb(operator.pid), p99, hostile_p99, delay, hostile)


async def _shares(client: CountingClient, folder: Path) -> list[Path]:
    """Files for the crews: who reports for which job, with the token of its term."""
    trust = Trust.from_secret((await client.get(SECRETS, ROOT_SECRET, OURS))["data"])
    names = {job["metadata"]["uid"]: job["metadata"]["name"] for job in (await client.list(TRAININGJOBS, OURS)).items}
    pods: dict[str, dict[str, Any]] = {uid: {} for uid in names}
    for pod in (await client.list(PODS, OURS)).items:
        labels = pod["metadata"]["labels"]
        if labels[LABEL_ROLE] == ROLE_WORKER:
            pods[labels[LABEL_JOB_UID]]["pod"] = pod["metadata"]["uid"]
        elif labels[LABEL_ROLE] == ROLE_COORDINATOR:
            pods[labels[LABEL_JOB_UID]]["term"] = int(labels[LABEL_TERM])
    lines = [
        json.dumps(
            {"uid": uid, "name": name, "token": trust.current.coordinator_token(uid, pods[uid]["term"]), **pods[uid]}
        )
        for uid, name in names.items()
    ]
    paths = []
    for number in range(CREWS):
        path = folder / f"crew-{number}"
        path.write_text("\n".join(lines[number::CREWS]))
        paths.append(path)
    return paths


async def _phase(operator: Operator, crews: list[Child], name: str) -> tuple[LoopDelay, float]:
    def counted(what: str) -> int:
        return sum(int(crew.last().get(what, 0)) for crew in crews)

    cpu, began, answered = cpu_seconds(operator.pid), time.monotonic(), counted("answered")
    async with LoopDelay(f"{operator.url}/readyz") as delay:
        await asyncio.sleep(SETTLE_SECONDS)
    seconds = time.monotonic() - began
    p99 = max(float(crew.last()["p99"] or "nan") for crew in crews)
    p50 = max(float(crew.last()["p50"] or "nan") for crew in crews)
    refused = {why: n for crew in crews for why, n in crew.last()["refused"].items()}
    print(
        f"{name}: {resident_mb(operator.pid):.0f} MB, {100 * (cpu_seconds(operator.pid) - cpu) / seconds:.0f} % of a "
        f"core; {(counted('answered') - answered) / seconds:.0f} reports/s of {counted('heard')} jobs; a report: "
        f"p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms; {delay.told()}; refused so far: {refused or 'none'}"
    )
    return delay, p99


def line(found: Found) -> str:
    """Figures."""
    return (
        f"operator_rss_mb={found.rss_mb:.0f} report_p99_ms={1000 * found.report_p99:.0f} "
        f"report_p99_ms_hostile={1000 * found.hostile_p99:.0f} "
        f"loop_delay_p99_ms={1000 * percentile(found.delay.took, 0.99):.0f} "
        f"loop_delay_p99_ms_hostile={1000 * percentile(found.hostile_delay.took, 0.99):.0f}"
    )
