"""Does the demo measure what it says, and does it fail when something was lost?"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from drivetrain_cli.demo.outcome import Fall, Kill, Outcome, StateHash, hashes, losses
from drivetrain_cli.demo.steps import Membership, Steps

FIRST, SECOND = "1.1", "1.2"


def write(folder: Path, pid: int, *lines: tuple[float, int, str, int, int]) -> None:
    """Append (at, rank, membership, world, step) lines of one process."""
    with (folder / f"{pid}.jsonl").open("a") as file:
        for at, rank, membership, world, step in lines:
            entry = {
                "at": at,
                "pid": pid,
                "rank": rank,
                "world": world,
                "membership": membership,
                "step": step,
                "loss": 1.0,
            }
            file.write(json.dumps(entry) + "\n")


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    """Two ranks; rank 1 (pid 11) dies at 3.5, when pid 10 alone had made step 3; pid 12 takes its place."""
    write(tmp_path, 10, *((float(n), 0, FIRST, 2, n) for n in range(3)), (3.0, 0, FIRST, 2, 3))
    write(tmp_path, 11, *((n + 0.1, 1, FIRST, 2, n) for n in range(3)))
    write(tmp_path, 10, (4.0, 0, SECOND, 2, 4), (5.0, 0, SECOND, 2, 5))
    write(tmp_path, 12, (4.2, 1, SECOND, 2, 4), (5.2, 1, SECOND, 2, 5))
    found = Steps(tmp_path)
    found.read()
    return found


def test_a_step_counts_when_all_have_it(steps: Steps) -> None:
    assert [(at, step) for at, step, _ in steps.common()] == [(0.1, 0), (1.1, 1), (2.1, 2), (4.2, 4), (5.2, 5)]
    assert steps.members() == {0: 10, 1: 12}
    assert steps.first_common_after(3.5, Membership(1, 1)) == (4.2, 4)
    assert steps.first_common_after(3.5, Membership(1, 2)) is None
    assert steps.step_seconds(3) == pytest.approx(1.55)


def test_a_step_that_only_survivors_had_is_not_lost(steps: Steps) -> None:
    assert steps.made_again(3.5, Membership(1, 1)) == steps.missing(6) == []


def test_what_is_lost_is_named(steps: Steps, tmp_path: Path) -> None:
    assert steps.missing(7) == ["step 7 was never made"]
    write(tmp_path, 10, (3.9, 0, SECOND, 2, 2))
    steps.read()
    assert steps.made_again(3.5, Membership(1, 1)) == ["step 3 was made a second time"]


def test_half_a_line_waits(tmp_path: Path) -> None:
    write(tmp_path, 10, (1.0, 0, FIRST, 1, 0))
    text = (tmp_path / "10.jsonl").read_text()
    (tmp_path / "10.jsonl").write_text(text + text[:20])
    steps = Steps(tmp_path)
    steps.read()
    assert len(steps.made) == 1
    with (tmp_path / "10.jsonl").open("a") as file:
        file.write(text[20:])
    steps.read()
    assert len(steps.made) == 2


KILL = Kill(1, 11, 60, 0.1, 0.05, 60, "1.2", 2, survivors={0: 10})
GOOD = Outcome(
    phase="Succeeded",
    world=2,
    steps=120,
    kill=KILL,
    fall=Fall(100, 97, 99, 8.0),
    lost=[],
    hashes=[StateHash("this run", "a" * 64, rank, 120) for rank in range(2)],
    reference=StateHash("uninterrupted", "a" * 64, 0, 120),
    losses=(4.8, 2.2),
)


def test_a_good_outcome_has_no_problems() -> None:
    assert GOOD.problems() == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (replace(GOOD, phase="Failed"), "the job is Failed"),
        (replace(GOOD, kill=None), "did not go on after the kill"),
        (replace(GOOD, fall=None), "did not go on after all ranks"),
        (replace(GOOD, fall=Fall(100, 97, 96, 8.0)), "97 steps were durable, and training went on from 96"),
        (replace(GOOD, kill=replace(KILL, gone=[10])), r"processes \[10\] were to survive"),
        (replace(GOOD, lost=["step 7 was never made"]), "step 7"),
        (replace(GOOD, hashes=GOOD.hashes[:1]), "1 of 2 ranks told"),
        (replace(GOOD, hashes=[GOOD.hashes[0], replace(GOOD.hashes[1], sha256="b" * 64)]), "rank 1 does not have"),
        (replace(GOOD, hashes=[GOOD.hashes[0], replace(GOOD.hashes[1], step=119)]), "rank 1 does not have"),
        (replace(GOOD, reference=None), "told no hash"),
        (replace(GOOD, losses=(2.0, 2.5)), "did not fall"),
        (replace(GOOD, losses=(2.0, float("nan"))), "did not fall"),
        (replace(GOOD, losses=None), "no rank told the loss"),
        (replace(GOOD, left_behind=[99]), r"left behind: \[99\]"),
    ],
)
def test_every_loss_is_a_problem(bad: Outcome, complaint: str) -> None:
    assert any(re.search(complaint, problem) for problem in bad.problems())


def test_what_the_script_prints_is_read() -> None:
    lines = [
        "[rank 1] held-out loss 4.8235 before, 2.4468 after 60 steps",
        f"[rank 1] state sha256 {'c' * 64} (rank 1, step 60)",
        f"[rank 0] state sha256 {'d' * 64} (rank 0, step 60)",
    ]
    assert losses(lines) == (4.8235, 2.4468)
    assert [(h.sha256[0], h.rank, h.step) for h in hashes("this run", lines)] == [("d", 0, 60), ("c", 1, 60)]
    assert losses([]) is None
