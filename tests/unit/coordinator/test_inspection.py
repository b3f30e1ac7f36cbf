"""Whom does a coordinator ask where it is, when, and what becomes of the answer?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_api.messages import Inspect
from drivetrain_api.places import Call, Seen
from drivetrain_coordinator.membership import Looked, Tick, inspection
from drivetrain_coordinator.membership.waits import Seat, sentence
from unit.coordinator.bench import Bench
from unit.coordinator.test_standstill import STEP, late, told, trained


def asked(answers: list[Any]) -> list[tuple[str, int]]:
    return [(order.process, order.number) for order in answers if isinstance(order, Inspect)]


def number_of(bench: Bench, name: str) -> int:
    place = bench.processes[name[0]][name].place
    assert place is not None
    return place.number


def answered(bench: Bench, name: str, **changes: Any) -> list[Looked]:
    """Its launcher has looked; what is said of it in the log."""
    seen = Seen(number=number_of(bench, name), stack="in hang", calls=[Call(operation="all-reduce", number=811)])
    bench.change(name, seen=seen.model_copy(update=changes))
    bench.now += 0.3
    bench.feed(Tick())
    return [output for output in bench.outputs if isinstance(output, Looked)]


def test_a_launcher_is_asked_once_when_people_are_told() -> None:
    bench = late(trained())
    assert asked(bench.wait(4.5, heard="ab")) == []
    assert asked(bench.wait(1, heard="ab")) == [("b/b/1", number_of(bench, "b1"))]
    (looked,) = answered(bench, "b1")
    assert (looked.seat.rank, looked.seen.stack) == (1, "in hang")
    assert asked(bench.wait(60, heard="ab")) == []
    standstill = told(bench)
    assert standstill is not None
    assert [(look.rank, look.process, look.where, look.stack) for look in standstill.looks] == [
        (1, "b/b/1", "train.py:57", "in hang")
    ]
    assert bench.machine.state.standstills == 1


def test_one_that_does_not_answer_is_asked_again() -> None:
    """An older launcher never does, and has a line in its log each time."""
    bench = late(trained())
    assert len(asked(bench.wait(21, heard="ab"))) == 3
    assert len(asked(bench.wait(60, heard="ab"))) == 2
    standstill = told(bench)
    assert standstill is not None
    assert standstill.looks == []


def test_an_answer_about_another_place_is_none() -> None:
    bench = late(trained())
    bench.wait(5.5, heard="ab")
    assert answered(bench, "b1", number=1) == []


def test_it_is_asked_anew_where_it_hangs_next() -> None:
    bench = late(trained())
    bench.wait(5.5, heard="ab")
    answered(bench, "b1")
    bench.at("a1", f"{STEP} w")
    bench.at("b1", STEP, seen=None)
    bench.change("a1", "b1", step=9)
    bench.wait(1, heard="ab")
    assert told(bench) is None
    late(bench)
    assert asked(bench.wait(6, heard="ab")) == [("b/b/1", number_of(bench, "b1"))]
    assert bench.machine.state.standstills == 2


def seats(*calls: str) -> tuple[Seat, ...]:
    """Ranks that wait in these collectives: operation and number."""
    found = []
    for rank, call in enumerate(calls):
        operation, number = call.split()
        waits_in = Call(operation=operation, number=int(number), state="waiting")
        found.append(Seat(rank, f"lm-{rank}", waiting=True, operation="step", line="train.py:24", call=waits_in))
    return tuple(found)


SUSPECTS = [
    ("all in one", ["all-reduce 5"] * 5, [0, 1, 2]),
    ("one is elsewhere", ["all-reduce 5", "all-reduce 5", "all-gather 2", "all-reduce 5"], [2]),
    ("one is behind", ["all-reduce 5", "all-reduce 4", "all-reduce 5"], [1]),
]


@pytest.mark.parametrize(("name", "calls", "suspects"), SUSPECTS, ids=[case[0] for case in SUSPECTS])
def test_whom_to_ask_where_all_wait(name: str, calls: list[str], suspects: list[int]) -> None:
    assert [seat.rank for seat in inspection.suspects(seats(*calls))] == suspects


def test_a_few_speak_for_thousands() -> None:
    many = tuple(Seat(rank, f"lm-{rank}", waiting=rank % 2 == 0) for rank in range(4096))
    assert [seat.rank for seat in inspection.suspects(many)] == [1, 3, 5]


WORDS = [
    (
        "in different collectives",
        ["all-reduce 5", "all-gather 2"],
        "both ranks wait for one another in run.step (train.py:24), in different collectives: "
        "rank 0 (lm-0) in all-reduce #5; rank 1 (lm-1) in all-gather #2",
    ),
    ("in one", ["all-reduce 5"] * 2, "both ranks wait for one another in run.step (train.py:24), all-reduce #5"),
]


@pytest.mark.parametrize(("name", "calls", "said"), WORDS, ids=[case[0] for case in WORDS])
def test_what_is_said_where_all_wait(name: str, calls: list[str], said: str) -> None:
    assert sentence(seats(*calls), "more than 5 s", 12) == f"no progress for more than 5 s at step 12: {said}"


COME = [
    ("its last is before", Call(operation="all-reduce", number=811), True),
    ("it has begun it", Call(operation="all-reduce", number=812), False),
    ("its last is of another group", Call(operation="all-reduce", number=3, group="tensor"), False),
    ("its last is a message", Call(operation="send", number=3, peer=1), False),
    ("it does not tell", None, False),
]


@pytest.mark.parametrize(("name", "call", "missing"), COME, ids=[case[0] for case in COME])
def test_who_has_not_come(name: str, call: Call | None, missing: bool) -> None:
    late_one = Seat(2, "lm-2", waiting=False, operation="script", line="train.py:57 in load", call=call)
    said = sentence((*seats("all-reduce 812", "all-reduce 812"), late_one), "more than 5 s", 42)
    assert said.endswith(", all-reduce #812, to which it has not come" if missing else ", all-reduce #812")


def test_where_native_code_holds_it() -> None:
    seen = Seen(number=4, at="native.py:3 in crunch")
    held = Seat(1, "lm-1", waiting=False, operation="step", line="train.py:24", number=4, seen=seen, silent=True)
    assert "since it was in run.step (train.py:24, held at native.py:3 in crunch)" in sentence((held,), "5 s", 1)
    moved = Seat(1, "lm-1", waiting=False, operation="script", line="train.py:9", number=5, seen=seen)
    assert "held at" not in sentence((moved,), "5 s", 1)


def test_what_a_launcher_says_does_nothing_to_a_terminal() -> None:
    seen = Seen(number=1, stack="File \x1b[2J\nline\r" + "x" * 9000, at="\n" * 300)
    assert "\x1b" not in seen.stack
    assert len(seen.stack) <= 4096
