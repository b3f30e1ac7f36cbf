"""A model launcher: it spawns ranks, knows of their deaths at once, and obeys the highest term that it ever saw."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from drivetrain_api.messages import (
    Complete,
    EpochId,
    Form,
    Hello,
    Kill,
    LauncherState,
    ProcessPhase,
    Put,
    Reject,
    Released,
    Table,
)
from unit.coordinator.sim.ranks import Rank

if TYPE_CHECKING:
    from unit.coordinator.sim.coordinator import SimCoordinator
    from unit.coordinator.sim.world import World

HEARTBEAT = 1.0
GRACE = 8.0


class Connection:
    """One WebSocket: messages of an ended one are lost."""

    def __init__(self, launcher: SimLauncher, coordinator: SimCoordinator) -> None:
        self.launcher, self.coordinator = launcher, coordinator
        self.open = True
        self.welcomed = False


class SimLauncher:
    """Launcher and node of one pod."""

    def __init__(self, world: World, uid: str, index: int) -> None:
        self.world, self.uid, self.index, self.boot = world, uid, index, "b"
        self.alive = True
        self.isolated = False
        self.side = 0
        """Half of a split network; 0 while there is no split."""
        self.leaving = False
        self.ranks: dict[str, Rank] = {}
        self.forms: list[Form] = []
        self.tabled: EpochId | None = None
        self.highest_term = 0
        self.connection: Connection | None = None
        self.tables: dict[EpochId, Table] = {}
        self._seq = itertools.count(1)
        self._numbers = itertools.count(1)
        self._sending = False
        self._heartbeats = 0
        clock = world.clock
        for _ in range(world.per_pod + world.spares):
            clock.after(clock.between(0.1, 0.9), self.spawn)
        clock.after(clock.between(0.0, 0.3), self.dial)

    # --- processes ----------------------------------------------------------------------------------------------

    def spawn(self) -> None:
        """A rank process becomes ready."""
        if self.alive:
            rank = Rank(self, next(self._numbers))
            self.ranks[rank.id] = rank
            self.changed()

    def reap(self, rank: Rank) -> None:
        """waitpid returned."""
        if self.alive and not self.world.over:
            self.changed()
            if not self.leaving:
                self.world.clock.after(self.world.clock.between(0.2, 0.8), self.spawn)

    def entered(self, rank: Rank) -> None:
        """A rank entered an epoch: acknowledge, put its address."""
        self.changed()
        assert rank.epoch is not None
        self._send(Put.model_construct(type="put", epoch=rank.epoch, process=rank.id, key=rank.id, value="YQ=="))
        if rank.epoch in self.tables and rank.group is not None:
            rank.group.table(rank)

    def end(self) -> None:
        """The launcher and all its ranks die."""
        self.alive = False
        for rank in list(self.ranks.values()):
            rank.die()
        if self.connection is not None and not self.isolated:
            self.hang_up(self.connection)
        self.world.operator.pod_ended(self)

    def terminate(self) -> None:
        """SIGTERM."""
        if self.alive and not self.leaving:
            self.leaving = True
            self.changed()
            self.world.clock.after(GRACE, self._give_up)

    def _give_up(self) -> None:
        if self.alive:
            self.world.clock.counts["grace over"] += 1
            self.end()

    # --- channel ------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """Look for a coordinator until there is one."""
        if not self.alive or self.world.over or self.connection is not None:
            return
        clock = self.world.clock
        coordinator = self.world.service(self)
        if coordinator is None or self.isolated:
            clock.after(clock.between(0.1, 0.6), self.dial)
            return
        self.connection = Connection(self, coordinator)
        hello = Hello.model_construct(
            type="hello",
            protocol_min=1,
            protocol_max=1,
            job_uid="job",
            pod_uid=self.uid,
            pod_name=self.uid,
            index=self.index,
            boot=self.boot,
            highest_term=self.highest_term,
            version="",
        )
        clock.after(clock.between(0.001, 0.02), coordinator.accept, self.connection, hello)

    def welcome(self, connection: Connection, term: int) -> None:
        if self.connection is not connection or not connection.open or not self.alive:
            return
        if term < self.highest_term:
            self.hang_up(connection)
            return
        self.highest_term = term
        connection.welcomed = True
        self.changed()
        self._heartbeats += 1
        self._beat(self._heartbeats)

    def rejected(self, connection: Connection, reject: Reject) -> None:
        self.world.clock.counts[f"reject {reject.reason.value}"] += 1
        self.hang_up(connection)

    def hang_up(self, connection: Connection) -> None:
        """The connection is over; whoever is reachable hears of it."""
        if not connection.open:
            return
        connection.open = False
        clock = self.world.clock
        clock.after(clock.between(0.001, 0.02), connection.coordinator.closed, connection)
        if self.connection is connection:
            self.connection = None
            if self.alive:
                clock.after(clock.between(0.05, 0.4), self.dial)

    def isolate(self) -> None:
        """The network to this pod is cut; both ends find out on their own."""
        self.isolated = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.open = False
            if self.world.clock.random.random() < 0.3:
                self.world.clock.after(0.5, connection.coordinator.closed, connection)
        self.world.clock.after(1.0, self.dial)

    def _beat(self, number: int) -> None:
        if self.alive and self.connection is not None and number == self._heartbeats and not self.world.over:
            self._tell()
            self.world.clock.after(HEARTBEAT, self._beat, number)

    def changed(self) -> None:
        """Send the whole state soon."""
        if not self._sending and self.connection is not None:
            self._sending = True
            self.world.clock.after(0.0005, self._tell)

    def _tell(self) -> None:
        self._sending = False
        connection = self.connection
        if connection is None or not connection.welcomed or not self.alive:
            return
        term = connection.coordinator.term
        known = connection.coordinator.knows(self)
        forms = list(self.forms) if not known or any(form.epoch.term != term for form in self.forms) else None
        self._send(
            LauncherState.model_construct(
                type="state",
                seq=next(self._seq),
                processes=[rank.picture() for rank in self.ranks.values()],
                leaving=self.leaving,
                tabled=self.tabled,
                forms=forms,
                progress=None,
                counters={},
            )
        )

    def _send(self, message: LauncherState | Put) -> None:
        connection = self.connection
        if connection is None or not connection.welcomed or self.isolated:
            return
        for delay in self.world.deliveries():
            self.world.clock.after(delay, connection.coordinator.receive, connection, message)

    def receive(self, connection: Connection, message: object) -> None:
        """A message of the coordinator arrives."""
        if not self.alive or self.isolated or self.connection is not connection or not connection.welcomed:
            return
        match message:
            case Form():
                self._form(message)
            case Table():
                self._table(message)
            case Kill():
                rank = self.ranks.get(message.process)
                if rank is not None:
                    self.world.clock.counts["killed by order"] += 1
                    rank.die()
            case Released():
                if self.leaving:
                    self.world.clock.counts["left after release"] += 1
                    self.end()
            case Complete():
                pass

    def _form(self, form: Form) -> None:
        if form.epoch.term < self.highest_term:
            return
        if all(known.epoch != form.epoch for known in self.forms) and (
            self.tabled is None or form.epoch >= self.tabled
        ):
            self.forms = sorted([*self.forms, form], key=lambda known: known.epoch)
        named = {member.process for member in form.members}
        for rank in self.ranks.values():
            if rank.id in named or rank.phase in (ProcessPhase.MEMBER, ProcessPhase.DONE):
                rank.order(form)

    def _table(self, table: Table) -> None:
        if all(known.epoch != table.epoch for known in self.forms):
            return
        self.tables = {table.epoch: table}
        if self.tabled is None or table.epoch > self.tabled:
            self.tabled = table.epoch
            self.forms = [form for form in self.forms if form.epoch >= table.epoch]
        for rank in self.ranks.values():
            if rank.epoch == table.epoch and rank.group is not None:
                rank.group.table(rank)
