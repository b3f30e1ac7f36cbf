"""Since when does which rank hold the membership up? What `lateness.py` finds now and then, as something that begins,
stays and ends.

It begins when the same rank is found several times in a row, and ends when it was not found for longer, so that a rank
at the border is no news with each look. What was said stays the same words until it is another rank, another stage, or
far more or less time: each change is a write of status.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from drivetrain_api.holdup import HoldUp, Stage, StageTimes
from drivetrain_api.messages import EpochId, Member, ProcessPhase
from drivetrain_coordinator.membership import drop, facts, lateness
from drivetrain_coordinator.membership.lateness import Late, Rank
from drivetrain_coordinator.membership.state import Epoch, Membership

WINDOW: Final = 20
"""Intervals that are kept."""
BEGINS_AFTER: Final = 3
"""Looks in a row that found the same."""
ENDS_AFTER: Final = 5
"""Looks in a row that did not find it."""
OTHERWISE: Final = 1.5
"""So many times as late, or as little: it is told anew."""
SECONDS_A_RANK: Final = 0.001
"""A look takes time with the number of ranks: in large jobs there are fewer of them."""


@dataclass(slots=True)
class Watch:
    """Of one membership after the other."""

    looked_at: float
    epoch: EpochId | None = None
    told: dict[str, deque[StageTimes]] = field(default_factory=dict)
    """By process: what it said of its steps at the last looks."""
    found: tuple[str, tuple[Stage, ...]] | None = None
    """Process and stages, as of the last look, and ..."""
    times: int = 0
    """... how often that was so in a row."""
    missed: int = 0
    """Looks in a row that did not find who is shown."""
    shown: HoldUp | None = None
    known: bool = False
    """Members, as they are, have told enough to judge."""

    def look(self, m: Membership, now: float) -> None:
        """Time has passed, and the membership is as it is now."""
        epoch = m.active
        if m.end is not None or epoch is None:
            self._forget()
            return
        if now - self.looked_at < max(m.timings.holdup, SECONDS_A_RANK * len(epoch.members)):
            return
        self.looked_at = now
        if epoch.id != self.epoch:
            self._enter(epoch)
        if epoch.formed_at is None or not self._hear(m, epoch):
            return
        self.known = min(map(len, self.told.values())) > lateness.LEAST_INTERVALS
        if self.known:
            least = lateness.BEGINS if self.shown is None else lateness.ENDS
            self._judge(m, epoch, lateness.find(self._ranks(epoch), least))

    def _forget(self) -> None:
        self.epoch, self.found, self.shown, self.known = None, None, None, False
        self.told.clear()

    def _enter(self, epoch: Epoch) -> None:
        """Others are members now. Who held them up, and still is one, does so until it is known better."""
        self.epoch, self.found, self.times, self.missed, self.known = epoch.id, None, 0, 0, False
        self.told.clear()
        ranks = {member.process: rank for rank, member in enumerate(epoch.members)}
        if self.shown is not None:
            rank = ranks.get(self.shown.process)
            self.shown = None if rank is None else self.shown.model_copy(update={"rank": rank, "late": [rank]})

    def _hear(self, m: Membership, epoch: Epoch) -> bool:
        """Take down what members say. False if one does not say it, or is no member (any more)."""
        for member in epoch.members:
            process = facts.find(m, member)
            if process is None or process.stages is None or process.phase is not ProcessPhase.MEMBER:
                return False
            told = self.told.setdefault(member.process, deque(maxlen=WINDOW + 1))
            if not told or process.stages.steps > told[-1].steps:
                told.append(process.stages)
        return True

    def _ranks(self, epoch: Epoch) -> list[Rank]:
        told = [self.told[member.process] for member in epoch.members]
        return [Rank(rank, lateness.intervals_of(each), each[-1].part) for rank, each in enumerate(told)]

    def _judge(self, m: Membership, epoch: Epoch, late: Late | None) -> None:
        shown = self.shown
        process = epoch.members[late.rank].process if late is not None else None
        found = (process, late.stages) if late is not None and process is not None else None
        self.times = self.times + 1 if found is not None and found == self.found else int(found is not None)
        self.found = found
        ranks = {member.process: rank for rank, member in enumerate(epoch.members)}
        if shown is not None and late is not None and ranks.get(shown.process) in late.ranks:
            self.missed = 0
            far = not 1 / OTHERWISE <= late.seconds / max(shown.slower_by, 1e-9) <= OTHERWISE
            if (far or shown.stage != _stage(late) or shown.process != process) and self.times >= BEGINS_AFTER:
                self.shown = _holdup(m, epoch.members, late)
            return
        if shown is not None:
            self.missed += 1
            if self.missed >= ENDS_AFTER:
                self.shown, self.missed, shown = None, 0, None
        if shown is None and late is not None and late.share >= lateness.BEGINS and self.times >= BEGINS_AFTER:
            self.shown = _holdup(m, epoch.members, late)


def _stage(late: Late) -> str:
    return str(late.stages[0]) if len(late.stages) == 1 else ""


def _holdup(m: Membership, members: Sequence[Member], late: Late) -> HoldUp:
    member = members[late.rank]
    return HoldUp(
        rank=late.rank,
        process=member.process,
        pod_uid=member.pod_uid,
        stage=_stage(late),
        slower_by=round(late.seconds, 4),
        share=round(late.share, 2),
        late=sorted(late.ranks),
        message=sentence(late, [drop.pod_name(m, each.pod_uid) for each in members]),
    )


def sentence(late: Late, pods: Sequence[str]) -> str:
    """rank 3 (lm-1) takes 48 ms longer for each step than the others, in forward: they wait 24% of the time"""
    latest = f"rank {late.rank} ({pods[late.rank]})"
    longer = f"{_duration(late.seconds)} longer for each step than the others, in {_listed(late.stages)}"
    waits = f"they wait {late.share:.0%} of the time"
    waits += "; stages of a pipeline do different work, and may be cut unevenly" if late.unlike else ""
    if len(late.ranks) == 1:
        return f"{latest} takes {longer}: {waits}"
    ranks = sorted(late.ranks)
    one = f", all of {pods[ranks[0]]}," if len({pods[rank] for rank in ranks}) == 1 else ""
    who = f"ranks {_listed(ranks)}{one}"
    return f"ambiguous: {who} take about as much longer than the others; {latest} takes {longer}: {waits}"


def _listed(items: Sequence[object]) -> str:
    return " and ".join([", ".join(map(str, items[:-1])), str(items[-1])] if len(items) > 1 else map(str, items))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


def seconds(m: Membership) -> dict[str, float]:
    """By which a step is longer for it, by stage: `several` if it is not one alone. Nothing if no rank tells."""
    if not any(process.stages is not None for each in m.launchers.values() for process in each.processes.values()):
        return {}
    found = dict.fromkeys([*map(str, Stage), "several"], 0.0)
    if m.holdup is not None:
        found[m.holdup.stage or "several"] = m.holdup.slower_by
    return found
