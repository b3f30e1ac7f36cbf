"""Operator and agent in one talk, over a real API server: a limited domain, a cap in force, the meter, and all given
back. The job is a value here, and its order is written by hand where its pass would; cards are fake (fake_nvml.c).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.clock import SystemClock
from drivetrain_operator.energy.agents import Agents
from drivetrain_operator.energy.capped import Placed
from drivetrain_operator.energy.domains import Domain
from drivetrain_operator.energy.limits import Limited
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.told_caps import ToldCaps
from drivetrain_operator.kube.auth import KubeConfig
from drivetrain_operator.kube.client import KubeClient
from unit.nodeagent.test_agent import CAPS, PID, POD, Node, node
from unit.plan import builders as b

__all__ = ["node"]
WHERE = "drivetrain-system"
DOMAIN = PowerDomain.model_validate(
    {"name": "hall", "nodeSelector": {"hall": "1"}, "zone": "DE", "maxTemperatureC": 60}
)
OF = b.spec(workers=1, gpusPerWorker=1, energy={"profile": [{"workers": 1, "stepsPerSecond": 1, "watts": 350}]})
STATUS = b.started(OF)
JOB = b.job(OF, STATUS.model_copy(update={"workers": STATUS.workers.model_copy(update={"current": 1})}), uid="job")


class Leader:
    """What the operator's loop does at a look."""

    def __init__(self, client: KubeClient) -> None:
        clock = SystemClock()
        self.placed = Placed("job", None, (b.worker(0, uid=POD, node="node-a"),))
        told = ToldCaps(client, WHERE, clock, random.Random(1))
        self.agents = Agents(Reports(client, WHERE, clock), told, clock, lambda: [self.placed], lambda: True)
        self.domain = Domain()
        self.limit: Limited | None = None
        self.domains: tuple[PowerDomain, ...] = ()

    async def look(self) -> None:
        await self.agents.hear()
        self.agents.feel(self.domains, [JOB], lambda job: DOMAIN)
        self.domain.tick(DOMAIN, self.limit, [JOB], time.monotonic(), self.agents.cards)
        order = self.domain.orders.get("job")
        assert order is None or order.workers == 1, "a cap that is heard of in time costs no worker"
        self.placed = replace(self.placed, cap=order.cap_watts if order is not None else None)
        await self.agents.tell()

    async def until(self, true: Callable[[], bool], seconds: float = 90) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await self.look()
                await asyncio.sleep(0.5)


async def talk(node: Node, told: Callable[[Leader], Awaitable[None]]) -> None:
    node.cards.compute(PID)
    async with KubeClient(KubeConfig(SystemClock(), path=str(node.api.kubeconfig))) as client:
        leader = Leader(client)
        await leader.until(lambda: "job" in leader.agents.cards)
        await told(leader)


@pytest.mark.timeout(240)
async def test_a_limit_becomes_a_cap_in_force_and_is_over(node: Node) -> None:
    async def told(leader: Leader) -> None:
        assert leader.agents.sets_caps(JOB)
        leader.limit = Limited(280.0, "a limit")
        await leader.until(lambda: node.cards.limit() < 350)
        cap = node.cards.limit()
        assert cap == leader.placed.cap
        await leader.until(lambda: leader.agents.cards["job"].cap == cap)
        leader.limit = None
        await leader.until(lambda: node.cards.limit() == 350 and leader.domain.idle)
        assert not node.api.get(f"/api/v1/namespaces/{WHERE}/configmaps/{CAPS}").get("data")

    await talk(node, told)


@pytest.mark.timeout(240)
async def test_a_hot_node_is_capped(node: Node) -> None:
    """The card says 61 degrees."""

    async def told(leader: Leader) -> None:
        leader.domains = (DOMAIN,)
        await leader.until(lambda: node.cards.limit() == 325)
        assert leader.agents.hot.found["node-a"].why.startswith("node node-a: 61 °C, 60 °C allowed")
        leader.domains = ()
        await leader.until(lambda: node.cards.limit() == 350)

    await talk(node, told)
