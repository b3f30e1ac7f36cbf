"""Who would sit in the next epoch?

Survivors keep their order and their seats, newcomers come after. Each pod fills its own seats; what it has beyond them
are spares. Pods beyond the target give up theirs: draining ones first, then the highest index.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from drivetrain_api.messages import (
    EpochId,
    Member,
    ProcessPhase,
    ProcessState,
)
from drivetrain_coordinator.membership import facts
from drivetrain_coordinator.membership.state import Launcher, Membership

Seat = tuple[ProcessState, str]
"""A process and its pod."""
NAMED: Final = 3
"""Pods that a message names; the others are counted."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next epoch's members, if nothing speaks against it."""

    members: tuple[Member, ...]
    fresh: bool = False
    loses_state: bool = False
    all_done: bool = False

    @property
    def processes(self) -> tuple[str, ...]:
        """Process ids in rank order."""
        return tuple(member.process for member in self.members)


def propose(m: Membership, now: float) -> Proposal:
    """The best epoch that could be formed now."""
    assert m.roster is not None
    kept = survivors(m, now)
    if kept and all(process.phase is ProcessPhase.DONE for process, _ in kept):
        return _with_state(m, kept, all_done=True)
    per_pod = m.identity.processes_per_worker
    limit = m.done_world if m.done_world is not None else m.roster.target * per_pod
    pods = dict.fromkeys(_pods(m, kept, now))
    seated = [(process, pod) for process, pod in kept if pod in pods]
    taken, owned = {process.id for process, _ in seated}, Counter(pod for _, pod in seated)
    for pod in pods:
        if len(seated) >= limit:
            break
        for process in _candidates(m, pod, taken)[: max(0, min(per_pod - owned[pod], limit - len(seated)))]:
            seated.append((process, pod))
    seated = _keep_leavers_if_needed(m, kept, seated)
    seated = _call_back_holders(m, seated, now)
    return _with_state(m, seated, all_done=False)


def required(m: Membership) -> int:
    """Members without which training waits."""
    assert m.roster is not None
    return max(1, m.roster.minimum * m.identity.processes_per_worker)


def survivors(m: Membership, now: float) -> list[Seat]:
    """Members of the newest epoch that are neither dead, condemned nor out of reach, in order."""
    newest = m.pending if m.pending is not None else m.active
    kept = []
    for member in newest.members if newest is not None else ():
        process = facts.find(m, member)
        if process is None or process.phase in (ProcessPhase.DEAD, ProcessPhase.STARTING):
            continue
        if facts.dead(m, member.process, member.pod_uid) or member.process in m.condemned:
            continue
        if facts.gone(m, member.pod_uid, now):
            continue
        kept.append((process, member.pod_uid))
    return kept


def ready(m: Membership, launcher: Launcher) -> bool:
    """All processes that the pod is to bring could take a seat now."""
    usable = sum(process.id not in m.condemned for process in facts.alive(launcher))
    return usable >= m.identity.processes_per_worker


def lacking(m: Membership, have: int, wanted: int) -> str:
    """What it waits for that has `have` of `wanted` processes, and which pods lack theirs."""
    pods = sorted(m.roster.pods, key=lambda pod: pod.index) if m.roster is not None else []
    names = [
        pod.name
        for pod in pods
        if not pod.draining
        and pod.uid not in m.proven_pods
        and not (pod.uid in m.launchers and ready(m, m.launchers[pod.uid]))
    ]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    which = f"; not ready: {', '.join(names[:NAMED])}{more}" if names else ""
    return f"waits for ready processes: {have} of {wanted}{which}"


def _pods(m: Membership, kept: list[Seat], now: float) -> list[str]:
    """Pods that get seats, at most `target`: those that have some, lowest index first, then ready newcomers."""
    assert m.roster is not None
    target = m.roster.target
    holding = {pod for _, pod in kept}
    old = sorted((pod for pod in holding if facts.staying(m, pod)), key=lambda pod: m.launchers[pod].index)[:target]
    newcomers = [
        pod.uid
        for pod in sorted(m.roster.pods, key=lambda pod: pod.index)
        if pod.uid not in holding
        and facts.heard(m, pod.uid, now)
        and pod.uid not in m.proven_pods
        and facts.staying(m, pod.uid)
        and ready(m, m.launchers[pod.uid])
    ]
    return old + newcomers[: target - len(old)]


def _candidates(m: Membership, pod: str, taken: set[str]) -> list[ProcessState]:
    """Processes of a pod that could take a free seat; those that hold the state first, then the oldest."""
    free = [
        process
        for process in facts.alive(m.launchers[pod])
        if process.id not in taken and process.id not in m.condemned and process.id not in m.dead
    ]
    return sorted(free, key=lambda process: not facts.holds_state(m, process))


def _keep_leavers_if_needed(m: Membership, kept: list[Seat], seated: list[Seat]) -> list[Seat]:
    """Leavers keep their seats while training could not go on without them, or nobody else holds the state."""
    enough = len(seated) >= required(m)
    if enough and any(facts.holds_state(m, process) for process, _ in seated):
        return seated
    taken = {process.id for process, _ in seated}
    leavers = [(process, pod) for process, pod in kept if process.id not in taken]
    if enough:
        leavers = [(process, pod) for process, pod in leavers if facts.holds_state(m, process)]
    order = {process.id: position for position, (process, _) in enumerate(kept)}
    return sorted(leavers + seated, key=lambda seat: order.get(seat[0].id, len(order)))


def _call_back_holders(m: Membership, seated: list[Seat], now: float) -> list[Seat]:
    """When all who held the newest state are dead: whoever left before with an older one is better than nobody."""
    taken = {process.id for process, _ in seated}
    if not seated or any(facts.holds_state(m, process) for process, _ in seated):
        return seated
    if not _nobody_outside_holds_state(m, taken):
        return seated
    holders = [
        (process, pod)
        for pod, launcher in m.launchers.items()
        if pod not in m.proven_pods and facts.heard(m, pod, now)
        for process in facts.alive(launcher)
        if process.has_state and process.id not in m.condemned
    ]
    best = max((_age(process) for process, _ in holders), default=None)
    return [seat for seat in holders if _age(seat[0]) == best and seat[0].id not in taken] + seated


def _age(process: ProcessState) -> tuple[EpochId, int]:
    return (process.epoch if process.epoch is not None else EpochId(0, 0), process.step)


def _with_state(m: Membership, seated: list[Seat], *, all_done: bool) -> Proposal:
    """Mark who brings the state; with nobody left who could hold it, permit a fresh start or an older state."""
    stock = bool(seated) and all(facts.stock(process) for process, _ in seated)
    if stock:  # they start anew, and expect that ranks of a pod follow one another
        pods = {pod: number for number, pod in enumerate(dict.fromkeys(pod for _, pod in seated))}
        seated = sorted(seated, key=lambda seat: pods[seat[1]])
    new = {process.id: not facts.holds_state(m, process) for process, _ in seated}
    fresh = loses_state = False
    if seated and all(new.values()) and _nobody_outside_holds_state(m, set(new)):
        older = [process for process, _ in seated if process.has_state]
        newest = max((_age(process) for process in older), default=None)
        for process in older:
            new[process.id] = newest is None or process.epoch != newest[0]
        fresh = newest is None
        began = m.epochs_formed > 0 or any(not base.first for base in facts.bases(m))
        # What stock scripts have of a state is in their own checkpoint.
        loses_state = began and not stock and (newest is None or newest[1] < m.step)
    members = tuple(Member(process=process.id, pod_uid=pod, new=new[process.id]) for process, pod in seated)
    return Proposal(members, fresh=fresh, loses_state=loses_state, all_done=all_done)


def _nobody_outside_holds_state(m: Membership, processes: set[str]) -> bool:
    """Every holder that is not coming along is proven dead.

    Exception: members of the very first epoch, if one of them comes along without state: that epoch never committed.
    """
    for base in facts.bases(m):
        if base.first and any(member.process in processes for member in base.members):
            continue
        for member in base.members:
            if member.process not in processes and not facts.dead(m, member.process, member.pod_uid):
                return False
    return not facts.unheard(m) and not any(
        process.has_state and not facts.dead(m, process.id, pod)
        for pod, launcher in m.launchers.items()
        if not facts.heard(m, pod, m.now)
        for process in facts.alive(launcher)
        if process.id not in processes
    )
