"""What a new term does with what earlier terms left behind.

Launchers hand over the forms that they received. From these follows which epoch may be training right now; if all its
members are in it, it is taken over as it is, and nobody notices that the coordinator died.
"""

from __future__ import annotations

from drivetrain_api.messages import Boundary, EpochId, LauncherState
from drivetrain_coordinator.membership import facts, formation
from drivetrain_coordinator.membership.state import Epoch, Launcher, Membership
from drivetrain_coordinator.store import Rendezvous


def foreign_term(m: Membership, state: LauncherState) -> str | None:
    """Why this coordinator must end: forms exist that only a newer coordinator, or a double, can have sent."""
    for form in state.forms or ():
        if form.epoch.term > m.identity.term:
            return f"term {form.epoch.term} exists"
        if form.epoch.term == m.identity.term and form.epoch.n > m.n:
            return f"another coordinator has term {m.identity.term}"
    return None


def hand_over(m: Membership, launcher: Launcher, state: LauncherState) -> None:
    """Keep the forms that a launcher brings, until an epoch of this term is tabled and makes them history."""
    if state.forms is None:
        return
    launcher.handed_over = True
    if m.active is not None and m.active.id.term == m.identity.term:
        return
    for form in state.forms:
        known = m.inherited.get(form.epoch)
        # Launchers of older images hand it over without the fields that they do not know.
        if form.epoch.term < m.identity.term and (known is None or known.recoveries <= form.recoveries):
            m.inherited[form.epoch] = form
    tabled = [process.epoch for process in state.processes if process.formed and process.epoch is not None]
    if state.tabled is not None:
        tabled.append(state.tabled)
    for epoch in tabled:
        if epoch in m.inherited and (m.inherited_tabled is None or epoch > m.inherited_tabled):
            m.inherited_tabled = epoch
    if m.inherited_tabled is not None:
        for epoch in [epoch for epoch in m.inherited if epoch < m.inherited_tabled]:
            del m.inherited[epoch]
    _adopt(m)
    if m.settled and m.active is not None and m.active.tabled_at is None:
        _take_over(m, m.now)  # a launcher came late, after this term had given up waiting


def _adopt(m: Membership) -> None:
    """Take the highest epoch that is known as tabled for the active one; without any, the highest form."""
    if not m.inherited:
        return
    epoch_id = m.inherited_tabled if m.inherited_tabled in m.inherited else max(m.inherited)
    assert epoch_id is not None
    certain = epoch_id == m.inherited_tabled
    if m.active is not None and m.active.id == epoch_id and m.active.certain == certain:
        return
    form = m.inherited[epoch_id]
    m.active = Epoch(
        id=epoch_id,
        members=tuple(form.members),
        boundary=Boundary.NOW,
        fresh=form.fresh,
        reason="taken over",
        sent_at=0.0,
        deadline=form.deadline_seconds,
        store=Rendezvous(epoch_id, [member.process for member in form.members], m.timings.flush),
        first=epoch_id == EpochId(1, 1),
        certain=certain,
    )


def settle(m: Membership, now: float) -> bool:
    """True when everyone who could know something has been heard, or had time to be."""
    if m.settled:
        return True
    if m.identity.term > 1 and not _all_heard(m, now):
        m.message = "waits for launchers to hand over what they know"
        return False
    m.settled = True
    m.settled_at = m.step_at = now
    _take_over(m, now)
    return True


def _take_over(m: Membership, now: float) -> None:
    """Its members count as they reported before this coordinator knew of the epoch."""
    if m.active is None:
        return
    m.active.tabled_at = now
    m.recovery.before = m.inherited[m.active.id].recoveries
    for launcher in m.launchers.values():
        for process in launcher.processes.values():
            formation.hear(m, process, now)


def saw_it_whole(m: Membership, now: float) -> bool:
    """Whether all members of the active epoch were there before now, as this coordinator itself heard. Else what it
    misses was lost before its time, by a clock that it does not have."""
    active = m.active
    return active is None or active.id.term == m.identity.term or (active.formed_at or now) < now


def _all_heard(m: Membership, now: float) -> bool:
    assert m.roster is not None
    if _everyone_accounted_for(m):
        return True
    expected = [pod.uid for pod in m.roster.pods if pod.uid not in m.proven_pods]
    if expected and all(pod in m.launchers and m.launchers[pod].handed_over for pod in expected):
        return True
    since = max(m.roster_at, m.last_connect if m.last_connect is not None else m.roster_at)
    return m.reached(since + m.timings.gather)


def _everyone_accounted_for(m: Membership) -> bool:
    """All members of the highest epoch are in it, or dead by proof: there is nothing more to learn."""
    if m.active is None or not m.active.certain or m.active.id != max(m.inherited):
        return False
    for member in m.active.members:
        launcher = m.launchers.get(member.pod_uid)
        if facts.dead(m, member.process, member.pod_uid):
            continue
        if launcher is None or not launcher.handed_over:
            return False
    return True
