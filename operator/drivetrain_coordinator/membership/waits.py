"""Who waits for whom? From where each rank is to one sentence: that of report, condition, event, `why` and failure.

Pure, and the only place with these words. It names ranks that hold the others up with their pods, says where a few
groups are and counts the rest, so that it stays short however large the job is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain_api.places import Call, Seen

NAMED: Final = 3
"""Ranks of one group, and groups, that are named; the others are counted."""
LINE_CHARS: Final = 80
MILESTONES: Final = (1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600)
"""Seconds at which the words change while nothing else does; then every doubling. Each change is a write of status."""

CALLS: Final = {
    "batch": "run.batches",
    "step": "run.step",
    "skip": "run.skip",
    "reduce": "run.reduce",
    "evaluate": "run.evaluate",
    "save": "run.save",
    "finish": "run.finish",
}
"""What a script calls, by operation."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank of a membership, and where it is. `waiting`: in a collective, or done; so others hold it up."""

    rank: int
    pod: str
    waiting: bool
    operation: str = ""
    line: str = ""
    step: int = -1
    silent: bool = False
    """Its launcher hears nothing of it: this is where it was."""
    call: Call | None = None
    """The collective that it waits for, or its last."""
    seen: Seen | None = None
    process: str = ""
    pod_uid: str = ""
    number: int = 0
    """Of its place."""


def late(seats: Sequence[Seat]) -> tuple[Seat, ...]:
    """Those that wait for nobody. None of them: all wait for one another."""
    return tuple(seat for seat in seats if not seat.waiting)


def sentence(seats: Sequence[Seat], duration: str, steps: int) -> str:
    """What holds a membership up that did not move for this `duration`, with `steps` steps committed."""
    busy, blocked = late(seats), [seat for seat in seats if seat.waiting]
    if busy and blocked:
        whom, is_one = ("it" if len(busy) == 1 else "them"), len(busy) == 1
        said = f"{_are(busy)}, and {_wait(blocked, whom, others=is_one)}{_not_come(busy, blocked, whom)}"
    elif busy:
        said = _are(busy) if len(seats) == 1 else f"no rank waits for another: {_are(busy)}"
    else:
        said = _wait_for_one_another(blocked)
    return f"no progress for {duration} at step {steps}: {said}"


def milestone(seconds: float) -> int:
    """The last milestone that has passed, at least the first."""
    passed = max((mark for mark in MILESTONES if mark <= seconds), default=MILESTONES[0])
    while passed >= MILESTONES[-1] and 2 * passed <= seconds:
        passed *= 2
    return passed


def more_than(milestone: int) -> str:
    """A milestone as a person says it."""
    if milestone < 60:
        return f"more than {milestone} s"
    return f"more than {milestone // 60} min" if milestone < 3600 else f"more than {milestone // 3600} h"


def _are(seats: Sequence[Seat]) -> str:
    """rank 1 (lm-1) is at train.py:57 between operations"""
    return _listed([f"{_ranks(group, pods=True)} {_is(group)} {_place(group[0])}" for group in _groups(seats)])


def _is(group: Sequence[Seat]) -> str:
    if group[0].silent:  # and then where, as far as it had told
        return "gives no sign of life since it was" if len(group) == 1 else "give no sign of life since they were"
    return "is" if len(group) == 1 else "are"


def _wait(seats: Sequence[Seat], whom: str, others: bool) -> str:
    """rank 0 waits for it in run.step (train.py:24)"""
    groups = _groups(seats)
    if len(groups) == 1:
        who = _ranks(seats) if len(seats) <= NAMED or not others else f"the other {len(seats)} ranks"
        where = _place(seats[0])
        waits = "waits" if len(seats) == 1 else "wait"
        return f"{who} {waits} for {whom}{' ' + where if where != _UNKNOWN else ''}{_call(seats)}"
    places = _listed([f"{_ranks(group)} {_place(group[0])}{_call(group)}" for group in groups])
    return f"{len(seats)} ranks wait for {whom}: {places}"


def _call(seats: Sequence[Seat]) -> str:
    """The collective that they are in; of several, as in a pipeline, those of the first few."""
    calls = {seat.rank: str(seat.call) for seat in seats if seat.call is not None and seat.call.state == "waiting"}
    if not calls or (len(calls) < len(seats) and len(set(calls.values())) == 1):
        return ""
    if len(set(calls.values())) == 1:
        return f", {next(iter(calls.values()))}"
    return f" ({_listed([f'rank {rank}: {call}' for rank, call in calls.items()])})"


def _not_come(busy: Sequence[Seat], blocked: Sequence[Seat], whom: str) -> str:
    """Whether the late ones have begun the collective that all others are in."""
    calls = [seat.call for seat in busy]
    wanted = blocked[0].call
    if wanted is None or wanted.peer >= 0 or len(by_call(blocked)) > 1 or len(_groups(blocked)) > 1:
        return ""
    behind = [call for call in calls if call is not None and _before(call, wanted)]
    return f", to which {'it has' if whom == 'it' else 'they have'} not come" if len(behind) == len(calls) else ""


def _before(call: Call, wanted: Call) -> bool:
    return call.peer < 0 and call.group == wanted.group and call.number < wanted.number


def by_call(seats: Sequence[Seat]) -> list[tuple[Seat, ...]]:
    """The ranks that are in one collective together, the group of the lowest rank first."""
    found: dict[str, list[Seat]] = {}
    for seat in seats:
        found.setdefault(str(seat.call), []).append(seat)
    return [tuple(group) for group in found.values()]


def _wait_for_one_another(seats: Sequence[Seat]) -> str:
    groups = _groups(seats)
    if len(seats) == 1:
        return f"{_ranks(seats, pods=True)} waits for others {_place(seats[0])}{_call(seats)}"
    who = "both ranks" if len(seats) == 2 else f"all {len(seats)} ranks"
    if len(groups) == 1 and len(calls := by_call(seats)) > 1:
        apart = [f"{_ranks(group, pods=True)}{_call(group).replace(',', ' in', 1)}" for group in calls]
        return f"{who} wait for one another {_place(seats[0])}, in different collectives: {_listed(apart)}"
    if len(groups) == 1:
        return f"{who} wait for one another {_place(seats[0])}{_call(seats)}"
    steps = len({seat.step for seat in seats}) > 1
    places = [
        f"{_ranks(group, pods=True)} {_place(group[0])}{f' of step {group[0].step}' if steps else ''}{_call(group)}"
        for group in groups
    ]
    return f"{who} wait for one another in different places: {_listed(places)}"


def _groups(seats: Sequence[Seat]) -> list[list[Seat]]:
    """By place, the group of the lowest rank first."""
    found: dict[tuple[str, str, bool], list[Seat]] = {}
    for seat in seats:
        found.setdefault((seat.operation, seat.line, seat.silent), []).append(seat)
    return list(found.values())


_UNKNOWN: Final = "at a place that it does not tell"


def _place(seat: Seat) -> str:
    line = seat.line
    if seat.seen is not None and seat.seen.number == seat.number and seat.seen.at:
        line = f"{line}, held at {seat.seen.at}".removeprefix(", ")
    if len(line) > LINE_CHARS:
        line = "…" + line[1 - LINE_CHARS :]
    call = CALLS.get(seat.operation)
    if call is not None:
        return f"in {call} ({line})" if line else f"in {call}"
    if seat.operation == "script":
        return f"at {line} between operations" if line else "between operations"
    return f"at {line}" if line else _UNKNOWN


def _ranks(seats: Sequence[Seat], pods: bool = False) -> str:
    names = [f"{seat.rank} ({seat.pod})" if pods else str(seat.rank) for seat in seats[:NAMED]]
    if len(seats) > NAMED:
        names.append(f"{len(seats) - NAMED} more")
    return ("rank " if len(seats) == 1 else "ranks ") + _and(names)


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - NAMED
    return "; ".join([*parts[:NAMED], *([f"and {more} more places"] if more > 0 else [])])


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
