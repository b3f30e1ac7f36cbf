"""How was the time of this term spent? By what the membership is at, and while it trains, by what its ranks are at.

Counted at each look at the rules, by this coordinator's clock: for how long was it as the look before had found it.
While the membership trains, ranks' own words say how that is split, as the mean over all of them: half of the ranks in
wait for samples for a second are half a second of that. They come a little late; until then that time is not told.

What nobody saw who could tell is decided once it is known: a coordinator that finds its job training in a membership of
a predecessor's knows that it trained all the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from drivetrain_api.goodput import Activity, Category
from drivetrain_api.messages import Boundary, Progress
from drivetrain_coordinator.membership import facts
from drivetrain_coordinator.membership.state import Membership

SPLIT_SECONDS: Final = 3.0
"""So long are ranks' words waited for."""
UNDECIDED_SECONDS: Final = 30.0
"""So long is it left open what a time was in which launchers did not tell what they know."""
LIVELY_SECONDS: Final = 60.0
LIVELY_STEPS: Final = 10.0
"""A script that tells of its progress now and then trains for so long after each word, or for so many of its steps."""

_PLAIN: Final = {
    Activity.WORK: Category.PRODUCTIVE,
    Activity.DATA: Category.DATA,
    Activity.SNAPSHOT: Category.SNAPSHOT,
    Activity.OTHER: Category.OTHER,
}
Shares = Mapping[Category, float]


@dataclass(slots=True)
class Account:
    """Seconds of this term."""

    at: float
    """Counted until then."""
    spent: dict[Category, float] = field(default_factory=dict)
    state: Category | None = None
    """What the last look has found; None: that cannot be said yet. PRODUCTIVE stands for all of a membership that
    trains."""
    undecided: float = 0.0
    unsplit: float = 0.0
    """Seconds of a membership that trained, not split yet."""
    split_at: float = 0.0
    went_on: bool = False
    """As in `Report`."""
    marks: dict[str, Mapping[str, float]] = field(default_factory=dict)
    """What each rank had told when time was split last."""
    shares: Shares = field(default_factory=lambda: {Category.PRODUCTIVE: 1.0})
    """As of the last split that ranks had told of."""
    progress: Progress | None = None
    """As it was told last, and ..."""
    told_at: float = -math.inf
    """... when that was news; and ..."""
    told_step: int = -1
    """... the highest step that ever was."""
    successor: bool = False
    """There was a membership before this term."""

    def look(self, m: Membership, now: float) -> None:
        """Time has passed, and the membership is as it is now."""
        passed, self.at = max(0.0, now - self.at), now
        if self.state is None:
            self.undecided += passed
        elif self.state is Category.PRODUCTIVE:
            self.unsplit += passed
        else:
            self._add({self.state: 1.0}, passed)
        self.successor = self.successor or bool(m.inherited)
        found = _state(m, first=m.epochs_formed == 0 and not self.successor)
        if found is None and self.undecided >= UNDECIDED_SECONDS:
            found = Category.STARTING if m.identity.term == 1 else Category.RECOVERING
        if found is not None and self.undecided:
            self._decide(m, found)
        self._hear(m, now)
        if self.unsplit and (found is not Category.PRODUCTIVE or now - self.split_at >= 1.0):
            self._split(m, now, at_once=found is not Category.PRODUCTIVE)
        if found is Category.PRODUCTIVE and self.state is not found:
            self.marks, self.split_at = _told_by(m), now
        self.state = found

    def untold(self) -> float:
        """Seconds until `at` of which nothing is said yet."""
        return self.undecided + self.unsplit

    def _decide(self, m: Membership, found: Category) -> None:
        seconds, self.undecided = self.undecided, 0.0
        if found is Category.PRODUCTIVE:
            self.unsplit += seconds
            self.went_on = m.active is not None and m.active.id.term < m.identity.term
        else:
            self._add({found: 1.0}, seconds)

    def _hear(self, m: Membership, now: float) -> None:
        if m.progress is not None and m.progress is not self.progress:
            self.told_step, self.told_at = max(self.told_step, m.progress.step), now
        self.progress = m.progress

    def _split(self, m: Membership, now: float, *, at_once: bool) -> None:
        shares = self._shares(m, now)
        if shares is None and not at_once and now - self.split_at < SPLIT_SECONDS:
            return
        seconds, self.unsplit, self.split_at = self.unsplit, 0.0, now
        if shares is not None:
            self.shares = shares
        again = _is_redone(m, self.told_step)
        self._add(
            {
                Category.REDONE if again and each is Category.PRODUCTIVE else each: share
                for each, share in self.shares.items()
            },
            seconds,
        )

    def _shares(self, m: Membership, now: float) -> Shares | None:
        """How ranks spent the time since the last split; None: they have not told yet."""
        if _stock(m):
            pace = m.progress.step_seconds if m.progress is not None else None
            lively = now - self.told_at <= max(LIVELY_SECONDS, LIVELY_STEPS * (pace or 0.0))
            return {Category.PRODUCTIVE if lively else Category.OTHER: 1.0}
        told = _told_by(m)
        if not told:
            return {Category.PRODUCTIVE: 1.0}  # images of older releases do not tell
        news = [_since(self.marks.get(each), spent) for each, spent in told.items() if each in self.marks]
        fractions = [_fractions(each) for each in news if sum(each.values()) > 0]
        if fractions or not self.marks.keys() & told.keys():
            self.marks = told  # of all, also of those that came since
        return _mean(fractions) if fractions else None

    def _add(self, shares: Shares, seconds: float) -> None:
        whole = sum(shares.values())
        for each, share in shares.items():
            if share * seconds > 0:
                self.spent[each] = self.spent.get(each, 0.0) + seconds * share / whole


def _told_by(m: Membership) -> dict[str, Mapping[str, float]]:
    """What the members say of their time, by process."""
    members = m.active.members if m.active is not None else ()
    processes = (facts.find(m, member) for member in members)
    return {process.id: process.spent for process in processes if process is not None and process.spent}


def _stock(m: Membership) -> bool:
    return m.active is not None and any(facts.stock(facts.find(m, member)) for member in m.active.members)


def _state(m: Membership, *, first: bool) -> Category | None:
    """What the membership is at; None: that cannot be known yet. `first`: none has ever stood."""
    if m.end is not None:
        return Category.OTHER
    if m.roster is None or not m.settled:
        return None
    newest = m.pending if m.pending is not None else m.active
    if newest is None:
        return Category.STARTING if first else Category.RECOVERING
    if first:
        return Category.FORMING
    if m.recovery.since is not None or m.fault_at is not None or facts.broken(m):
        return Category.RECOVERING
    if m.active is None or m.active.formed_at is None:
        return Category.RESIZING
    if m.pending is not None and (m.pending.boundary is Boundary.NOW or m.pending.first_ack_at is not None):
        return Category.RESIZING
    return Category.PRODUCTIVE


def _is_redone(m: Membership, told_step: int) -> bool:
    """Whether the steps of now had been made before."""
    trained = m.roster.trained if m.roster is not None else 0
    if _stock(m):
        return m.progress is not None and m.progress.step < max(told_step, trained - 1)
    return m.step + 1 < trained


def _since(before: Mapping[str, float] | None, now: Mapping[str, float]) -> dict[str, float]:
    return {name: max(0.0, value - (before or {}).get(name, 0.0)) for name, value in now.items()}


def _fractions(seconds: Mapping[str, float]) -> dict[str, float]:
    whole = sum(seconds.values())
    return {name: value / whole for name, value in seconds.items()}


def _mean(ranks: list[dict[str, float]]) -> dict[Category, float]:
    """Over all ranks. As long as the one that waited least, all wait for what travels, which is a part of the step."""
    found = {
        category: sum(each.get(activity, 0.0) for each in ranks) / len(ranks) for activity, category in _PLAIN.items()
    }
    waits = [each.get(Activity.WAITING, 0.0) for each in ranks]
    found[Category.PRODUCTIVE] += min(waits)
    found[Category.WAITING] = sum(waits) / len(waits) - min(waits)
    return found


def told(account: Account) -> dict[str, float]:
    """For a report."""
    return {str(each): round(value, 3) for each, value in account.spent.items()}
