"""What goes wrong: a random schedule of faults up to a moment, after which the world is kind again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unit.coordinator.sim.coordinator import SimCoordinator
from unit.coordinator.sim.launcher import SimLauncher
from unit.coordinator.sim.ranks import Group, Rank

if TYPE_CHECKING:
    from unit.coordinator.sim.world import World


class Faults:
    """Injects faults into a world."""

    def __init__(self, world: World, focus: tuple[str, ...] = ()) -> None:
        self.world = world
        self.focus = focus
        self.clock = world.clock
        kinds = (
            (6, self.rank_dies),
            (2, self.two_ranks_die),
            (3, self.rank_freezes),
            (2, self.rank_hangs),
            (1, self.operation_hangs),
            (3, self.launcher_dies),
            (2, self.partition),
            (1, self.node_vanishes),
            (2, self.connection_drops),
            (2, self.ranks_disconnect),
            (3, self.coordinator_dies),
            (3, self.coordinator_doubles),
            (3, self.network_splits),
            (1, self.roster_slow),
            (2, self.resize),
            (2, self.drain),
        )
        self.kinds = tuple(kind for kind in kinds if not focus or kind[1].__name__ in focus)

    def plan(self) -> float:
        """Schedule faults; returns when they are over."""
        random = self.clock.random
        weights = [weight for weight, _ in self.kinds]
        end = self.clock.between(1.0, 9.0)
        for _ in range(random.choice((3, 4, 5, 6) if self.focus else (0, 1, 1, 2, 2, 3, 4, 6))):
            call = random.choices(self.kinds, weights)[0][1]
            at = end * random.random()
            self.clock.after(at, self._inject, call)
            if random.random() < 0.3:  # trouble seldom comes alone
                self.clock.after(
                    at + self.clock.between(0.0, 0.1), self._inject, random.choices(self.kinds, weights)[0][1]
                )
        self.clock.after(end, self._stop)
        return end

    def _inject(self, call: object) -> None:
        assert callable(call)
        name = getattr(call, "__name__", "fault")
        self.clock.counts[f"fault {name}"] += 1
        self.clock.log("fault", name)
        call()

    def _stop(self) -> None:
        self.clock.faults_over = True
        self.world.operator.slowness = 1.0
        for launcher in self.world.launchers:
            launcher.isolated = False
            launcher.side = 0
        old = self.world.cut_off
        if old is not None:
            self.world.cut_off = None
        self.world.operator.push()
        if not any(coordinator.alive for coordinator in self.world.coordinators):
            self.world.operator.coordinator_lost()

    # --- choices ------------------------------------------------------------------------------------------------

    def _rank(self) -> Rank | None:
        ranks = [rank for pod in self._pods() for rank in pod.ranks.values() if rank.alive]
        return self.clock.random.choice(ranks) if ranks else None

    def _pods(self) -> list[SimLauncher]:
        return [launcher for launcher in self.world.launchers if launcher.alive]

    def _pod(self) -> SimLauncher | None:
        pods = self._pods()
        return self.clock.random.choice(pods) if pods else None

    # --- faults -------------------------------------------------------------------------------------------------

    def rank_dies(self) -> None:
        rank = self._rank()
        if rank is not None:
            rank.die()

    def two_ranks_die(self) -> None:
        self.rank_dies()
        self.clock.after(self.clock.between(0.0, 0.05), self.rank_dies)

    def rank_freezes(self) -> None:
        """SIGSTOP: its launcher sees that and kills it after 0.5 s, unless it goes on before."""
        rank = self._rank()
        if rank is None:
            return
        rank.frozen = True
        length = self.clock.between(0.05, 1.0)
        if length < 0.5:
            self.clock.after(length, self._thaw, rank)
        else:
            self.clock.after(0.5, rank.die)

    def _thaw(self, rank: Rank) -> None:
        rank.frozen = False
        rank.consider()

    def rank_hangs(self) -> None:
        """Deadlocked in user code: runs, but will never take part again."""
        rank = self._rank()
        if rank is not None:
            rank.frozen = True

    def operation_hangs(self) -> None:
        """All ranks wait for one another, for good: something between them got lost."""
        rank = self._rank()
        if rank is not None and rank.group is not None:
            rank.group.stuck = True

    def launcher_dies(self) -> None:
        pod = self._pod()
        if pod is not None:
            pod.end()

    def partition(self) -> None:
        pod = self._pod()
        if pod is not None and not pod.isolated:
            pod.isolate()
            self.clock.after(self.clock.between(0.3, 6.0), self._heal, pod)

    def _heal(self, pod: SimLauncher) -> None:
        pod.isolated = False

    def node_vanishes(self) -> None:
        pod = self._pod()
        if pod is not None and not pod.isolated:
            pod.isolate()
            self.clock.after(self.clock.between(0.0, 3.0), pod.end)

    def connection_drops(self) -> None:
        pod = self._pod()
        if pod is not None and pod.connection is not None:
            pod.hang_up(pod.connection)

    def ranks_disconnect(self) -> None:
        """A connection between two ranks breaks; nobody is dead."""
        rank = self._rank()
        if rank is not None and rank.group is not None:
            rank.group.broken("connection reset by peer")

    def coordinator_dies(self) -> None:
        living = [coordinator for coordinator in self.world.coordinators if coordinator.alive]
        if living:
            living[-1].die()
            self.world.operator.coordinator_lost()

    def coordinator_doubles(self) -> None:
        """The operator starts another, while the old one goes on, cut off from the operator."""
        living = [coordinator for coordinator in self.world.coordinators if coordinator.alive]
        if len(living) != 1 or self.world.cut_off is not None:
            return
        self.world.cut_off = living[0]
        self.world.operator.new_term()
        for connection in list(living[0].connections.values()):
            if self.clock.random.random() < 0.7:
                self.clock.after(self.clock.between(0.0, 3.0), connection.launcher.hang_up, connection)
        self.clock.after(self.clock.between(1.0, 5.0), self._rejoin, living[0])

    def network_splits(self) -> None:
        """Two halves, each with a coordinator of its own: the old one here, a new one there."""
        living = [coordinator for coordinator in self.world.coordinators if coordinator.alive]
        if len(living) != 1 or self.world.cut_off is not None or self.clock.faults_over:
            return
        self.world.cut_off = living[0]
        self.world.operator.new_term()
        for pod in self._pods():
            pod.side = self.clock.random.choice((1, 2))
            if pod.side == 2 and pod.connection is not None:
                pod.hang_up(pod.connection)
        for group in [group for group in self.world.groups.values() if not group.over]:
            self.clock.after(self.clock.between(0.1, 2.0), self._notice, group)
        self.clock.after(self.clock.between(2.0, 8.0), self._unite, living[0])

    def _notice(self, group: Group) -> None:
        if not group.over and len({rank.launcher.side for rank in group.members()}) > 1:
            group.broken("time-out")

    def _unite(self, old: SimCoordinator) -> None:
        for pod in self.world.launchers:
            pod.side = 0
        self._rejoin(old)

    def _rejoin(self, old: SimCoordinator) -> None:
        """The old one hears of the new term."""
        if self.world.cut_off is old:
            self.world.cut_off = None
            self.world.operator.push()

    def roster_slow(self) -> None:
        self.world.operator.slowness = 15.0

    def resize(self) -> None:
        target = self.clock.random.randint(1, 4)
        self.world.operator.resize(target, self.clock.random.choice((target, self.clock.random.randint(1, target))))

    def drain(self) -> None:
        pods = [uid for uid in self.world.operator.pods if uid not in self.world.operator.draining]
        if pods:
            self.world.operator.drain(self.clock.random.choice(pods))
            self.world.operator.fill()
