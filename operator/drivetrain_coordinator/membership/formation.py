"""One epoch from its form to its standing group: who acknowledged, when the table goes out, when it takes too long."""

from __future__ import annotations

from drivetrain_api.messages import (
    LOST,
    Boundary,
    EpochId,
    Member,
    ProcessPhase,
    ProcessState,
)
from drivetrain_coordinator.membership import drop, facts
from drivetrain_coordinator.membership.events import Output, Send
from drivetrain_coordinator.membership.seats import Proposal
from drivetrain_coordinator.membership.state import Epoch, Launcher, Membership, Resend
from drivetrain_coordinator.store import Rendezvous


def open_epoch(m: Membership, proposal: Proposal, reason: str, now: float, *, abandon: bool = False) -> list[Output]:
    """Number the next epoch and tell everyone concerned: its members, and those of the last one that are not in it.

    `abandon`: at once, whether or not the active epoch could get to a step boundary.
    """
    epoch_id = next_id(m)
    m.pending = Epoch(
        id=epoch_id,
        members=proposal.members,
        boundary=Boundary.NOW if abandon else boundary(m, now),
        fresh=proposal.fresh,
        reason=reason,
        sent_at=now,
        deadline=_deadline(m, len(proposal.members)),
        store=Rendezvous(epoch_id, proposal.processes, m.timings.flush),
        first=m.active is None and not m.inherited,
        loses_state=proposal.loses_state,
        recoveries=m.recovery.in_all - (proposal.loses_state and m.recovery.since is not None),
    )
    m.join_since = None
    m.message = reason
    form = m.pending.form()
    outputs: list[Output] = []
    for pod in dict.fromkeys([*_pods(m.pending), *(_pods(m.active) if m.active is not None else [])]):
        launcher = m.launchers.get(pod)
        if launcher is not None and launcher.connected:
            launcher.form_sent = Resend(epoch_id, now, m.timings.resend)
            outputs.append(Send(pod, form))
    return outputs


def next_id(m: Membership) -> EpochId:
    """Never used before: the term is ours alone."""
    m.n += 1
    return EpochId(m.identity.term, m.n)


def boundary(m: Membership, now: float) -> Boundary:
    """At the next step boundary if the active epoch can get there with all its members, else now."""
    if m.active is None or m.active.formed_at is None or m.fault_at is not None:
        return Boundary.NOW
    if m.pending is not None and m.pending.boundary is Boundary.NOW:
        return Boundary.NOW
    for member in m.active.members:
        process = facts.find(m, member)
        if process is None or process.phase is ProcessPhase.DEAD or process.epoch != m.active.id:
            return Boundary.NOW
        if member.process in m.condemned or facts.gone(m, member.pod_uid, now):
            return Boundary.NOW
    return Boundary.STEP


def hear(m: Membership, process: ProcessState, now: float) -> None:
    """Note what a process's state says about the epochs that are forming."""
    for epoch in (m.pending, m.active):
        if epoch is None or process.epoch != epoch.id or process.id not in epoch.store.members:
            continue
        acknowledge(epoch, process.id, now)
        if process.formed or process.phase is ProcessPhase.DONE:
            epoch.formed.add(process.id)


def acknowledge(epoch: Epoch, process: str, now: float) -> None:
    """A member entered the epoch; from now on its other members should follow within the deadline."""
    epoch.acknowledged.add(process)
    if epoch.first_ack_at is None:
        epoch.first_ack_at = now


def advance(m: Membership, now: float) -> list[Output]:
    """Send the table when it is time, and notice when the group stands."""
    outputs: list[Output] = []
    pending = m.pending
    if pending is not None and entered_by_all(pending) and _lawful(m, pending, now):
        m.active, m.pending = pending, None
        pending.tabled_at = m.step_at = m.recovery.entered = now
        m.inherited.clear()
        m.fault_at = None
        for process in pending.processes:
            m.silent.pop(process, None)
        outputs += _tables(m, pending, now)
    active = m.active
    if active is None:
        return outputs
    due = active.store.due_at()
    if due is not None and active.tabled_at is not None and m.reached(due):
        outputs += _tables(m, active, now)
    if active.formed_at is None and active.certain and len(active.formed) == len(active.members):
        _stands(m, active, now)
    return outputs


def entered_by_all(epoch: Epoch) -> bool:
    """Every member acknowledged it, so none can commit in an older epoch any more."""
    return len(epoch.acknowledged) == len(epoch.members)


def _lawful(m: Membership, epoch: Epoch, now: float) -> bool:
    if any(facts.dead(m, member.process, member.pod_uid) for member in epoch.members):
        return False
    return drop.objection(m, epoch.processes, now, strict=True) is None


def _tables(m: Membership, epoch: Epoch, now: float) -> list[Output]:
    table = epoch.store.table()
    outputs: list[Output] = []
    for pod in _pods(epoch):
        launcher = m.launchers.get(pod)
        if launcher is not None and launcher.connected:
            launcher.table_sent = Resend(epoch.id, now, m.timings.resend)
            outputs.append(Send(pod, table))
    return outputs


def _stands(m: Membership, epoch: Epoch, now: float) -> None:
    epoch.formed_at = m.step_at = m.recovery.stood = now
    m.formation_failures = 0
    m.epochs_formed += 1
    m.message = ""
    steps = [process.step for member in epoch.members if (process := facts.find(m, member)) is not None]
    if epoch.loses_state:
        m.state_lost += 1
        m.step = max(steps, default=-1)
        m.progress = None
        m.recovery.give_up()
    if all(facts.stock(facts.find(m, member)) for member in epoch.members):
        m.incident.open = False  # what was started anew can only fail anew
    if m.recovery.since is not None:
        m.recovery.floor = max(steps, default=-1)


def tell_lost(m: Membership, now: float) -> None:
    """No epoch can follow yet: have those that start scripts anew know whom they miss, or they would take their
    scripts' errors for failures of their own."""
    active = m.active
    if active is None or not any(facts.stock(facts.find(m, member)) for member in active.members):
        return
    for member in active.members:
        if facts.dead(m, member.process, member.pod_uid) or facts.gone(m, member.pod_uid, now):
            active.store.put(member.process, f"{LOST}{member.process}", "", now)


def overdue(m: Membership, now: float) -> list[Member] | None:
    """Members that hold up a formation which is past its deadline; None while there is time (or nothing forms)."""
    if m.pending is not None:
        since = m.pending.sent_at if m.pending.boundary is Boundary.NOW else m.pending.first_ack_at
        if since is None:
            return None
        if not m.reached(since + m.pending.deadline * _saving(m, m.pending)):
            return None
        return _silent(m, m.pending, now)
    active = m.active
    if active is None or active.formed_at is not None or active.tabled_at is None:
        return None
    limit = active.deadline * m.timings.formed_factor
    if not m.reached(active.tabled_at + limit):
        return None
    return _not_waiting(m, active)


def _saving(m: Membership, epoch: Epoch) -> float:
    """By how much longer members may take that have a script to end, which saves before it does."""
    if epoch.boundary is Boundary.NOW or m.active is None:
        return 1.0
    stock = any(facts.stock(facts.find(m, member)) for member in m.active.members)
    return m.timings.formed_factor if stock else 1.0


def _silent(m: Membership, epoch: Epoch, now: float) -> list[Member]:
    """Members that did not enter; and those that were to leave and did not stop, if the epoch depends on that."""
    silent = [member for member in epoch.members if member.process not in epoch.acknowledged]
    if not silent and m.active is not None and drop.objection(m, epoch.processes, now, strict=True) is not None:
        base = facts.base_of(m.active)
        silent = [x for x in m.active.members if x.process not in epoch.seats and not drop.left(m, x, base)]
    return silent


def _not_waiting(m: Membership, epoch: Epoch) -> list[Member]:
    """Members that neither stand nor wait for others, if others do."""
    late = []
    for member in epoch.members:
        process = facts.find(m, member)
        if member.process not in epoch.formed and (process is None or not process.waiting):
            late.append(member)
    return late if len(late) < len(epoch.members) else []


def _deadline(m: Membership, members: int) -> float:
    """By world size and by how long a step takes (a rank may be computing), doubled per failure."""
    base = max(m.timings.deadline + m.timings.deadline_per_member * members, 3 * m.step_interval)
    return float(min(base * 2.0 ** min(m.formation_failures, 10), max(m.timings.deadline_limit, base)))


def _pods(epoch: Epoch) -> list[str]:
    return list(dict.fromkeys(member.pod_uid for member in epoch.members))


def repeat(m: Membership, launcher: Launcher, now: float) -> list[Output]:
    """Tell a launcher again what it was told without effect: after a reconnect, or when a message was lost."""
    outputs: list[Output] = []
    newest = m.pending if m.pending is not None else m.active
    if newest is not None and _should_know(m, launcher, newest) and _due(launcher.form_sent, newest, now):
        launcher.form_sent = _again(launcher.form_sent, newest, m, now)
        outputs.append(Send(launcher.pod_uid, newest.form()))
    active = m.active
    if active is None or active.tabled_at is None or active.id.term != m.identity.term:
        return outputs
    unformed = [
        process
        for process in launcher.processes.values()
        if process.epoch == active.id and process.id not in active.formed
    ]
    if unformed and _due(launcher.table_sent, active, now):
        launcher.table_sent = _again(launcher.table_sent, active, m, now)
        outputs.append(Send(launcher.pod_uid, active.store.table()))
    return outputs


def _should_know(m: Membership, launcher: Launcher, newest: Epoch) -> bool:
    """One of its processes should have entered `newest`, or left for it, and has not."""
    if newest.id.term != m.identity.term:
        return False
    for process in launcher.processes.values():
        behind = process.epoch is None or process.epoch < newest.id
        named = process.id in newest.seats and process.id not in newest.acknowledged
        if behind and (named or (process.phase is ProcessPhase.MEMBER and process.id not in newest.seats)):
            return True
    return False


def _due(sent: Resend | None, epoch: Epoch, now: float) -> bool:
    return sent is None or sent.epoch != epoch.id or now - sent.at >= sent.wait


def _again(sent: Resend | None, epoch: Epoch, m: Membership, now: float) -> Resend:
    wait = m.timings.resend if sent is None or sent.epoch != epoch.id else min(2 * sent.wait, 30.0)
    return Resend(epoch.id, now, wait)
