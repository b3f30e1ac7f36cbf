"""What is known about pods and processes: who is dead, who is out of reach, who holds the state.

Questions only. Every rule asks here, so that "dead" means the same everywhere: proven, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drivetrain_api.messages import (
    EpochId,
    Member,
    ProcessPhase,
    ProcessState,
)
from drivetrain_api.places import STOCK
from drivetrain_coordinator.membership.state import Epoch, Launcher, Membership


def boot_of(process: str) -> str:
    """The launcher life that a process id (`<pod uid>/<boot>/<counter>`) belongs to."""
    parts = process.rsplit("/", 2)
    return parts[1] if len(parts) == 3 else ""


def find(m: Membership, member: Member) -> ProcessState | None:
    """The process as its launcher last described it."""
    launcher = m.launchers.get(member.pod_uid)
    return launcher.processes.get(member.process) if launcher is not None else None


def dead(m: Membership, process: str, pod_uid: str) -> bool:
    """Proven: reaped by its launcher (which may have forgotten it since), or its pod is gone by the operator's word."""
    if process in m.dead or pod_uid in m.proven_pods:
        return True
    launcher = m.launchers.get(pod_uid)
    if launcher is None or launcher.state is None or launcher.boot != boot_of(process):
        return False
    return process not in launcher.processes


def heard(m: Membership, pod_uid: str, now: float) -> bool:
    """Its launcher is connected and spoke lately."""
    launcher = m.launchers.get(pod_uid)
    if launcher is None or not launcher.connected or not launcher.spoke:
        return False
    return now < launcher.heard_at + m.silence


def gone(m: Membership, pod_uid: str, now: float) -> bool:
    """Out of reach long enough to act on, though not proven dead.

    A closed connection counts at once when ranks report a fault: a launcher that was killed takes its ranks with it,
    and both signs come within milliseconds.
    """
    if pod_uid in m.proven_pods:
        return True
    if heard(m, pod_uid, now):
        return False
    launcher = m.launchers.get(pod_uid)
    if launcher is not None and launcher.connected:
        return m.reached(launcher.heard_at + m.silence)
    closed_at = m.settled_at if launcher is None or launcher.closed_at is None else launcher.closed_at
    if m.fault_at is not None:
        return True
    return m.reached(closed_at + m.timings.closed)


def draining(m: Membership, pod_uid: str) -> bool:
    """The operator wants it away."""
    return pod_uid in m.draining


def staying(m: Membership, pod_uid: str) -> bool:
    """Neither told to go nor wished away."""
    launcher = m.launchers.get(pod_uid)
    return launcher is not None and not launcher.leaving and not draining(m, pod_uid)


def unheard(m: Membership) -> list[str]:
    """Names of pods that may hold something of an earlier term and have not handed it over. Of no concern as soon as an
    epoch of this term was tabled, since that took the consent of all who mattered."""
    if m.identity.term == 1 or m.roster is None or (m.active is not None and m.active.id.term == m.identity.term):
        return []
    return [
        pod.name
        for pod in m.roster.pods
        if pod.uid not in m.proven_pods and not (pod.uid in m.launchers and m.launchers[pod.uid].handed_over)
    ]


def faulted(m: Membership) -> bool:
    """A member says that communication in the active epoch failed."""
    if m.active is None:
        return False
    for member in m.active.members:
        process = find(m, member)
        if process is not None and process.fault is not None and process.epoch == m.active.id:
            return True
    return False


def broken(m: Membership) -> bool:
    """The active epoch can commit no more steps."""
    if m.active is None:
        return False
    return m.fault_at is not None or any(dead(m, x.process, x.pod_uid) for x in m.active.members)


@dataclass(frozen=True, slots=True)
class Base:
    """An epoch that the next one must not contradict, because it may be the one that commits steps."""

    id: EpochId
    members: tuple[Member, ...]
    first: bool
    seats: Mapping[str, Member]
    """The members by process."""


def bases(m: Membership) -> Iterator[Base]:
    """The last tabled epoch; for a new term, every epoch handed over that may be it."""
    if m.active is not None and m.active.id.term == m.identity.term:
        yield base_of(m.active)
        return
    for epoch, form in m.inherited.items():
        known = m.inherited_seats.get(epoch)
        if known is None or known[0] is not form:
            known = m.inherited_seats[epoch] = (form, {member.process: member for member in form.members})
        yield Base(epoch, tuple(form.members), epoch == EpochId(1, 1), known[1])


def base_of(epoch: Epoch) -> Base:
    """An epoch of this term, as one that the next must not contradict."""
    return Base(epoch.id, epoch.members, epoch.first, epoch.seats)


def holds_state(m: Membership, process: ProcessState) -> bool:
    """Its training state counts: it was brought along from a last epoch, not left over from an older one.

    Who was seated as new there counts only by a report from inside that epoch: an older report may speak of a stale
    state that has been overwritten half-way since.
    """
    if not process.has_state or process.phase is ProcessPhase.DEAD:
        return False
    member_of_one = False
    for base in bases(m):
        member = base.seats.get(process.id)
        if member is not None:
            member_of_one = True
            if member.new and (process.epoch is None or process.epoch < base.id):
                return False
    return member_of_one


def entered(m: Membership, member: Member, epoch: Epoch) -> bool:
    """The member acknowledged this epoch."""
    if member.process in epoch.acknowledged:
        return True
    process = find(m, member)
    return process is not None and process.epoch == epoch.id


def stock(process: ProcessState | None) -> bool:
    """It runs a script that says nothing of its steps: that it stands is all that is ever known."""
    return process is not None and process.place is not None and process.place.operation == STOCK


def alive(launcher: Launcher) -> Iterator[ProcessState]:
    """Processes of a launcher that can be seated: past start-up and not dead."""
    seatable = (ProcessPhase.READY, ProcessPhase.MEMBER, ProcessPhase.DONE)
    return (process for process in launcher.processes.values() if process.phase in seatable)
