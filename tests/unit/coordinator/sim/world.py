"""One history: a job, its faults until a moment, and then the demand that it ends well."""

from __future__ import annotations

from collections.abc import Callable

from drivetrain_api.messages import EpochId, Form
from drivetrain_coordinator.membership import Identity, Machine, Timings
from unit.coordinator.sim.clock import Clock, Violation
from unit.coordinator.sim.coordinator import SimCoordinator
from unit.coordinator.sim.faults import Faults
from unit.coordinator.sim.launcher import SimLauncher
from unit.coordinator.sim.operator import SimOperator
from unit.coordinator.sim.ranks import INITIAL, Group, Ledger, Rank, State

MachineFactory = Callable[[Identity, Timings, float], Machine]
PATIENCE = 240.0
"""Simulated seconds after the last fault within which every job must have completed."""


class World:
    """Everything there is, and who can reach whom. `focus` names the only faults that happen, and makes them many."""

    def __init__(
        self, seed: int, machine: MachineFactory = Machine, trace: bool = False, focus: tuple[str, ...] = ()
    ) -> None:
        self.clock = Clock(seed, trace)
        random = self.clock.random
        self.machine = machine
        self.per_pod = random.choice((1, 1, 1, 2))
        self.spares = random.choice((0, 1))
        self.steps = random.randint(3, 14)
        self.step_seconds = random.choice((0.1, 0.3, 0.8))
        self.loss = random.choice((0.0, 0.0, 0.03))
        self.doubling = random.choice((0.0, 0.05))
        self.launchers: list[SimLauncher] = []
        self.coordinators: list[SimCoordinator] = []
        self.cut_off: SimCoordinator | None = None
        self.forms: dict[EpochId, Form] = {}
        self.groups: dict[EpochId, Group] = {}
        self.ledger = Ledger()
        self.losses: dict[EpochId, Form] = {}
        self.over = False
        target = random.randint(1, 4)
        self.operator = SimOperator(self, target, random.choice((target, random.randint(1, target))))
        self.faults = Faults(self, focus)

    def run(self) -> None:
        """The whole history. Raises Violation."""
        self.operator.start()
        end = self.faults.plan()
        try:
            self.clock.run(end + PATIENCE, lambda: self.over)
        except Violation as error:
            raise Violation(f"seed {self.clock.seed}, {self.clock.now:.3f} s: {error}") from error
        if not self.over:
            states = [(c.term, c.alive, c.machine.state.message) for c in self.coordinators]
            raise Violation(f"seed {self.clock.seed}: not complete {PATIENCE:.0f} s after the last fault: {states}")

    # --- network ------------------------------------------------------------------------------------------------

    def deliveries(self) -> list[float]:
        """Delays after which a message arrives: none if it is lost, two if it is repeated."""
        random = self.clock.random
        roll = random.random()
        if not self.clock.faults_over:
            if roll < self.loss:
                return []
            if roll > 1 - self.doubling:
                return [0.001 + 0.05 * random.random(), 0.01 + 0.5 * random.random()]
            if roll > 0.9 - self.doubling:
                return [0.4 * random.random()]
        return [0.0005 + 0.005 * random.random()]

    def service(self, launcher: SimLauncher) -> SimCoordinator | None:
        """Whom the job's address leads to: the newest coordinator, or in a while of confusion an older one."""
        living = [coordinator for coordinator in self.coordinators if coordinator.alive]
        if not living:
            return None
        if launcher.side and len(living) > 1:
            return living[0 if launcher.side == 1 else -1]
        if len(living) > 1 and not self.clock.faults_over and self.clock.random.random() < 0.3:
            return living[0]
        return living[-1]

    # --- training -----------------------------------------------------------------------------------------------

    def rank(self, process: str) -> Rank | None:
        """By process id."""
        uid = process.split("/", 1)[0]
        launcher = next((launcher for launcher in self.launchers if launcher.uid == uid), None)
        return launcher.ranks.get(process) if launcher is not None else None

    def group(self, form: Form) -> Group:
        """The group that members of `form` build."""
        if form.epoch not in self.groups:
            self.groups[form.epoch] = Group(self, form)
        return self.groups[form.epoch]

    def may_lose(self, form: Form) -> None:
        """The coordinator permits this epoch to begin from less than was visible."""
        self.losses[form.epoch] = form

    def begins(self, group: Group, state: State) -> None:
        """A group compared: it goes on from `state`, which must hold all that was visible, or every holder is dead."""
        visible = self.ledger.visible
        if group.form.epoch in self.losses and state.step < visible.step:
            for launcher in self.launchers:
                for rank in launcher.ranks.values():
                    if rank.alive and rank.state is not None and rank.state.step >= visible.step:
                        raise Violation(f"{group.form.epoch} gives up step {visible.step}, which {rank.id} still holds")
            self.clock.counts["state lost"] += 1
            self.ledger.visible = state if state is not INITIAL else INITIAL
            return
        self.ledger.check(state, group.form.epoch)
