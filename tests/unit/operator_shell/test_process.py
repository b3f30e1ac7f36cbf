"""Operator processes, as they are deployed: kopf, Lease, ports, signals. Against the embedded API server."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from drivetrain_api.constants import (
    METRICS_PORT,
    REPORTS_PORT,
    REPORTS_SERVER_NAME,
    ROLE_COORDINATOR,
    ROLE_WORKER,
)
from drivetrain_api.report import JobState, Report
from drivetrain_local.apiserver import ApiServer
from drivetrain_operator.reports.credentials import Authority
from harness.network_policies import End, passes
from harness.patience import patiently
from harness.ports import reserve_network
from unit.operator_shell.world import NAMESPACE, JumpClock, World, a_job, crds

SOURCES = Path(__file__).parents[3] / "operator"
LEASE_SECONDS = 3.0


@dataclass
class Running:
    """One operator process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    host: str

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with patiently(20):
            return await self.process.wait()


class Deployment:
    """Starts operator processes; each has a loopback address of its own and the usual ports."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.running: list[Running] = []
        self.network = reserve_network()
        self.kubeconfig = folder / "kubeconfig"
        world.api.write_kubeconfig(self.kubeconfig)

    async def start(self, name: str, *flags: str) -> Running:
        host = f"{self.network.value}.{1 + len(self.running)}"  # processes listen on fixed ports
        log = self.folder / f"{name}.log"
        arguments = ["--kubeconfig", str(self.kubeconfig), "--pod-ip", host, "--identity", name]
        arguments += ["--reports-host", host, "--metrics-host", host, "--lease-seconds", str(LEASE_SECONDS)]
        arguments += ["--allow-own-namespace", *flags]
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "drivetrain_operator.main",
                *arguments,
                env={**os.environ, "PYTHONPATH": str(SOURCES)},
                stdout=output,
                stderr=output,
            )
        running = Running(name, process, log, host)
        self.running.append(running)
        return running

    def leader(self) -> Running | None:
        leases = self.world.api.store.all("coordination.k8s.io/leases", NAMESPACE)
        holder = leases[0]["spec"]["holderIdentity"].partition("_")[0] if leases else ""
        return next((one for one in self.running if one.name == holder and one.process.returncode is None), None)

    async def until(self, condition: Any, seconds: float = 20.0) -> None:
        try:
            async with patiently(seconds):
                while True:
                    await self.world.step()
                    if condition():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            logs = "\n".join(f"--- {one.name}\n{one.log.read_text()}" for one in self.running)
            pytest.fail(f"not reached: {self.world.names()}\n{logs}")


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    async with ApiServer(crds=crds()) as api, api.session() as http:
        deployment = Deployment(World(api, http, JumpClock()), tmp_path)
        yield deployment
        for one in deployment.running:
            if one.process.returncode is None:
                one.process.kill()
                await one.process.wait()
        deployment.network.release()


async def status(one: Running, path: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"http://{one.host}:7071{path}") as answer:
        return answer.status


async def report(deployment: Deployment, one: Running) -> tuple[int, Any]:
    """What a coordinator gets from this replica."""
    world = deployment.world
    job = world.job()
    secret = next(s for s in world.all("secrets") if s["metadata"]["name"].startswith("charlm-coordinator"))
    files = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    said = Report(
        job_uid=job["metadata"]["uid"], namespace=NAMESPACE, job="charlm", term=1, seq=1, state=JobState.WAITING
    )
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"https://{one.host}:7443/v1/report",
            data=said.model_dump_json(),
            headers={"Authorization": f"Bearer {files['token']}"},
            ssl=ssl.create_default_context(cadata=files["ca.crt"]),
            server_hostname=REPORTS_SERVER_NAME,
        ) as answer,
    ):
        return answer.status, await answer.json()


async def test_two_replicas_and_the_death_of_the_leader(deployment: Deployment) -> None:
    world = deployment.world
    await deployment.start("one")
    await deployment.start("two")
    await world.create_job(a_job())
    await deployment.until(lambda: len(world.pods(ROLE_WORKER, live=True)) == 2)
    first = deployment.leader()
    assert first is not None
    (other,) = (one for one in deployment.running if one is not first)
    await deployment.until(lambda: "prepared" in other.log.read_text())

    for one in (first, other):
        assert (await status(one, "/readyz"), await status(one, "/healthz")) == (200, 200)
    code, roster = await report(deployment, first)
    assert (code, roster["term"], len(roster["pods"])) == (200, 1, 2)
    assert (await report(deployment, other))[0] == 503

    first.signal(signal.SIGKILL)
    await world.fail_pod("charlm-0-0", 70)
    await deployment.until(lambda: world.names(ROLE_WORKER, live=True) == ["charlm-0-1", "charlm-1-0"])
    assert deployment.leader() is other
    code, again = await report(deployment, other)
    assert code == 200
    assert again["revision"] > roster["revision"]
    roots = [s for s in world.all("secrets") if s["metadata"]["name"] == "drivetrain-root"]
    assert len(roots) == 1
    Authority.from_secret(roots[0]["data"])

    other.signal(signal.SIGTERM)
    assert await other.ended() == 0
    (lease,) = world.api.store.all("coordination.k8s.io/leases", NAMESPACE)
    assert lease["spec"]["holderIdentity"] == ""


async def test_a_leader_that_slept_through_its_lease_ends_when_it_wakes(deployment: Deployment) -> None:
    await deployment.start("one")
    await deployment.until(lambda: deployment.leader() is not None)
    first = deployment.running[0]
    await deployment.start("two")
    first.signal(signal.SIGSTOP)
    await deployment.until(lambda: (leader := deployment.leader()) is not None and leader is not first)
    first.signal(signal.SIGCONT)
    assert await first.ended() == 1
    assert "leadership lost" in first.log.read_text()


async def test_the_leader_is_who_the_reports_service_leads_to(deployment: Deployment) -> None:
    world = deployment.world
    service = {"metadata": {"name": "drivetrain-reports"}, "spec": {"ports": [{"name": "https", "port": 7443}]}}
    await world.request(
        "POST", f"/api/v1/namespaces/{NAMESPACE}/services", {"apiVersion": "v1", "kind": "Service", **service}
    )
    one = await deployment.start("one", "--reports-service", "drivetrain-reports")
    slices = "discovery.k8s.io/endpointslices"
    await deployment.until(lambda: len(world.all(slices)) == 1)
    (found,) = world.all(slices)
    assert found["endpoints"][0]["addresses"] == [one.host]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "drivetrain-reports"
    await world.create_job(a_job())
    await deployment.until(lambda: len(world.pods()) == 3)
    (address,) = (
        s["spec"]["clusterIP"] for s in world.all("services") if s["metadata"]["name"] == "drivetrain-reports"
    )
    coordinator = next(pod for pod in world.pods() if "coordinator" in pod["metadata"]["name"])
    env = {entry["name"]: entry.get("value") for entry in coordinator["spec"]["containers"][0]["env"]}
    assert env["DRIVETRAIN_REPORTS"] == f"https://{address}:7443"


async def test_a_taken_port_is_named(deployment: Deployment) -> None:
    first = await deployment.start("one")
    await deployment.until(lambda: "prepared" in first.log.read_text())
    second = await deployment.start("two", "--metrics-host", first.host)
    assert await second.ended() == 78
    assert "--metrics-port" in second.log.read_text()


async def test_who_reads_metrics_of_a_job_that_is_shut_off(deployment: Deployment) -> None:
    """From the flag, by caches that are filled, to the policy; and pods follow it."""
    world = deployment.world
    await deployment.start("one", "--no-leader-election", '--scraper={"podSelector": {"matchLabels": {"app": "p"}}}')
    await world.create_job(a_job(network={"ingress": "job", "egress": "job"}))
    await deployment.until(lambda: len(world.pods(ROLE_WORKER, live=True)) == 2)
    policies = world.all("networking.k8s.io/networkpolicies")
    leader = End.of(world.pods(ROLE_COORDINATOR)[0])
    readers = {name: End(NAMESPACE, {"app": name}) for name in ("p", "q")}
    assert passes(policies, readers["p"], leader, METRICS_PORT)
    assert not passes(policies, readers["q"], leader, METRICS_PORT)
    assert passes(policies, leader, readers["q"], REPORTS_PORT)


async def test_each_watch_tells_its_age(deployment: Deployment) -> None:
    one = await deployment.start("one", "--no-leader-election")

    line = re.compile(r'^drivetrain_watch_age_seconds{resource="(\w+)"} [0-9.]+(?:e-?\d+)?$', re.MULTILINE)

    async def told() -> set[str]:
        url = f"http://{one.host}:{METRICS_PORT}/metrics"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return set(line.findall(await answer.text()))
        except aiohttp.ClientConnectorError:
            return set()  # it is not there yet

    async with asyncio.timeout(20):
        while not {"trainingjobs", "pods", "services", "networkpolicies"} <= await told():
            await asyncio.sleep(0.1)


async def test_no_job_starts_beside_the_root_of_trust(deployment: Deployment) -> None:
    world = deployment.world
    await deployment.start("one", "--no-leader-election", "--no-allow-own-namespace")
    await world.create_job(a_job())
    await deployment.until(lambda: world.status().get("phase") == "Failed")
    assert world.status()["reason"] == "OwnNamespace"
    assert world.pods() == []
