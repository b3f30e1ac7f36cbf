"""The real machine behind a model network, with checks on everything that it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivetrain_api.messages import (
    EpochId,
    Form,
    Hello,
    LauncherState,
    Member,
    ProcessPhase,
    Put,
    Reject,
    RejectReason,
)
from drivetrain_api.report import Roster
from drivetrain_coordinator.membership import (
    Connected,
    Disconnected,
    Dismiss,
    End,
    Event,
    Identity,
    Machine,
    Output,
    PutKey,
    Retire,
    RosterCame,
    Said,
    Send,
    Tick,
    Timings,
)
from unit.coordinator.sim.clock import Violation
from unit.coordinator.sim.launcher import Connection, SimLauncher

if TYPE_CHECKING:
    from unit.coordinator.sim.world import World

TIMINGS = Timings(
    beat=2.0,
    no_progress=20.0,
    no_progress_first=20.0,
    no_progress_long=20.0,
    arrival_wait=4.0,
    deadline=4.0,
    deadline_limit=20.0,
)


class SimCoordinator:
    """One coordinator process."""

    def __init__(self, world: World, term: int) -> None:
        self.world, self.term = world, term
        self.machine: Machine = world.machine(
            Identity("job", "ns", "job", term, world.per_pod), TIMINGS, world.clock.now
        )
        self.alive = True
        self.connections: dict[str, Connection] = {}
        self._tick_at: float | None = None
        self.feed(Tick())

    def knows(self, launcher: SimLauncher) -> bool:
        """It already has the launcher's forms (they ride on the first state of a connection, which TCP delivers)."""
        known = self.machine.state.launchers.get(launcher.uid)
        return known is not None and known.handed_over

    # --- network ------------------------------------------------------------------------------------------------

    def accept(self, connection: Connection, hello: Hello) -> None:
        launcher = connection.launcher
        if not self.alive or not connection.open or launcher.isolated:
            launcher.hang_up(connection)
            return
        reject = self.machine.admission(hello)
        clock = self.world.clock
        if reject is not None:
            clock.after(clock.between(0.001, 0.02), launcher.rejected, connection, reject)
            return
        older = self.connections.get(launcher.uid)
        if older is not None:
            older.open = False
        self.connections[launcher.uid] = connection
        clock.after(clock.between(0.001, 0.02), launcher.welcome, connection, self.term)
        self.feed(Connected(hello))

    def closed(self, connection: Connection) -> None:
        launcher = connection.launcher
        if self.connections.get(launcher.uid) is connection:
            del self.connections[launcher.uid]
            self.feed(Disconnected(launcher.uid, launcher.boot))

    def receive(self, connection: Connection, message: LauncherState | Put) -> None:
        launcher = connection.launcher
        if self.connections.get(launcher.uid) is not connection:
            return
        if isinstance(message, Put):
            self.feed(PutKey(launcher.uid, launcher.boot, message))
        else:
            self.feed(Said(launcher.uid, launcher.boot, message))

    def roster(self, roster: Roster) -> None:
        self.feed(RosterCame(roster))

    def die(self) -> None:
        self.alive = False
        for connection in list(self.connections.values()):
            if not connection.launcher.isolated:
                connection.launcher.hang_up(connection)
        self.connections.clear()

    # --- machine ------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        if not self.alive or self.world.over:
            return
        clock = self.world.clock
        was = self.machine.state.end
        outputs = self.machine.step(event, clock.now)
        forms: dict[EpochId, Form] = {}
        for output in outputs:
            self._carry_out(output, forms)
        for form in forms.values():
            self._check(form)
        if self.machine.state.end is End.COMPLETE and was is None:
            self._check_complete()
        if self.machine.state.end is End.SUPERSEDED:
            return
        at = self.machine.next_tick
        if self._tick_at is None or at < self._tick_at or self._tick_at <= clock.now:
            self._tick_at = max(at, clock.now + 0.0001)
            clock.after(self._tick_at - clock.now, self._tick, self._tick_at)

    def _tick(self, at: float) -> None:
        if self._tick_at == at:
            self._tick_at = None
            self.feed(Tick())

    def _carry_out(self, output: Output, forms: dict[EpochId, Form]) -> None:
        match output:
            case Send(pod_uid, message):
                connection = self.connections.get(pod_uid)
                if isinstance(message, Form):
                    forms[message.epoch] = message
                self.world.clock.counts[f"-> {message.type}"] += 1
                if connection is not None and connection.open:
                    for delay in self.world.deliveries():
                        self.world.clock.after(delay, connection.launcher.receive, connection, message)
            case Dismiss(pod_uid, reject):
                self._dismiss(pod_uid, reject)
            case Retire():
                self.world.clock.counts["retired"] += 1
                self.die()

    def _dismiss(self, pod_uid: str, reject: Reject) -> None:
        connection = self.connections.pop(pod_uid, None)
        assert reject.reason is RejectReason.ROSTER
        if connection is not None:
            connection.launcher.hang_up(connection)
            self.feed(Disconnected(pod_uid, connection.launcher.boot))

    # --- invariants ---------------------------------------------------------------------------------------------

    def _check(self, form: Form) -> None:
        again = form.epoch in self.world.forms
        known = self.world.forms.setdefault(form.epoch, form)
        if known.members != form.members:
            raise Violation(f"two epochs are {form.epoch}")
        if again and known.fresh is form.fresh:
            return
        self.world.clock.log("form", form.epoch, form.boundary.value, form.reason, [x.process for x in form.members])
        counts = self.world.clock.counts
        counts[f"form {form.boundary.value}: {reason_class(form.reason)}"] += 1
        processes = [member.process for member in form.members]
        if len(set(processes)) != len(processes):
            raise Violation(f"{form.epoch} seats a process twice: {processes}")
        roster = self.machine.state.roster
        assert roster is not None
        for pod in {member.pod_uid for member in form.members}:
            if sum(member.pod_uid == pod for member in form.members) > self.world.per_pod:
                raise Violation(f"{form.epoch} seats more than {self.world.per_pod} of pod {pod}")
        done = all(self._phase(member) is ProcessPhase.DONE for member in form.members)
        if len(form.members) < roster.minimum * self.world.per_pod and not done:
            raise Violation(f"{form.epoch} has {len(form.members)} members, fewer than the minimum {roster.minimum}")
        if form.fresh or (self.machine.state.pending is not None and self.machine.state.pending.loses_state):
            self.world.may_lose(form)

    def _phase(self, member: Member) -> ProcessPhase | None:
        launcher = self.machine.state.launchers.get(member.pod_uid)
        process = launcher.processes.get(member.process) if launcher is not None else None
        return process.phase if process is not None else None

    def _check_complete(self) -> None:
        active = self.machine.state.active
        assert active is not None
        for member in active.members:
            rank = self.world.rank(member.process)
            if rank is None or rank.phase is not ProcessPhase.DONE:
                raise Violation(f"complete, though {member.process} is not done")
            if rank.state is None or rank.state.step + 1 < self.world.steps:
                raise Violation(f"complete, though {member.process} lacks steps")
        self.world.over = True


def reason_class(reason: str) -> str:
    """Reasons without the names in them."""
    for text in ("out of reach", "lost a rank", "leaving", "no progress for"):
        if text in reason:
            return text
    return reason
