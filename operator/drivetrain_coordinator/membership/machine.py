"""The membership machine: events in, orders out. Deterministic; time comes in with every event.

It performs no I/O, starts no timers and logs nothing, so that tests drive years of it under a simulated clock. The
server feeds it and carries out what it answers. The rules are in the modules beside it; docs/protocol.md has the story.
"""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_api.messages import (
    Complete,
    Hello,
    Kill,
    LauncherState,
    ProcessPhase,
    ProcessState,
    Progress,
    Put,
    Reject,
    RejectReason,
    Released,
    Stop,
)
from drivetrain_api.report import Report, Roster
from drivetrain_coordinator.membership import (
    account,
    admission,
    drop,
    facts,
    formation,
    holdup,
    incidents,
    inherit,
    inspection,
    report,
    seats,
    standstill,
)
from drivetrain_coordinator.membership.events import (
    Connected,
    Disconnected,
    Dismiss,
    Event,
    Output,
    PutKey,
    Retire,
    RosterCame,
    Said,
    Send,
    Tick,
)
from drivetrain_coordinator.membership.state import End, Identity, Launcher, Membership
from drivetrain_coordinator.membership.timings import Timings
from drivetrain_coordinator.membership.triggers import TRIGGERS, Move, Trigger, forming_now, may_start


class Machine:
    """One coordinator's mind. `state` may be read by anyone and is written only here."""

    triggers: Sequence[Trigger] = TRIGGERS

    def __init__(self, identity: Identity, timings: Timings | None = None, now: float = 0.0) -> None:
        self.state = Membership(identity, timings if timings is not None else Timings(), step_at=now, wake=now)
        self.state.energy.began = now
        self._account = account.Account(now)
        self._holdup = holdup.Watch(now)

    @property
    def next_tick(self) -> float:
        """When to send a `Tick` at the latest, if nothing else happens."""
        return self.state.wake

    def admission(self, hello: Hello) -> Reject | None:
        """Why a launcher may not stay; None if it may (then comes `Connected`)."""
        return admission.admission(self.state, hello)

    def report(self, seq: int) -> Report:
        """The picture that the operator gets."""
        return report.report(self.state, self._account, seq)

    def step(self, event: Event, now: float) -> list[Output]:
        """Take one event and say what to do about it."""
        m = self.state
        if now - m.now > m.timings.silence:
            m.counts_from = now
        m.now = now
        outputs: list[Output] = []
        match event:
            case Connected(hello):
                self._connected(hello, now)
            case Disconnected(pod_uid, boot):
                self._disconnected(pod_uid, boot, now)
            case Said(pod_uid, boot, state):
                changed = self._said(pod_uid, boot, state, now, outputs)
                if not changed and now < m.wake:
                    return outputs
            case PutKey(pod_uid, boot, put):
                self._put(pod_uid, boot, put, now)
                if now < m.wake:
                    return formation.advance(m, now)
            case RosterCame(roster):
                self._roster(roster, now, outputs)
            case Tick():
                pass
        due = m.looked_at + m.timings.between_looks(len(m.roster.pods) if m.roster is not None else len(m.launchers))
        if now < due:
            m.wake = due
            return outputs
        self._evaluate(now, outputs)
        self._account.look(m, now)
        self._holdup.look(m, now)
        m.holdup, m.holdup_known = self._holdup.shown, self._holdup.known
        return outputs

    # --- events -------------------------------------------------------------------------------------------------

    def _connected(self, hello: Hello, now: float) -> None:
        m = self.state
        index = hello.index
        if m.roster is not None:
            index = next((pod.index for pod in m.roster.pods if pod.uid == hello.pod_uid), index)
        launcher = m.launchers.get(hello.pod_uid)
        if launcher is None or launcher.boot != hello.boot:
            launcher = Launcher(hello.pod_uid, hello.pod_name, index, hello.boot, connected=True, heard_at=now)
            m.launchers[hello.pod_uid] = launcher
        launcher.connected, launcher.heard_at, launcher.closed_at, launcher.spoke = True, now, None, False
        launcher.form_sent = launcher.table_sent = launcher.final_sent_at = None
        m.incompatible.pop(hello.pod_uid, None)
        m.last_connect = m.last_arrival = now

    def _disconnected(self, pod_uid: str, boot: str, now: float) -> None:
        launcher = self.state.launchers.get(pod_uid)
        if launcher is not None and launcher.boot == boot and launcher.connected:
            launcher.connected, launcher.closed_at = False, now

    def _said(self, pod_uid: str, boot: str, said: LauncherState, now: float, outputs: list[Output]) -> bool:
        """Take over a launcher's state. False if it holds nothing that a rule could act on."""
        m = self.state
        launcher = m.launchers.get(pod_uid)
        if launcher is None or launcher.boot != boot or not launcher.connected or not newer(said, launcher):
            return False
        over = inherit.foreign_term(m, said)
        if over is not None:
            self._end(End.SUPERSEDED, over, outputs)
            return False
        back = not launcher.spoke or now - launcher.heard_at >= m.silence
        launcher.spoke = True
        if back:
            launcher.heard_from = now
        before, leaving = launcher.processes, launcher.leaving
        launcher.heard_at, launcher.seq, launcher.state = now, said.seq, said
        launcher.processes = {process.id: process for process in said.processes}
        launcher.moved = standstill.heard(launcher.moved, said.processes, now)
        changed = (
            back or leaving != said.leaving or said.forms is not None or before.keys() != launcher.processes.keys()
        )
        for process in said.processes:
            old = before.get(process.id)
            incidents.hear(m, launcher, process, now)
            if old is process or old == process:
                continue
            if process.phase is ProcessPhase.READY and (old is None or old.phase is not ProcessPhase.READY):
                m.last_arrival = now
            formation.hear(m, process, now)
            self._step_of(process.step, now)
            changed = changed or old is None or _news(old, process)
        inherit.hand_over(m, launcher, said)
        if said.counters:
            m.counters[pod_uid, boot] = said.counters
        if said.energy is not None:
            m.energy.hear(pod_uid, boot, said.energy, now)
        if said.progress is not None and self._is_news(said.progress, pod_uid):
            m.progress = said.progress
        if m.end is not None or launcher.leaving:
            outputs += self._last_word(launcher, now)
        elif m.settled:
            outputs += formation.repeat(m, launcher, now)
        return changed or m.recovery.since is not None

    def _is_news(self, told: Progress, pod_uid: str) -> bool:
        """Of two launchers, the one whose rank was the first until a moment ago may tell what it last heard."""
        m = self.state
        if m.progress is None or told.step >= m.progress.step:
            return True
        return told.goes_back and m.active is not None and m.active.members[0].pod_uid == pod_uid

    def _step_of(self, step: int, now: float) -> None:
        m = self.state
        if step > m.step:
            if m.step >= 0:
                m.step_interval = (now - m.step_at) / (step - m.step)
                if m.active is not None and m.active.formed_at is not None and m.step_at > m.active.formed_at:
                    m.pace.took(now - m.step_at, step - m.step)
            m.step, m.step_at = step, now
            incidents.close_if_over(m)

    def _put(self, pod_uid: str, boot: str, put: Put, now: float) -> None:
        m = self.state
        launcher = m.launchers.get(pod_uid)
        if launcher is None or launcher.boot != boot or facts.boot_of(put.process) != boot:
            return
        launcher.heard_at = now
        for epoch in (m.pending, m.active):
            if epoch is None or epoch.id != put.epoch or put.process not in epoch.seats:
                continue
            formation.acknowledge(epoch, put.process, now)
            epoch.store.put(put.process, put.key, put.value, now)

    def _roster(self, roster: Roster, now: float, outputs: list[Output]) -> None:
        m = self.state
        if m.roster is not None and roster.revision <= m.roster.revision:
            return
        if roster.term > m.identity.term:
            self._end(End.SUPERSEDED, f"the operator started term {roster.term}", outputs)
            return
        first = m.roster is None
        m.energy.counts_from(roster.energy)
        m.roster = roster
        m.draining = frozenset(pod.uid for pod in roster.pods if pod.draining)
        m.heartbeat = max(m.heartbeat, m.timings.heartbeat_of(len(roster.pods)))
        m.proven_pods.update(roster.proven_dead)
        indices = {pod.uid: pod.index for pod in roster.pods}
        for launcher in m.launchers.values():
            launcher.index = indices.get(launcher.pod_uid, launcher.index)
            if first and launcher.pod_uid not in indices and launcher.connected:
                reject = Reject(reason=RejectReason.ROSTER, message="not on the operator's list of pods")
                outputs.append(Dismiss(launcher.pod_uid, reject))
        if first:
            m.roster_at = now
        if roster.stop is not None and m.end is None:
            self._end(End.STOPPED, roster.stop, outputs)

    # --- decisions ----------------------------------------------------------------------------------------------

    def _evaluate(self, now: float, outputs: list[Output]) -> None:
        m = self.state
        m.looked_at, m.wake = now, now + m.timings.beat
        if m.end is not None:
            self._say_last_word(now, outputs)
            return
        if m.roster is None:
            m.message = "waits for the operator's roster"
            return
        if not inherit.settle(m, now):
            return
        self._observe(now)
        outputs += formation.advance(m, now)
        if self._complete():
            self._end(End.COMPLETE, "all members are done", outputs)
            self._say_last_word(now, outputs)
            return
        self._release(now, outputs)
        move = next((move for trigger in self.triggers if (move := trigger(m, now)) is not None), None)
        if move is not None:
            self._move(move, now, outputs)
        self._kill(now, outputs)
        outputs += inspection.step(m, now)

    def _observe(self, now: float) -> None:
        m = self.state
        if not facts.faulted(m):
            m.fault_at = None
        elif m.fault_at is None:
            m.fault_at = now
        m.still = None if forming_now(m) else standstill.look(m, now)
        before, m.told = m.told, standstill.tell(m, m.still, now)
        m.standstills += m.told is not None and (before is None or before.since != m.told.since)
        if m.active is None or m.active.formed_at is None:
            return
        processes = [facts.find(m, member) for member in m.active.members]
        if m.done_world is None and any(p is not None and p.phase is ProcessPhase.DONE for p in processes):
            m.done_world = len(m.active.members)
        recovery = m.recovery
        if recovery.since is None or recovery.floor is None or forming_now(m):
            return
        floor = recovery.floor
        if all(p is not None and (p.step > floor or p.phase is ProcessPhase.DONE or facts.stock(p)) for p in processes):
            recovery.succeed(now)

    def _move(self, move: Move, now: float, outputs: list[Output]) -> None:
        """Form a new epoch if the rules allow one; else say what it waits for, and ask again at the next event."""
        m = self.state
        if move.loss is not None and m.epochs_formed + len(m.inherited) > 0:
            since = now if m.fault_at is None else min(m.fault_at, now)
            m.recovery.begin(since, now, move.loss, timed=inherit.saw_it_whole(m, now))
        proposal = seats.propose(m, now)
        if forming_now(m) and not move.again and m.pending is not None and proposal.processes == m.pending.processes:
            return
        if not self._allowed(proposal, now):
            m.pending = None
            formation.tell_lost(m, now)
            return
        outputs += formation.open_epoch(m, proposal, move.reason, now, abandon=move.abandon)

    def _allowed(self, proposal: seats.Proposal, now: float) -> bool:
        m = self.state
        if not proposal.all_done and len(proposal.members) < seats.required(m):
            m.message = seats.lacking(m, len(proposal.members), seats.required(m))
            return False
        if not proposal.members:
            m.message = "waits for ready processes"
            return False
        objection = drop.objection(m, proposal.processes, now, strict=False)
        if objection is not None:
            m.message = objection
            return False
        if all(member.new for member in proposal.members) and not proposal.fresh:
            m.message = "waits for a worker that holds the training state, or for proof that all such are dead"
            return False
        return bool(seats.survivors(m, now)) or may_start(m, now)

    def _complete(self) -> bool:
        m = self.state
        if m.active is None or m.active.formed_at is None or forming_now(m):
            return False
        for member in m.active.members:
            process = facts.find(m, member)
            if process is None or process.phase is not ProcessPhase.DONE or process.epoch != m.active.id:
                return False
        return True

    def _release(self, now: float, outputs: list[Output]) -> None:
        """Let leaving launchers go once the others stand without them. If all leave, those with a seat stay until
        newcomers have the state, or their own grace ends: what they hold is all that is left of the training."""
        m = self.state
        leaving = [launcher for launcher in m.launchers.values() if launcher.connected and launcher.leaving]
        if not leaving:
            return
        needed = {member.pod_uid for epoch in (m.active, m.pending) if epoch is not None for member in epoch.members}
        holders = any(process.has_state for each in m.launchers.values() for process in each.processes.values())
        if not holders and needed <= {launcher.pod_uid for launcher in leaving} | m.proven_pods:
            needed = set()  # nothing would be lost
        elif m.active is not None and (m.active.formed_at is None or facts.broken(m)):
            return
        for launcher in leaving:
            if launcher.pod_uid not in needed and launcher.pod_uid not in m.released:
                m.released.add(launcher.pod_uid)
                outputs += self._last_word(launcher, now)

    def _kill(self, now: float, outputs: list[Output]) -> None:
        m = self.state
        for process, condemned in list(m.condemned.items()):
            pod = condemned.pod_uid
            if facts.dead(m, process, pod):
                del m.condemned[process]
            elif facts.heard(m, pod, now) and now - condemned.ordered_at >= m.timings.resend:
                condemned.ordered_at = now
                outputs.append(Send(pod, Kill(process=process, reason=condemned.reason, stacks=True)))

    # --- ends ---------------------------------------------------------------------------------------------------

    def _end(self, end: End, reason: str, outputs: list[Output]) -> None:
        m = self.state
        if m.end is End.SUPERSEDED:
            return
        m.end, m.end_reason = end, reason
        if end is End.SUPERSEDED:
            outputs.append(Retire(reason))

    def _say_last_word(self, now: float, outputs: list[Output]) -> None:
        for launcher in self.state.launchers.values():
            if launcher.connected:
                outputs += self._last_word(launcher, now)

    def _last_word(self, launcher: Launcher, now: float) -> list[Output]:
        """What a launcher needs to know to go, repeated while it stays."""
        m = self.state
        if launcher.final_sent_at is not None and now - launcher.final_sent_at < m.timings.resend:
            return []
        if m.end is End.COMPLETE:
            word: Complete | Stop | Released = Complete()
        elif m.end is End.STOPPED:
            word = Stop(reason=m.end_reason)
        elif m.end is None and launcher.pod_uid in m.released:
            word = Released()
        else:
            return []
        launcher.final_sent_at = now
        return [Send(launcher.pod_uid, word)]


def newer(said: LauncherState, launcher: Launcher) -> bool:
    """Not a repeated message, nor one that another overtook."""
    return said.seq > launcher.seq


def _news(old: ProcessState, new: ProcessState) -> bool:
    """More changed than the step (and whether it waits, which only a clock acts on)."""
    before = (old.phase, old.epoch, old.formed, old.has_state, old.fault)
    return before != (new.phase, new.epoch, new.formed, new.has_state, new.fault)
