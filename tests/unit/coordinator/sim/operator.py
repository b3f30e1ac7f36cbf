"""A model operator: it knows which pods exist, proves deaths late but truthfully, and starts coordinators."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from drivetrain_api.report import Roster, RosterPod
from unit.coordinator.sim.coordinator import SimCoordinator
from unit.coordinator.sim.launcher import SimLauncher

if TYPE_CHECKING:
    from unit.coordinator.sim.world import World


class SimOperator:
    """Keeps `target` pods and one coordinator."""

    def __init__(self, world: World, target: int, minimum: int) -> None:
        self.world, self.target, self.minimum = world, target, minimum
        self.term = 0
        self.pods: dict[str, SimLauncher] = {}
        self.draining: set[str] = set()
        self.proven: list[str] = []
        self.slowness = 1.0
        self._revision = itertools.count(1)
        self._names = itertools.count()
        self._restarting = False

    def start(self) -> None:
        self.new_term()
        for index in range(self.target):
            self._create(index)

    def push(self) -> None:
        """Tell all coordinators that are reachable."""
        if self.world.over:
            return
        clock = self.world.clock
        roster = Roster.model_construct(
            protocol=1,
            revision=next(self._revision),
            term=self.term,
            target=self.target,
            minimum=self.minimum,
            pods=[
                RosterPod.model_construct(uid=uid, name=uid, index=pod.index, draining=uid in self.draining)
                for uid, pod in self.pods.items()
            ],
            proven_dead=list(self.proven),
            stop=None,
        )
        for coordinator in self.world.coordinators:
            if coordinator.alive and coordinator is not self.world.cut_off:
                clock.after(clock.between(0.01, 0.15) * self.slowness, coordinator.roster, roster)

    def new_term(self) -> None:
        """Raise the term, then start its coordinator."""
        self._restarting = False
        self.term += 1
        self.world.coordinators.append(SimCoordinator(self.world, self.term))
        self.push()

    def coordinator_lost(self) -> None:
        """Reports stopped coming."""
        if not self._restarting:
            self._restarting = True
            clock = self.world.clock
            clock.after(clock.between(0.3, 1.5), self.new_term)

    def pod_ended(self, pod: SimLauncher) -> None:
        """The truth; Kubernetes learns it late, much later if the node is out of reach."""
        clock = self.world.clock
        late = clock.between(2.0, 6.0) if pod.isolated else clock.between(0.05, 0.8)
        clock.after(late, self._prove, pod)

    def _prove(self, pod: SimLauncher) -> None:
        if pod.uid in self.pods and not self.world.over:
            del self.pods[pod.uid]
            self.proven.append(pod.uid)
            self.push()
            self.world.clock.after(self.world.clock.between(0.05, 0.5), self.fill)

    def fill(self) -> None:
        """Create the pods that are missing."""
        used = {pod.index for uid, pod in self.pods.items()}
        missing = self.target - sum(uid not in self.draining for uid in self.pods)
        for index in range(self.target + len(self.pods)):
            if missing <= 0:
                break
            if index not in used:
                self._create(index)
                missing -= 1

    def resize(self, target: int, minimum: int) -> None:
        """The user scales the job."""
        self.target, self.minimum = target, minimum
        stay = sorted((uid for uid in self.pods if uid not in self.draining), key=lambda uid: self.pods[uid].index)
        for uid in stay[target:]:
            self.drain(uid)
        self.fill()
        self.push()

    def drain(self, uid: str) -> None:
        """A pod is to go: marked in the roster, and told by SIGTERM, in any order."""
        pod = self.pods.get(uid)
        if pod is None:
            return
        clock = self.world.clock
        self.draining.add(uid)
        self.push()
        clock.after(clock.between(0.0, 0.5), pod.terminate)

    def _create(self, index: int) -> None:
        uid = f"p{next(self._names)}"
        self.pods[uid] = SimLauncher(self.world, uid, index)
        self.world.launchers.append(self.pods[uid])
        self.push()
