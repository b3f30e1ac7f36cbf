"""Which processes ended when they should not have, and which of these ends have one cause.

All ranks raise at once when the script has a defect: that is one incident and costs one restart of the job's budget. A
failure belongs to the open incident if its process was there already when that opened, and has not got a seat since: a
spare, or a replacement, that took over and fails in its turn has tried anew. Training that goes on closes the incident.
What Drivetrain ended itself, for no fault of the script's, belongs to none; what it ends within seconds is one event.
Deaths of which a coordinator hears that never knew the process alive are of its predecessor's time: those of one moment
are one incident. The operator knows of which it was told before; the others, when no coordinator was there, are news.
"""

from __future__ import annotations

from drivetrain_api.messages import ProcessPhase, ProcessState
from drivetrain_api.report import Failure
from drivetrain_coordinator.membership import facts
from drivetrain_coordinator.membership.state import Launcher, Membership

KEPT = 20
REMEDY_SECONDS = 10.0
MAX_INHERITED = 64
"""So many incidents from before its term does a coordinator tell apart: what launchers say of them has no other end."""
BEGINS_SECONDS = 60.0
"""A script that says nothing of its steps has made none that counts so soon after its start: it imports, and reads its
checkpoint."""
ONE_MOMENT = 5.0
"""So far apart may deaths of one cause be, and what their launchers said of it may have travelled."""


def hear(m: Membership, launcher: Launcher, process: ProcessState, now: float) -> None:
    """Note one process of a launcher's state; a new death becomes a failure unless the pod or the job was ending."""
    inherited = m.identity.term > 1 and process.id not in m.first_seen
    m.first_seen.setdefault(process.id, now)
    if process.phase is not ProcessPhase.DEAD or process.id in m.dead:
        return
    m.dead.add(process.id)
    condemned = m.condemned.pop(process.id, None)
    if launcher.leaving or m.end is not None or launcher.pod_uid in m.released:
        return
    number = _number(m, process, now, inherited=inherited)
    m.failure_count += 1
    kind = "signal" if process.signal is not None else "exit"
    m.failures_by_kind[kind] = m.failures_by_kind.get(kind, 0) + 1
    failure = Failure(
        seq=m.failure_count,
        incident=number,
        process=process.id,
        pod_uid=launcher.pod_uid,
        pod_name=launcher.pod_name,
        rank=condemned.rank if condemned is not None else rank(m, process.id),
        exit_code=process.exit_code,
        signal=process.signal,
        log_tail=process.log_tail,
        step=None if inherited else _step(m, process, now),
        remedy=process.remedy,
    )
    m.failures = [*m.failures, failure][-KEPT:]


def _step(m: Membership, process: ProcessState, now: float) -> int | None:
    """The last one that it had made; -1: none; None: nobody knows, because its script says nothing of its steps."""
    if not facts.stock(process):
        return max(m.step, process.step)
    formed_at = m.active.formed_at if m.active is not None else None
    return -1 if formed_at is None or now - formed_at < BEGINS_SECONDS else None


def _number(m: Membership, process: ProcessState, now: float, *, inherited: bool) -> int:
    """Of the incident, existing or new; of an event of remedies, negative."""
    incident = m.incident
    if process.remedy:
        if now - incident.remedied_at > REMEDY_SECONDS:
            incident.remedies += 1
        incident.remedied_at = now
        return -incident.remedies
    if inherited:
        return _inherited(m, None if process.dead_seconds is None else now - process.dead_seconds)
    if not _belongs(m, process.id, now):
        incident.number += 1
        incident.opened_at, incident.step, incident.open = now, max(m.step, process.step), True
        incident.members = frozenset(
            seated for epoch in (m.active, m.pending) if epoch is not None for seated in epoch.seats
        )
    return incident.number


def _inherited(m: Membership, died_at: float | None) -> int:
    """Of the incident of that moment. All of which nobody tells when they were are one."""
    incident = m.incident
    for first, number in incident.inherited:
        if first == died_at or (first is not None and died_at is not None and abs(first - died_at) <= ONE_MOMENT):
            return number
    if len(incident.inherited) >= MAX_INHERITED:
        return incident.inherited[-1][1]
    incident.number += 1
    incident.inherited.append((died_at, incident.number))
    return incident.number


def _belongs(m: Membership, process: str, now: float) -> bool:
    """Whether a death heard now is part of the open incident."""
    incident = m.incident
    if not incident.open:
        return False
    if now == incident.opened_at:
        return True  # one message told of both
    return m.first_seen[process] < incident.opened_at and (process in incident.members or rank(m, process) is None)


def close_if_over(m: Membership) -> None:
    """Two more steps than when it opened: one may have been under way already."""
    if m.incident.open and m.step >= m.incident.step + 2:
        m.incident.open = False


def rank(m: Membership, process: str) -> int | None:
    """Of a process in the membership; None if it has no seat there."""
    for epoch in (m.active, m.pending):
        if epoch is not None and process in epoch.ranks:
            return epoch.ranks[process]
    return None
