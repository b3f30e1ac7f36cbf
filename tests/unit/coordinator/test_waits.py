"""Who waits for whom, in one sentence: from where ranks are to the words that people read."""

from __future__ import annotations

import pytest

from drivetrain_coordinator.membership import waits
from drivetrain_coordinator.membership.waits import Seat


def seats(text: str) -> list[Seat]:
    """`step@train.py:24 w` a rank: operation, line, `w` if it waits, `?` if it is silent, a step where it matters."""
    found = []
    for rank, part in enumerate(text.split(", ")):
        where, *marks = part.split()
        operation, _, line = where.partition("@")
        step = next((int(mark) for mark in marks if mark.isdecimal()), -1)
        found.append(Seat(rank, f"lm-{rank}", "w" in marks, operation, line, step, silent="?" in marks))
    return found


STEP, SAVE = "step@train.py:24", "save@train.py:31"
SENTENCES = [
    (
        "one is late in its script",
        f"{STEP} w, script@train.py:57",
        "rank 1 (lm-1) is at train.py:57 between operations, and rank 0 waits for it in run.step (train.py:24)",
    ),
    (
        "one is frozen",
        f"{STEP} w, {STEP} ?",
        "rank 1 (lm-1) gives no sign of life since it was in run.step (train.py:24), "
        "and rank 0 waits for it in run.step (train.py:24)",
    ),
    (
        "several wait for it",
        f"{STEP} w, script@train.py:57, {STEP} w",
        "rank 1 (lm-1) is at train.py:57 between operations, and ranks 0 and 2 wait for it in run.step (train.py:24)",
    ),
    (
        "many wait for it",
        f"script@train.py:57{f', {STEP} w' * 7}",
        "rank 0 (lm-0) is at train.py:57 between operations, "
        "and the other 7 ranks wait for it in run.step (train.py:24)",
    ),
    (
        "in different places",
        f"{STEP} w, {SAVE} w, batch@train.py:20",
        "rank 2 (lm-2) is in run.batches (train.py:20), and 2 ranks wait for it: "
        "rank 0 in run.step (train.py:24); rank 1 in run.save (train.py:31)",
    ),
    (
        "it computes in the same operation",
        "evaluate@train.py:40 w, evaluate@train.py:40",
        "rank 1 (lm-1) is in run.evaluate (train.py:40), and rank 0 waits for it in run.evaluate (train.py:40)",
    ),
    (
        "several are late in one place",
        f"{STEP} w, script@a.py:1, script@a.py:1",
        "ranks 1 (lm-1) and 2 (lm-2) are at a.py:1 between operations, "
        "and rank 0 waits for them in run.step (train.py:24)",
    ),
    (
        "several are late in several places",
        f"{STEP} w, script@a.py:1, script@b.py:2",
        "rank 1 (lm-1) is at a.py:1 between operations; rank 2 (lm-2) is at b.py:2 between operations, "
        "and rank 0 waits for them in run.step (train.py:24)",
    ),
    (
        "more than anybody wants to read",
        ", ".join([f"{STEP} w", *(f"script@a.py:{n}" for n in range(9))]),
        "rank 1 (lm-1) is at a.py:0 between operations; rank 2 (lm-2) is at a.py:1 between operations; "
        "rank 3 (lm-3) is at a.py:2 between operations; and 6 more places, "
        "and rank 0 waits for them in run.step (train.py:24)",
    ),
    (
        "all wait for one another",
        f"{STEP} w, {STEP} w, {STEP} w, {STEP} w",
        "all 4 ranks wait for one another in run.step (train.py:24)",
    ),
    (
        "all wait, each for something else",
        f"{SAVE} w 41, {STEP} w 42",
        "both ranks wait for one another in different places: "
        "rank 0 (lm-0) in run.save (train.py:31) of step 41; rank 1 (lm-1) in run.step (train.py:24) of step 42",
    ),
    (
        "two calls of one kind",
        "reduce@train.py:3 w, reduce@train.py:9 w",
        "both ranks wait for one another in different places: "
        "rank 0 (lm-0) in run.reduce (train.py:3); rank 1 (lm-1) in run.reduce (train.py:9)",
    ),
    ("one rank alone", "script@train.py:57", "rank 0 (lm-0) is at train.py:57 between operations"),
    ("one rank alone waits", f"{STEP} w", "rank 0 (lm-0) waits for others in run.step (train.py:24)"),
    (
        "nobody waits",
        "script@train.py:57, script@train.py:57",
        "no rank waits for another: ranks 0 (lm-0) and 1 (lm-1) are at train.py:57 between operations",
    ),
    (
        "images that do not tell where they are",
        "@ w, @",
        "rank 1 (lm-1) is at a place that it does not tell, and rank 0 waits for it",
    ),
    (
        "a runtime that tells lines only",
        "@ w, @train.py:57",
        "rank 1 (lm-1) is at train.py:57, and rank 0 waits for it",
    ),
    ("no line", "step w, script", "rank 1 (lm-1) is between operations, and rank 0 waits for it in run.step"),
]


@pytest.mark.parametrize(("name", "given", "expected"), SENTENCES, ids=[case[0] for case in SENTENCES])
def test_who_waits_for_whom(name: str, given: str, expected: str) -> None:
    prefix = "no progress for more than 10 s at step 41: "
    assert waits.sentence(seats(given), "more than 10 s", 41) == prefix + expected


def test_it_is_short_however_many_ranks_and_however_long_their_lines() -> None:
    many = [Seat(n, f"pod-{n}", n % 2 == 0, "script", f"{'x' * 1000}{n}.py:1") for n in range(4096)]
    assert len(waits.sentence(many, waits.more_than(10**9), 10**9)) < 1000


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "1 s"), (5.7, "5 s"), (59, "30 s"), (61, "1 min"), (3599, "30 min"), (7199, "1 h"), (9e4, "16 h")],
)
def test_time_is_told_in_milestones(seconds: float, said: str) -> None:
    """Each other word in a condition is a write."""
    assert waits.more_than(waits.milestone(seconds)) == f"more than {said}"
