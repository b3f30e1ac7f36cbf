"""Several candidates for one Lease, a store with compare-and-swap, and links between them that fail. Time is virtual.

The elector under test is the real one; only the way to the API server is replaced.
"""

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.errors import AlreadyExists, Conflict, NotFound, Unreachable
from drivetrain_operator.kube.lease import LeaderElector, LeadershipLost
from drivetrain_operator.kube.resources import Object, Resource
from unit.operator.virtual_clock import VirtualClock


@dataclass
class LeaseStore:
    """One object with a resourceVersion."""

    lease: Object | None = None
    version: int = 0

    def write(self, lease: Object) -> Object:
        self.version += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.lease = lease
        return copy.deepcopy(lease)


@dataclass
class Link:
    """How one candidate reaches the store. Each request: wait `before`, take effect, wait `after`, answer."""

    store: LeaseStore
    clock: VirtualClock
    before: Callable[[], float] = lambda: 0.01
    after: Callable[[], float] = lambda: 0.01
    cut: bool = False
    late: set[asyncio.Task[Object]] = field(default_factory=set)

    async def _carry(self, effect: Callable[[], Object]) -> Object:
        """A request that was sent takes effect even if whoever sent it has given up."""

        async def travel() -> Object:
            await self.clock.sleep(self.before())
            if self.cut:
                raise Unreachable("cut")
            return effect()

        task = asyncio.ensure_future(travel())
        self.late.add(task)
        task.add_done_callback(self._arrived)
        answer = await asyncio.shield(task)
        await self.clock.sleep(self.after())
        if self.cut:
            raise Unreachable("cut")
        return answer

    def _arrived(self, task: asyncio.Task[Object]) -> None:
        self.late.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: the sender may be gone

    async def get(self, resource: Resource, name: str, namespace: str, *, timeout: float) -> Object:
        def effect() -> Object:
            if self.store.lease is None:
                raise NotFound(404, message="no lease")
            return copy.deepcopy(self.store.lease)

        return await self._carry(effect)

    async def create(self, resource: Resource, body: Object, namespace: str, *, timeout: float) -> Object:
        def effect() -> Object:
            if self.store.lease is not None:
                raise AlreadyExists(409, reason="AlreadyExists")
            return self.store.write(copy.deepcopy(body))

        return await self._carry(effect)

    async def merge_patch(
        self, resource: Resource, name: str, patch: Object, namespace: str, *, resource_version: str, timeout: float
    ) -> Object:
        def effect() -> Object:
            if self.store.lease is None:
                raise NotFound(404, message="no lease")
            if self.store.lease["metadata"]["resourceVersion"] != resource_version:
                raise Conflict(409, reason="Conflict")
            lease = copy.deepcopy(self.store.lease)
            lease["spec"].update(patch["spec"])
            return self.store.write(lease)

        return await self._carry(effect)


@dataclass
class Candidate:
    """An operator process: takes the lease, keeps it, ends when it loses it, and is started again."""

    name: str
    link: Link
    clock: VirtualClock
    elector: LeaderElector
    task: "asyncio.Task[None] | None" = None
    lost: list[str] = field(default_factory=list)

    async def live(self) -> None:
        await self.elector.acquire()
        try:
            await self.elector.keep()
        except LeadershipLost as reason:
            self.lost.append(str(reason))

    @property
    def leads(self) -> bool:
        return self.task is not None and not self.task.done() and self.elector.is_leader


class World:
    """Candidates a, b, c … over one store. `never_two` is checked after every moment."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock(self._check)
        self.store = LeaseStore()
        self.candidates: list[Candidate] = []
        self.boots = 0
        self.leaders: list[str] = []
        self.gaps: list[float] = []
        self._left_at: float | None = None
        for index in range(count):
            self.candidates.append(self._boot("abcdef"[index]))

    def _boot(self, name: str) -> Candidate:
        self.boots += 1
        link = Link(self.store, self.clock)
        elector = LeaderElector(
            cast("KubeClient", cast("Any", link)),
            self.clock,
            random.Random(self.rng.random()),
            namespace="system",
            name="operator",
            identity=f"{name}_{self.boots}",
        )
        return Candidate(name, link, self.clock, elector)

    def start(self, candidate: Candidate) -> None:
        candidate.task = asyncio.ensure_future(candidate.live())

    def start_all(self) -> None:
        for candidate in self.candidates:
            self.start(candidate)

    def crash(self, candidate: Candidate) -> Candidate:
        """SIGKILL and a new process under the same name; what was sent may still arrive."""
        if candidate.task is not None:
            candidate.task.cancel()
            candidate.task = None
        fresh = self._boot(candidate.name)
        self.candidates[self.candidates.index(candidate)] = fresh
        return fresh

    def leader(self) -> Candidate | None:
        return next((c for c in self.candidates if c.leads), None)

    async def stop(self) -> None:
        for candidate in self.candidates:
            if candidate.task is not None:
                candidate.task.cancel()
        for candidate in self.candidates:
            for task in list(candidate.link.late):
                task.cancel()
        await self.clock.settle()

    def _check(self) -> None:
        leading = [c.elector._identity for c in self.candidates if c.leads]
        assert len(leading) <= 1, f"two leaders at {self.clock.time}: {leading}"
        if leading:
            if self.leaders[-1:] != leading:
                self.leaders.append(leading[0])
                if self._left_at is not None:
                    self.gaps.append(self.clock.time - self._left_at)
            self._left_at = self.clock.time
