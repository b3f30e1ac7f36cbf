"""Where exactly are the ranks that hold a membership up? Their launchers are asked, once for each place.

Asked when people are told that nothing moves, not before: a job that is merely slow is left alone. A few ranks only,
because one that is late is as good as a thousand. The answer is a part of the rank's state; it goes into the words that
people read, the report, and the coordinator's log.
"""

from __future__ import annotations

from typing import Final

from drivetrain_api.messages import Inspect
from drivetrain_api.places import MAX_LOOKS, Look, Seen
from drivetrain_coordinator.membership import waits
from drivetrain_coordinator.membership.events import Looked, Output, Send
from drivetrain_coordinator.membership.state import Membership
from drivetrain_coordinator.membership.waits import Seat

_PATIENCE: Final = 5.0
"""Seconds until a launcher that has not answered is asked once more, and twice as many each time: it may take four,
and one of an older release never answers."""
_ANSWERED: Final = (float("inf"), 0.0)


def step(m: Membership, now: float) -> list[Output]:
    """Ask, and say what was answered."""
    told = m.told
    if told is None:
        if m.asked:
            m.asked.clear()
        return []
    outputs: list[Output] = []
    for seat in suspects(told.seats):
        seen = answer(seat)
        key = (seat.process, seat.number)
        again, wait = m.asked.get(key, (now, _PATIENCE))
        if seen is not None and (again, wait) != _ANSWERED:
            m.asked[key] = _ANSWERED
            outputs.append(Looked(seat, told.message, seen))
        elif seen is None and m.reached(again):
            m.asked[key] = now + wait, 2 * wait
            outputs.append(Send(seat.pod_uid, Inspect(process=seat.process, number=seat.number)))
    return outputs


def suspects(seats: tuple[Seat, ...]) -> list[Seat]:
    """Whom the others wait for; where all wait, the few that are at another collective than most."""
    late = waits.late(seats)
    if not late:
        late = min(waits.by_call(seats), key=len, default=())
    return list(late[:MAX_LOOKS])


def answer(seat: Seat) -> Seen | None:
    """What its launcher found, if that is about where it is now."""
    seen = seat.seen
    return seen if seen is not None and seen.number == seat.number else None


def answers(seats: tuple[Seat, ...]) -> int:
    """How many of them are known."""
    return sum(answer(seat) is not None for seat in suspects(seats))


def looks(m: Membership) -> list[Look]:
    """For a report."""
    return [
        Look(rank=seat.rank, process=seat.process, where=seat.line, stack=seen.stack, calls=seen.calls)
        for seat in (suspects(m.told.seats) if m.told is not None else ())
        if (seen := answer(seat)) is not None
    ]
