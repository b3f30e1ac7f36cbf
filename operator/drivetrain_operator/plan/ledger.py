"""PURE: to which categories does a job's time go? One fold: from what was counted, and what is known now, to more.

The sum of all categories is the moment up to which time is counted, since the job was created: so nothing can be
counted twice or left out, whatever is lost, repeated or made up. Time passes by the operator's clock; a coordinator
only says how its own was spent, in seconds of its own clock that grow for as long as its term lasts. No moment of one
clock is held against a moment of another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from drivetrain_api.goodput import TRAINED, Category

Seconds = Mapping[Category, float]

JITTER_SECONDS: Final = 2.0
"""So much later or earlier than usual a report may arrive. What is missing by more than that, nobody tells of."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is counted."""

    seconds: Seconds = field(default_factory=dict)
    standing: Category | None = None
    """Of the time that is not counted yet, by what the operator sees; None while it is a coordinator's to tell."""
    term: int = 0
    """Of the coordinator that told last."""
    told: Seconds = field(default_factory=dict)
    """Seconds of that term that are counted."""

    @property
    def until(self) -> float:
        """Seconds since the job was created that are counted."""
        return sum(self.seconds.values())


@dataclass(frozen=True, slots=True)
class Told:
    """What a coordinator says of its term."""

    at: float
    """When it did, in seconds since the job was created, by the operator's clock."""
    term: int
    spent: Seconds
    """Since its term began, as far as it knows: the last moments may be missing. Empty: it does not know yet."""
    went_on: bool = False
    """Its job trains in the membership of an earlier term: so it did all the time between."""


def counted(
    before: Ledger, told: Told | None, now: float, standing: Category | None, *, closes: bool = False
) -> Ledger:
    """The ledger, `now` seconds after the job was created. `standing`: of the time from here on. `closes`: no
    coordinator will tell of what is left until now. A clock that was set back adds nothing until it has caught up."""
    found = before
    if told is not None and told.term >= found.term and any(told.spent.values()):
        found = _heard(found, told)
    heard = found.until > before.until
    if found.standing is not None and (standing is not found.standing or closes or not heard):
        # Where a coordinator was heard, it will tell of the moments since.
        found = _add(found, {found.standing: 1.0}, now - found.until)
    elif closes:
        found = _add(found, _unheard(found, now - found.until), now - found.until)
    return Ledger(found.seconds, standing, found.term, found.told)


def _heard(before: Ledger, told: Told) -> Ledger:
    """With all that this coordinator says that is not counted yet."""
    same = told.term == before.term
    known = before.told if same else {}
    news = {each: max(0.0, value - known.get(each, 0.0)) for each, value in told.spent.items()}
    # A coordinator only knows that there are no workers. Why, and whether there ever were any, the operator does.
    if before.standing in (Category.QUEUED, None):
        truly = before.standing or Category.RECOVERING
        news[truly] = news.get(truly, 0.0) + news.pop(Category.STARTING, 0.0)
    span, sum_ = told.at - before.until, sum(news.values())
    left = span - sum_
    heard = {each: max(value, known.get(each, 0.0)) for each, value in {**known, **told.spent}.items()}
    found = Ledger(before.seconds, before.standing, told.term, heard)
    if span <= 0:
        return found  # the operator's clock was set back: this time is counted already
    if left <= 0 or (same and sum_ > 0 and left <= JITTER_SECONDS and before.standing is None):
        return _add(found, news, span)
    found = _add(found, _before_it_spoke(before, told, news, same=same), left)
    return _add(found, news, sum_)


def _before_it_spoke(before: Ledger, told: Told, news: Seconds, *, same: bool) -> Seconds:
    """Shares of the time of which this coordinator cannot tell."""
    if before.standing is not None:
        return {before.standing: 1.0}
    if same:
        return {Category.OTHER: 1.0}  # it stood still itself, or the operator's clock was set
    if not told.went_on:
        return {Category.RECOVERING: 1.0}
    trained: Seconds = {each: value for each, value in news.items() if each in TRAINED and value > 0}
    return trained or {Category.PRODUCTIVE: 1.0}


def _unheard(before: Ledger, seconds: float) -> Seconds:
    """Shares of the last moments of a coordinator that will not tell any more."""
    trained: Seconds = {each: before.told[each] for each in TRAINED if before.told.get(each)}
    return trained if trained and seconds <= JITTER_SECONDS else {Category.OTHER: 1.0}


def _add(before: Ledger, shares: Seconds, seconds: float) -> Ledger:
    """So many seconds more, in these shares."""
    whole = sum(shares.values())
    if seconds <= 0 or whole <= 0:
        return before
    found = dict(before.seconds)
    for each, share in shares.items():
        if share > 0:
            found[each] = found.get(each, 0.0) + seconds * share / whole
    return Ledger(found, before.standing, before.term, before.told)
