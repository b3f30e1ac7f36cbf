"""What the coordinator tells the operator: a picture of the membership, made anew each time."""

from __future__ import annotations

from typing import Final

from drivetrain_api.messages import Member, ProcessPhase, ProcessState, Progress
from drivetrain_api.places import Place
from drivetrain_api.report import JobState, MemberReport, Report
from drivetrain_coordinator.membership import facts, seats, standstill
from drivetrain_coordinator.membership.account import Account, told
from drivetrain_coordinator.membership.state import End, Membership

MAX_INCOMPATIBLE: Final = 64


def report(m: Membership, account: Account, seq: int) -> Report:
    """The whole report; `seq` numbers it within the term. Of pods that left only those that somebody still knows: in a
    job that lives for months there are more than a report holds."""
    identity = m.identity
    listed = {pod.uid for pod in m.roster.pods} if m.roster is not None else m.released
    members = []
    for rank, member in enumerate(m.active.members if m.active is not None else ()):
        process = facts.find(m, member)
        if process is None:
            continue
        members.append(
            MemberReport(
                rank=rank,
                process=member.process,
                pod_uid=member.pod_uid,
                pid=process.pid,
                start_ticks=process.start_ticks,
                step=process.step,
                place=_place(m, member, process),
                waiting=process.waiting,
            )
        )
    return Report(
        job_uid=identity.job_uid,
        namespace=identity.namespace,
        job=identity.job,
        term=identity.term,
        seq=seq,
        roster_seen=m.roster.revision if m.roster is not None else -1,
        state=job_state(m),
        message=m.end_reason if m.end is not None else m.message,
        epoch=m.active.id if m.active is not None else None,
        world=len(m.active.members) if m.active is not None else 0,
        members=members,
        joined=sorted(pod for pod, launcher in m.launchers.items() if launcher.connected),
        ready=sorted(pod for pod, launcher in m.launchers.items() if launcher.connected and seats.ready(m, launcher)),
        released=sorted(m.released & listed),
        progress=_progress(m),
        standstill=standstill.report(m),
        holdup=m.holdup,
        holdup_known=m.holdup_known,
        failures=m.failures,
        incompatible=list(m.incompatible.values())[-MAX_INCOMPATIBLE:],
        state_lost=m.state_lost,
        recoveries=m.recovery.count,
        recoveries_before=m.recovery.before,
        last_recovery_seconds=m.recovery.last_seconds,
        last_recovery=m.recovery.last,
        spent=told(account),
        untold_seconds=round(account.untold(), 3),
        energy=m.energy.told(),
        went_on=account.went_on,
    )


def _progress(m: Membership) -> Progress | None:
    """As rank 0 told it, which is when the step after has shown that all hold it; before the first such word, what all
    members say that they hold: of a job whose steps take minutes, the first is seen at once. Of members that began
    together, that is: another one's number may be from before it took over the state."""
    active = m.active
    began = active is not None and active.fresh and active.id.term == m.identity.term and active.formed_at is not None
    if m.progress is not None or active is None or not began:
        return m.progress
    steps = [process.step for member in active.members if (process := facts.find(m, member)) is not None]
    held = min(steps, default=-1) if len(steps) == len(active.members) else -1
    return Progress(step=held) if held >= 0 else None


def _place(m: Membership, member: Member, process: ProcessState) -> Place | None:
    """With the time that has passed since its launcher told it."""
    if process.place is None:
        return None
    told = max(0.0, m.now - m.launchers[member.pod_uid].heard_at)
    return process.place.model_copy(update={"seconds": round(process.place.seconds + told, 1)})


def job_state(m: Membership) -> JobState:
    """One word for what goes on."""
    if m.end is not None:
        return JobState.COMPLETE if m.end is End.COMPLETE else JobState.STOPPED
    if not m.settled or (m.active is None and m.pending is None):
        return JobState.WAITING
    if m.pending is not None and (m.active is None or m.active.formed_at is None or m.pending.fresh):
        return JobState.FORMING
    if m.active is None or m.active.formed_at is None:
        return JobState.FORMING
    if facts.broken(m):
        return JobState.WAITING if m.pending is None else JobState.FORMING
    processes = [facts.find(m, member) for member in m.active.members]
    if any(process is not None and process.phase is ProcessPhase.DONE for process in processes):
        return JobState.COMPLETING
    return JobState.TRAINING
