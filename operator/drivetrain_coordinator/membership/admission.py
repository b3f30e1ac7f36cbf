"""May this launcher take part? Asked once per connection, before it is told `welcome`."""

from __future__ import annotations

from drivetrain_api.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Hello,
    ProcessPhase,
    Reject,
    RejectReason,
)
from drivetrain_api.report import Incompatible
from drivetrain_coordinator.membership import facts
from drivetrain_coordinator.membership.state import End, Membership


def admission(m: Membership, hello: Hello) -> Reject | None:
    """Why not; None if it may stay. Before the first roster a launcher stays on trial."""
    if hello.job_uid != m.identity.job_uid:
        return Reject(reason=RejectReason.JOB, message=f"this coordinator serves job {m.identity.job_uid}")
    if hello.protocol_min > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
        m.incompatible[hello.pod_uid] = Incompatible(
            pod_name=hello.pod_name, protocol_min=hello.protocol_min, protocol_max=hello.protocol_max
        )
        spoken = f"{PROTOCOL_MIN}-{PROTOCOL_MAX}"
        return Reject(reason=RejectReason.PROTOCOL, message=f"this coordinator speaks protocol {spoken}")
    if hello.highest_term > m.identity.term or m.end is End.SUPERSEDED:
        return Reject(reason=RejectReason.TERM, message=f"this coordinator's term {m.identity.term} is over")
    if m.roster is not None:
        listed = any(pod.uid == hello.pod_uid for pod in m.roster.pods)
        if not listed or hello.pod_uid in m.proven_pods:
            return Reject(reason=RejectReason.ROSTER, message="not on the operator's list of pods")
    return _slot(m, hello)


def _slot(m: Membership, hello: Hello) -> Reject | None:
    known = m.launchers.get(hello.pod_uid)
    if known is not None and known.boot != hello.boot:
        living = any(process.phase is not ProcessPhase.DEAD for process in known.processes.values())
        if known.connected or living:
            return Reject(reason=RejectReason.SLOT, message="another launcher of this pod has living processes")
    listed = {pod.uid for pod in m.roster.pods} if m.roster is not None else None
    for other in m.launchers.values():
        if other.pod_uid == hello.pod_uid or other.index != hello.index or not other.connected:
            continue
        if listed is None:
            return Reject(
                reason=RejectReason.ROSTER, message=f"two pods claim index {hello.index}; the roster will tell"
            )
        # One that is to go does not keep its successor out: behind a cut cable it seems connected for many minutes.
        if other.pod_uid in listed and other.pod_uid not in m.proven_pods and facts.staying(m, other.pod_uid):
            return Reject(reason=RejectReason.SLOT, message=f"index {hello.index} belongs to pod {other.pod_name}")
    return None
