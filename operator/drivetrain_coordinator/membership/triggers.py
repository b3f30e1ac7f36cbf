"""Should the membership change now? One rule a function, asked in the order of `TRIGGERS`; the first answer counts.

Losses come first and act at once: no timer stands between a proof of death and the next form. Wishes (leave, shrink,
join) come last and wait for a step boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drivetrain_api.messages import KILLED, NO_PROGRESS, Boundary, Member
from drivetrain_api.recovery import RecoveryCause
from drivetrain_coordinator.membership import drop, facts, formation, incidents, seats, standstill, waits
from drivetrain_coordinator.membership.state import Condemned, Epoch, Membership


@dataclass(frozen=True, slots=True)
class Move:
    """Form a new epoch."""

    reason: str
    again: bool = False
    """Even with the same members: the last formation came to nothing."""
    loss: RecoveryCause | None = None
    """Something was lost: recovery time starts to count."""
    abandon: bool = False
    """What is in flight will never end, though all members look well: nobody is to wait for a step boundary."""


Trigger = Callable[[Membership, float], Move | None]


def forming_now(m: Membership) -> bool:
    """An epoch is pending for which members abandon what they do."""
    return m.pending is not None and m.pending.boundary is Boundary.NOW


def watched(m: Membership) -> Iterator[Member]:
    """Members whose loss matters: of the epoch that trains until it is abandoned, and of the one that comes."""
    seen: set[str] = set()
    for epoch in (m.pending, None if forming_now(m) else m.active):
        for member in epoch.members if epoch is not None else ():
            if member.process not in seen:
                seen.add(member.process)
                yield member


def first_epoch(m: Membership, now: float) -> Move | None:
    """Nothing was formed yet: start with all wanted workers, or after a while with as many as suffice."""
    if m.active is not None or m.pending is not None:
        return None
    return Move("the job starts") if may_start(m, now) else None


def may_start(m: Membership, now: float) -> bool:
    """Enough newcomers are there to begin without any survivor."""
    assert m.roster is not None
    proposal = seats.propose(m, now)
    wanted = m.roster.target * m.identity.processes_per_worker
    if m.active is None:
        unheard = facts.unheard(m)
        if unheard:
            m.message = f"waits for word from {', '.join(sorted(unheard)[:3])}: an earlier term may have state there"
            return False
    if proposal.members and len(proposal.members) >= wanted:
        return True
    m.message = seats.lacking(m, len(proposal.members), wanted)
    if len(proposal.members) < seats.required(m) or m.last_arrival is None:
        return False
    return m.reached(m.last_arrival + m.timings.arrival_wait)


def unsettled(m: Membership, now: float) -> Move | None:
    """A predecessor left a form behind that not everybody followed: nobody may stay in it."""
    if m.pending is not None or m.active is None or m.active.id.term == m.identity.term:
        return None
    if m.active.certain and m.active.id == max(m.inherited, default=m.active.id):
        return None
    return Move("the last coordinator ended while it formed", again=True, loss=RecoveryCause.COORDINATOR)


def unlawful(m: Membership, now: float) -> Move | None:
    """News from an earlier term forbids the epoch that is being formed."""
    if m.pending is None or drop.objection(m, m.pending.processes, now, strict=False) is None:
        return None
    return Move("another coordinator's epoch came to light", again=True)


def member_dead(m: Membership, now: float) -> Move | None:
    """A member is proven dead."""
    for member in watched(m):
        if facts.dead(m, member.process, member.pod_uid):
            return Move(f"{drop.pod_name(m, member.pod_uid)} lost a rank", loss=_cause_of(m, member))
    return None


def _cause_of(m: Membership, member: Member) -> RecoveryCause:
    """Of a death."""
    if member.pod_uid in m.proven_pods:
        return RecoveryCause.POD
    killed = (f"{KILLED}{NO_PROGRESS}" in f.log_tail for f in m.failures if f.process == member.process)
    return RecoveryCause.STANDSTILL if any(killed) else RecoveryCause.PROCESS


def moved_on(m: Membership, now: float) -> Move | None:
    """A member of the active epoch left it for one that will not come: the active one can never go on."""
    if m.active is None or m.pending is not None:
        return None
    for member in m.active.members:
        process = facts.find(m, member)
        if process is not None and process.epoch is not None and process.epoch > m.active.id:
            return Move("a formation was given up half-way", again=True, loss=RecoveryCause.FORMATION)
    return None


def connection_lost(m: Membership, now: float) -> Move | None:
    """A member is out of reach and training does not go on without its launcher's channel."""
    if not any(facts.gone(m, member.pod_uid, now) for member in watched(m)):
        return None
    if m.active is not None and m.active.formed_at is not None and not forming_now(m):
        lost_newcomer = m.pending is not None and any(facts.gone(m, x.pod_uid, now) for x in m.pending.members)
        if not lost_newcomer and m.fault_at is None and not stalled(m, now):
            return None
    names = {drop.pod_name(m, x.pod_uid) for x in watched(m) if facts.gone(m, x.pod_uid, now)}
    return Move(f"{', '.join(sorted(names)[:3])} out of reach", loss=RecoveryCause.UNREACHABLE)


def stalled(m: Membership, now: float) -> bool:
    """No step for longer than steps usually take; where none is ever told, no word of a member for long."""
    if m.active is not None and any(facts.stock(facts.find(m, member)) for member in m.active.members):
        gone = [x.pod_uid for x in m.active.members if facts.gone(m, x.pod_uid, now)]
        silent = [m.launchers[pod] for pod in gone if pod in m.launchers]
        return m.reached(min((each.heard_at for each in silent), default=now) + m.timings.stock_gone)
    return m.reached(m.step_at + max(m.timings.stall, 2 * m.step_interval))


def fault(m: Membership, now: float) -> Move | None:
    """Communication failed though all members look alive: wait for a proof of death, then try again together."""
    if m.fault_at is None or forming_now(m):
        return None
    if not m.reached(m.fault_at + m.timings.fault_wait):
        return None
    if m.active is not None and m.active.formed_at is None:
        m.formation_failures += 1
    return Move("communication failed", again=True, loss=RecoveryCause.COMMUNICATION)


def deadline(m: Membership, now: float) -> Move | None:
    """A formation takes too long: those that did not answer twice are killed, the others try again."""
    late = formation.overdue(m, now)
    if late is None:
        return None
    m.formation_failures += 1
    for member in late:
        m.silent[member.process] = m.silent.get(member.process, 0) + 1
        if m.silent[member.process] >= 2:
            condemn(m, member, "it was silent while two memberships formed")  # no failure of its script
    return Move("the last formation took too long", again=True, loss=RecoveryCause.FORMATION)


def no_progress(m: Membership, now: float) -> Move | None:
    """The group stands and does not move: kill those that hold it up. If all wait for each other, bring them together
    anew, and if that does not help, kill them all: each has its own idea of what comes next."""
    still = m.still
    if still is None or m.active is None or not m.reached(still.ends_at):
        return None
    if any(member.process in m.condemned for member in m.active.members):
        return None
    why, late = standstill.verdict(m, still, now), waits.late(still.seats)
    if not late and m.renewed_at != m.step:
        m.renewed_at, m.counts_from = m.step, now
        return Move(why, again=True, loss=RecoveryCause.STANDSTILL, abandon=True)
    for seat in late or still.seats:
        condemn(m, m.active.members[seat.rank], f"{NO_PROGRESS}: {why}")
    return None


def condemn(m: Membership, member: Member, why: str) -> None:
    """Have a process killed that holds the others up. Its seat is free when it is dead, or when a majority goes on
    without it."""
    found = Condemned(member.pod_uid, incidents.rank(m, member.process), why)
    m.condemned.setdefault(member.process, found)


def departures(m: Membership, now: float) -> Move | None:
    """A member is to go: it leaves at a step boundary, as soon as training can go on without it."""
    epoch = steady(m, now)
    if epoch is None:
        return None
    proposal = seats.propose(m, now)
    gone = set(epoch.processes) - set(proposal.processes)
    if not gone or not proposal.members:
        return None
    leaving = {drop.pod_name(m, member.pod_uid) for member in epoch.members if member.process in gone}
    if gone.isdisjoint(m.condemned):
        return Move(f"{', '.join(sorted(leaving)[:3])} leaving")
    return Move(f"{', '.join(sorted(leaving)[:3])} held the others up", loss=RecoveryCause.STANDSTILL)


def arrivals(m: Membership, now: float) -> Move | None:
    """Seats are free and processes ready: they join at a step boundary, after a short wait for others."""
    epoch = steady(m, now)
    if epoch is None:
        m.join_since = None
        return None
    proposal = seats.propose(m, now)
    if not set(proposal.processes) - set(epoch.processes):
        m.join_since = None
        return None
    assert m.roster is not None
    if m.join_since is None:
        m.join_since = now
    full = len(proposal.members) >= m.roster.target * m.identity.processes_per_worker
    if not full and not m.reached(m.join_since + m.timings.join_batch):
        return None
    return Move("workers join")


def steady(m: Membership, now: float) -> Epoch | None:
    """The active epoch, if it trains undisturbed and no other is coming."""
    if m.active is None or m.active.formed_at is None or m.pending is not None or m.fault_at is not None:
        return None
    if any(facts.gone(m, member.pod_uid, now) for member in m.active.members):
        return None  # its rank may well go on training: a change now would throw it out
    return m.active


TRIGGERS: tuple[Trigger, ...] = (
    first_epoch,
    unsettled,
    unlawful,
    member_dead,
    moved_on,
    connection_lost,
    deadline,
    fault,
    no_progress,
    departures,
    arrivals,
)
