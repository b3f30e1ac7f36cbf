"""Model ranks: they enter epochs upwards, compare and heal, and commit a step only when all members take part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivetrain_api.messages import (
    Boundary,
    EpochId,
    Form,
    ProcessPhase,
    ProcessState,
)
from unit.coordinator.sim.clock import Violation

if TYPE_CHECKING:
    from unit.coordinator.sim.launcher import SimLauncher
    from unit.coordinator.sim.world import World


@dataclass(frozen=True, eq=False)
class State:
    """Training state: the chain of (epoch, step) that made it. Equal chains are equal weights."""

    step: int
    mark: int
    parent: State | None


INITIAL = State(-1, 0, None)


class Ledger:
    """What the outside saw, and which epoch made it: checks that nothing forks and nothing is lost."""

    def __init__(self) -> None:
        self.visible: State = INITIAL
        self.committed_by = EpochId(0, 0)

    def commit(self, group: Group, before: State) -> None:
        """All members of `group` hold `before` (now visible) and complete one step more."""
        if group.form.epoch < self.committed_by:
            raise Violation(f"{group.form.epoch} commits after {self.committed_by} did")
        self.committed_by = group.form.epoch
        self.show(before)

    def show(self, state: State) -> None:
        if state.step < self.visible.step or ancestor(state, self.visible.step) != self.visible.mark:
            raise Violation(f"step {self.visible.step} was visible and is lost: now at {state.step}")
        self.visible = state

    def check(self, state: State, epoch: EpochId) -> None:
        """A group begins from `state`."""
        if state.step < self.visible.step or ancestor(state, self.visible.step) != self.visible.mark:
            raise Violation(f"{epoch} begins from step {state.step}, though step {self.visible.step} was visible")


def ancestor(state: State, step: int) -> int | None:
    """Mark of the chain at `step`."""
    at: State | None = state
    while at is not None and at.step > step:
        at = at.parent
    return at.mark if at is not None and at.step == step else None


class Rank:
    """One rank process."""

    def __init__(self, launcher: SimLauncher, number: int) -> None:
        self.launcher = launcher
        self.id = f"{launcher.uid}/{launcher.boot}/{number}"
        self.pid = number
        self.phase = ProcessPhase.READY
        self.alive = True
        self.frozen = False
        self.epoch: EpochId | None = None
        self.group: Group | None = None
        self.formed = False
        self.state: State | None = None
        self.fault: str | None = None
        self.stopped = False
        self.form: Form | None = None
        self._picture: ProcessState | None = None
        self._pictured: tuple[object, ...] = ()

    @property
    def runs(self) -> bool:
        return self.alive and not self.frozen

    def picture(self) -> ProcessState:
        """As the launcher reports it."""
        now = (self.alive, self.phase, self.epoch, self.formed, self.state, self.fault, self.frozen)
        if self._picture is None or self._pictured != now:
            self._pictured = now
            self._picture = self._draw()
        return self._picture

    def _draw(self) -> ProcessState:
        return ProcessState.model_construct(
            id=self.id,
            pid=self.pid,
            start_ticks=1,
            phase=self.phase if self.alive else ProcessPhase.DEAD,
            epoch=self.epoch,
            formed=self.formed,
            has_state=self.state is not None,
            step=self.state.step if self.state is not None else -1,
            fault=self.fault,
            waiting=not self.frozen,
            exit_code=None,
            signal=None if self.alive else 9,
            log_tail="",
        )

    def order(self, form: Form) -> None:
        """A form arrives; only the highest counts."""
        if self.form is not None and form.epoch <= self.form.epoch:
            return
        self.form = form
        self.consider()

    def consider(self) -> None:
        """Enter the newest form as soon as that is allowed."""
        form = self.form
        if form is None or (self.epoch is not None and form.epoch <= self.epoch) or not self.runs:
            return
        free = not self.formed or self.stopped or self.fault is not None or self.phase is not ProcessPhase.MEMBER
        if form.boundary is Boundary.NOW or free:
            clock = self.launcher.world.clock
            clock.after(clock.between(0.001, 0.02), self._enter, form)

    def _enter(self, form: Form) -> None:
        if not self.runs or self.form is not form or (self.epoch is not None and form.epoch <= self.epoch):
            return
        me = next((member for member in form.members if member.process == self.id), None)
        if me is None:
            if self.phase is ProcessPhase.MEMBER:
                self.phase, self.formed, self.fault, self.stopped = ProcessPhase.READY, False, None, False
                self._leave()
                self.launcher.changed()
            return
        self._leave()
        self.epoch, self.formed, self.fault, self.stopped = form.epoch, False, None, False
        if me.new:
            self.state = None
        if self.phase is not ProcessPhase.DONE or me.new:
            self.phase = ProcessPhase.MEMBER
        self.group = self.launcher.world.group(form)
        self.group.entered[self.id] = self
        self.launcher.entered(self)

    def _leave(self) -> None:
        group, self.group = self.group, None
        if group is not None:
            group.broken("a member moved on")

    def die(self) -> None:
        """The process ends; peers notice if the network still carries its end."""
        if not self.alive:
            return
        self.alive = False
        if self.group is not None:
            self.group.lost(self)
        self.launcher.reap(self)


class Group:
    """The process group of one epoch. `new` members come without state; all others bring theirs."""

    def __init__(self, world: World, form: Form) -> None:
        self.world = world
        self.form = form
        self.entered: dict[str, Rank] = {}
        self.with_table: set[str] = set()
        self.compared = False
        self.over = False
        self.stop = False
        self.stepping = False
        self.stuck = False

    def table(self, rank: Rank) -> None:
        """The rank has all addresses."""
        self.with_table.add(rank.id)
        if len(self.with_table) == len(self.form.members) and not self.compared:
            self.compared = True
            self.world.clock.after(self.world.clock.between(0.005, 0.05), self._compare)

    def members(self) -> list[Rank]:
        return [self.entered[member.process] for member in self.form.members if member.process in self.entered]

    def together(self) -> bool:
        """All members run, are in this epoch, and reach each other."""
        ranks = self.members()
        if self.over or self.stuck or len(ranks) < len(self.form.members):
            return False
        pods = {rank.launcher for rank in ranks}
        if len(pods) > 1 and (any(pod.isolated for pod in pods) or len({pod.side for pod in pods}) > 1):
            return False
        return all(rank.runs and rank.epoch == self.form.epoch and rank.fault is None for rank in ranks)

    def broken(self, why: str) -> None:
        """A member closed its connections on purpose."""
        if not self.over:
            self.over = True
            self._tell(why)

    def lost(self, rank: Rank) -> None:
        """A member died; unless its node vanished, its kernel closes its connections."""
        if self.over:
            return
        self.over = True
        if not rank.launcher.isolated:
            self._tell("connection reset by peer")
        else:
            self.world.clock.after(4.0, self._tell, "time-out")

    def _tell(self, why: str) -> None:
        clock = self.world.clock
        for other in self.members():
            clock.after(clock.between(0.005, 0.04), self._fault, other, why)

    def _fault(self, rank: Rank, why: str) -> None:
        if rank.alive and rank.epoch == self.form.epoch and rank.phase is ProcessPhase.MEMBER and rank.fault is None:
            rank.fault = why
            rank.launcher.changed()
            rank.consider()

    def _compare(self) -> None:
        if self.over:
            return
        if not self.together():
            self.world.clock.after(0.2, self._compare)
            return
        ranks = self.members()
        best = max((rank.state for rank in ranks if rank.state is not None), key=lambda s: s.step, default=None)
        if best is None:
            if not self.form.fresh:
                for rank in ranks:
                    self._fault(rank, "no member holds state")
                return
            best = INITIAL
        self.world.begins(self, best)
        clock = self.world.clock
        for rank in ranks:
            copies = rank.state is None or rank.state.step < best.step
            clock.after(clock.between(0.02, 0.15) if copies else 0.0, self._heal, rank, best)

    def _heal(self, rank: Rank, best: State) -> None:
        if self.over or rank.epoch != self.form.epoch:
            return
        if not self.together():
            self.world.clock.after(0.1, self._heal, rank, best)
            return
        rank.state = best
        rank.formed = True
        rank.launcher.changed()
        rank.consider()
        self._next()

    def _next(self) -> None:
        """Start the next step's collective when all members are at the same step."""
        ranks = self.members()
        first = ranks[0].state
        if self.stepping or self.over or not all(rank.formed and rank.state is not None for rank in ranks):
            return
        if first is None or any(rank.state is not None and rank.state.step != first.step for rank in ranks):
            return
        if any(rank.state is not first for rank in ranks):
            raise Violation(f"{self.form.epoch}: members at step {first.step} hold different states")
        self.stepping = True
        self.world.clock.after(self.world.step_seconds, self._collective, first)

    def _collective(self, before: State) -> None:
        if self.over:
            return
        if not self.together():
            self.world.clock.after(0.2, self._collective, before)
            return
        self.stepping = False
        ranks = self.members()
        newer = [rank for rank in ranks if rank.form is not None and rank.form.epoch > self.form.epoch]
        self.stop = self.stop or bool(newer)
        clock = self.world.clock
        if before.step + 1 >= self.world.steps:
            self.world.ledger.commit(self, before)
            for rank in ranks:
                clock.after(clock.between(0.0, 0.02), self._done, rank)
            return
        self.world.ledger.commit(self, before)
        mark = hash((self.form.epoch, before.step + 1, before.mark))
        after = State(before.step + 1, mark, before)
        for rank in ranks:
            slow = clock.random.random() < 0.05  # a long optimizer step
            clock.after(clock.between(0.0, 1.0 if slow else 0.02), self._commit, rank, after)

    def _commit(self, rank: Rank, after: State) -> None:
        if not rank.alive or rank.epoch != self.form.epoch or rank.phase is not ProcessPhase.MEMBER:
            return
        if rank.frozen:
            self.world.clock.after(0.1, self._commit, rank, after)
            return
        rank.state = after
        rank.stopped = self.stop
        rank.launcher.changed()
        rank.consider()
        if not self.stop:
            self._next()

    def _done(self, rank: Rank) -> None:
        if rank.alive and rank.epoch == self.form.epoch and rank.fault is None:
            rank.phase = ProcessPhase.DONE
            rank.launcher.changed()
            rank.consider()
