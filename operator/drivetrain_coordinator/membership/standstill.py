"""Does a membership that trains stand still, since when, and for how long may it?

It moves when all its members move: each commits a step, or comes to another place of its script. So it stands still
since the first of them stopped. Only what was heard counts: a launcher that was out of reach, and this coordinator
itself if it slept, start to count anew, and while anybody is out of reach there is no verdict at all.

How long is too long follows from how long steps take here. What has no measure gets more: the first step of a
membership (newcomers compile), evaluating and saving, and a script in which nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from drivetrain_api.messages import ProcessPhase, ProcessState
from drivetrain_api.places import Call, Place, Standstill
from drivetrain_coordinator.membership import drop, facts, inspection, waits
from drivetrain_coordinator.membership.moves import Still, Told, Track
from drivetrain_coordinator.membership.state import Epoch, Membership
from drivetrain_coordinator.membership.waits import Seat

_LONG: Final = frozenset({"evaluate", "save", "finish"})
"""Operations whose work has no usual length."""
_SHORT: Final = frozenset({"batch", "step", "reduce"})
"""Operations that are over within a usual step."""


def heard(known: Mapping[str, Track], said: Sequence[ProcessState], now: float) -> dict[str, Track]:
    """When each process of a launcher moved last."""
    found = {}
    for process in said:
        before, track = known.get(process.id), Track.of(process, now)
        moved = before is None or (before.step, before.number) != (track.step, track.number)
        found[process.id] = track if before is None or moved else before
    return found


def since(m: Membership, now: float) -> float | None:
    """Since when the active epoch stands still; None if none trains, or it cannot be judged."""
    epoch = m.active
    if epoch is None or epoch.formed_at is None or m.fault_at is not None:
        return None
    stopped, within_reach = now, max(epoch.formed_at, m.counts_from)
    for member in epoch.members:
        process, launcher = facts.find(m, member), m.launchers.get(member.pod_uid)
        if process is None or launcher is None or process.epoch != epoch.id or not facts.heard(m, member.pod_uid, now):
            return None
        within_reach = max(within_reach, launcher.heard_from)
        if facts.stock(process):
            return None
        if process.phase is ProcessPhase.MEMBER:
            stopped = min(stopped, launcher.moved[process.id].since)
        elif process.phase is not ProcessPhase.DONE:
            return None
    return max(stopped, within_reach)


def look(m: Membership, now: float) -> Still | None:
    """What there is to say about it; None while it moves as it should."""
    soonest = min(m.timings.standstill, _asked(m) or m.timings.standstill)
    if not m.reached(m.step_at + soonest):
        return None  # the usual case, and cheap: each step takes all members
    began = since(m, now)
    if began is None or not m.reached(began + soonest):
        return None
    assert m.active is not None
    seats = tuple(_seats(m, m.active))
    return Still(seats, began, began + _told_after(m, seats), began + limit(m, seats))


def limit(m: Membership, seats: Sequence[Seat]) -> float:
    """After so long it is a failure: as the job says, else by how long a step takes here."""
    asked = _asked(m)
    if asked is not None:
        return asked
    t, usual = m.timings, _usual(m)
    found = max(t.no_progress, t.no_progress_steps * (usual or 0.0))
    if _first_step(m) or usual is None:
        found = max(found, t.no_progress_first)
    return max(found, t.no_progress_long) if _unmeasured(seats) else found


def _asked(m: Membership) -> float | None:
    return m.roster.no_progress_seconds if m.roster is not None else None


def _told_after(m: Membership, seats: Sequence[Seat]) -> float:
    t = m.timings
    patient = _first_step(m) or _unmeasured(seats)
    usual = _usual(m) or 0.0
    of_steps = min(t.standstill_steps * usual, max(t.standstill_soon, t.standstill_steps_slow * usual))
    found = max(t.standstill_long if patient else t.standstill, of_steps)
    return min(found, limit(m, seats))


def _unmeasured(seats: Sequence[Seat]) -> bool:
    """Nobody is late, or what the late ones do may take any time, or the others have nothing more to do."""
    late = waits.late(seats)
    blocked = [seat for seat in seats if seat.waiting]
    if not blocked:
        return not all(seat.operation in _SHORT for seat in late)
    if all(seat.operation == "finish" for seat in blocked):
        return True
    return bool(late) and all(seat.operation in _LONG for seat in late)


def _first_step(m: Membership) -> bool:
    return m.active is not None and m.active.formed_at is not None and m.step_at <= m.active.formed_at


def _usual(m: Membership) -> float | None:
    """As heard here, else (after a change of coordinators) as rank 0 measured it."""
    return m.pace.usual or (m.progress.step_seconds if m.progress is not None else None)


def _seats(m: Membership, epoch: Epoch) -> list[Seat]:
    found = []
    for rank, member in enumerate(epoch.members):
        process = facts.find(m, member)
        assert process is not None
        place, pod = process.place or Place(operation=""), drop.pod_name(m, member.pod_uid)
        if process.phase is ProcessPhase.DONE:
            found.append(Seat(rank, pod, waiting=True, operation="finish", process=member.process))
            continue
        silent = process.silent_seconds >= m.timings.deaf
        waiting = process.waiting and not silent
        seat = Seat(rank, pod, waiting, place.operation, place.line, place.step, silent)
        seat = replace(seat, process=member.process, pod_uid=member.pod_uid, number=place.number)
        found.append(replace(seat, call=place.call or _last_call(process), seen=process.seen))
    return found


def _last_call(process: ProcessState) -> Call | None:
    """Of one that could not tell it."""
    return process.seen.calls[-1] if process.seen is not None and process.seen.calls else None


def tell(m: Membership, still: Still | None, now: float) -> Told | None:
    """What people are told from now on; None if there is nothing to tell."""
    if still is None or not m.reached(still.told_at):
        return None
    mark, told, answers = waits.milestone(now - still.since), m.told, inspection.answers(still.seats)
    if told is not None and (told.since, told.milestone, told.answers) == (still.since, mark, answers):
        return told
    said = waits.sentence(still.seats, waits.more_than(mark), m.step + 1)
    return Told(still.since, mark, said, still.seats, answers)


def verdict(m: Membership, still: Still, now: float) -> str:
    """Why ranks are killed for it, with the field that says after how long."""
    said = waits.sentence(still.seats, f"{int(now - still.since)} s", m.step + 1)
    chosen = "" if _asked(m) is not None else f", by default {limit(m, still.seats):.0f} s here"
    return f"{said} (recovery.noProgressSeconds{chosen})"


def report(m: Membership) -> Standstill | None:
    """For the operator."""
    told = m.told
    if told is None:
        return None
    late = [seat.rank for seat in waits.late(told.seats)]
    seconds = round(m.now - told.since, 1)
    return Standstill(message=told.message, seconds=seconds, late=late, looks=inspection.looks(m))


def seconds(m: Membership) -> float:
    """For how long the membership has not moved; 0 while none trains, or it cannot be judged."""
    began = since(m, m.now)
    return 0.0 if began is None else max(0.0, m.now - began)


def late_ranks(m: Membership) -> dict[str, int]:
    """How many hold the others up in each operation, of those that people are told of."""
    counts = dict.fromkeys((*waits.CALLS, "script", "unknown"), 0)
    for seat in waits.late(m.told.seats) if m.told is not None else ():
        counts[seat.operation if seat.operation in counts else "unknown"] += 1
    return counts
