"""Four thousand launchers on one coordinator, and two thousand strangers beside them."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.load.children import Child
from bench.load.probe import LoopDelay, cpu_seconds, peak_mb, percentile, resident_mb
from drivetrain_api import constants
from harness.static_operator import WORKER_TOKEN, StaticOperator, make_credentials, roster

HOST: Final = "127.0.0.71"
"""An address of loopback that nobody else has: a coordinator's ports are fixed."""
PROCESSES: Final = 2
SETTLE_SECONDS: Final = 15.0
FORM_SECONDS: Final = 60.0


@dataclass
class Found:
    """What one coordinator needed."""

    rss_mb: float
    delay: LoopDelay


async def measure(launchers: int, strangers: int) -> Found:
    """A coordinator from its start to a membership of all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        credentials = make_credentials(folder)
        async with AsyncExitStack() as stack:
            operator = await stack.enter_async_context(StaticOperator.serve(credentials))
            pods = [f"pod-{number}" for number in range(launchers)]
            await operator.set(roster(pods))
            env = {
                constants.ENV_TERM: "1",
                constants.ENV_JOB_UID: "job",
                constants.ENV_NAMESPACE: "default",
                constants.ENV_JOB: "load",
                constants.ENV_SPEC: "{}",
                constants.ENV_REPORTS: operator.url,
                constants.ENV_CREDENTIALS: str(credentials.coordinator),
                constants.ENV_POD_IP: HOST,
            }
            log = folder / "coordinator.log"
            served = await stack.enter_async_context(Child("drivetrain_coordinator.main", env=env, log=log))
            try:
                return await _phases(stack, served, credentials.worker / "ca.crt", launchers, strangers, operator)
            except (TimeoutError, ProcessLookupError):
                print("\n".join([line for line in log.read_text().splitlines() if "launcher " not in line][-16:]))
                raise


async def _phases(
    stack: AsyncExitStack, served: Child, ca: Path, launchers: int, strangers: int, operator: StaticOperator
) -> Found:
    await asyncio.sleep(1)
    idle = resident_mb(served.pid)
    print(f"coordinator alone: {idle:.0f} MB")
    crews = []
    for number in range(PROCESSES):
        crew = await stack.enter_async_context(Child("bench.load.standins"))
        share = range(launchers)[number::PROCESSES]
        first, count = number * len(share), len(share)
        told = {"host": HOST, "port": constants.COORDINATOR_PORT, "token": WORKER_TOKEN, "job": "job"}
        await crew.tell(json.dumps({**told, "ca": str(ca), "first": first, "count": count}))
        crews.append(crew)

    def counted(what: str) -> int:
        return sum(int(crew.last().get(what, 0)) for crew in crews)

    began = time.monotonic()
    await _until(lambda: counted("connected") >= launchers, 180, lambda: f"{counted('connected')} are connected")
    print(f"{launchers} launchers connected after {time.monotonic() - began:.1f} s: {resident_mb(served.pid):.0f} MB")
    url = f"http://{HOST}:{constants.METRICS_PORT}/readyz"
    await _phase(served, url, "with their heartbeats", operator)
    lost = counted("lost")
    async with Child("bench.load.hostile", HOST, str(constants.COORDINATOR_PORT), str(strangers), quiet=True):
        await asyncio.sleep(3)
        delay = await _phase(served, url, f"with {strangers} hostile connections", operator)
        print(f"    launchers that lost their connection meanwhile: {counted('lost') - lost}")
    for crew in crews:
        await crew.tell("ready")
    began = time.monotonic()
    async with LoopDelay(url) as forming:
        try:
            await _until(lambda: counted("formed") >= launchers, FORM_SECONDS, lambda: f"{counted('formed')} have it")
        except TimeoutError as late:
            print(f"no membership of all: {late}; the operator hears: {operator.reports[-1].message}")
    print(
        f"one membership of all after {time.monotonic() - began:.1f} s: {resident_mb(served.pid):.0f} MB, "
        f"at most {peak_mb(served.pid):.0f} MB; {forming.told()}; connections lost: {counted('lost') - lost}"
    )
    return Found(peak_mb(served.pid), delay)


async def _phase(served: Child, url: str, name: str, operator: StaticOperator) -> LoopDelay:
    cpu, began, reports = cpu_seconds(served.pid), time.monotonic(), len(operator.reports)
    async with LoopDelay(url) as delay:
        await asyncio.sleep(SETTLE_SECONDS)
    seconds = time.monotonic() - began
    share = (cpu_seconds(served.pid) - cpu) / seconds
    print(
        f"{name}: {resident_mb(served.pid):.0f} MB, {100 * share:.0f} % of a core, "
        f"{(len(operator.reports) - reports) / seconds:.1f} reports/s; {delay.told()}"
    )
    return delay


async def _until(holds: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {told()}")
        await asyncio.sleep(0.2)


def delay_ms(found: Found) -> float:
    """p99."""
    return 1000 * percentile(found.delay.took, 0.99)
