"""May these members be left out of the next epoch?

The one rule that keeps two coordinators, or two halves of a network, from training side by side. An epoch commits steps
only with all its members, and a process enters epochs only upwards: so it is enough that any two successors of an epoch
share a member that is alive.
"""

from __future__ import annotations

from collections.abc import Collection

from drivetrain_api.messages import Member, ProcessPhase
from drivetrain_coordinator.membership import facts
from drivetrain_coordinator.membership.state import Membership


def objection(m: Membership, processes: Collection[str], now: float, *, strict: bool) -> str | None:
    """Why an epoch of `processes` may not follow; None if it may.

    Not `strict`: before the form is sent, when members that are told to leave have not stopped yet. `strict`: before
    the table is sent, the moment from which the new epoch can commit steps.
    """
    processes = frozenset(processes)
    for base in facts.bases(m):
        survivors = sum(member.process in processes for member in base.members)
        if majority(survivors, len(base.members)):
            continue
        for member in base.members:
            if member.process in processes or facts.dead(m, member.process, member.pod_uid) or left(m, member, base):
                continue
            if not strict and facts.heard(m, member.pod_uid, now) and member.process not in m.condemned:
                continue
            return (
                f"waits for proof that {pod_name(m, member.pod_uid)} is dead: {survivors} of {len(base.members)} remain"
            )
    return None


def majority(survivors: int, members: int) -> bool:
    """More than half of an epoch's members, dead ones counted: half against half must not both win."""
    return survivors * 2 > members


def left(m: Membership, member: Member, base: facts.Base) -> bool:
    """It stopped in `base` (or later) and said so: it commits nothing more there."""
    process = facts.find(m, member)
    if process is None or process.epoch is None or process.epoch < base.id:
        return False
    return process.phase in (ProcessPhase.READY, ProcessPhase.DONE)


def pod_name(m: Membership, pod_uid: str) -> str:
    """Name for people; the uid if the name is unknown."""
    launcher = m.launchers.get(pod_uid)
    if launcher is not None:
        return launcher.pod_name
    pods = m.roster.pods if m.roster is not None else []
    return next((pod.name for pod in pods if pod.uid == pod_uid), pod_uid)
