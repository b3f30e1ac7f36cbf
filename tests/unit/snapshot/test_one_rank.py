"""The storage refuses one rank only, and not the one that tells the job's condition: that is told, too."""

from __future__ import annotations

import threading

import pytest

from drivetrain.snapshot import base, log
from drivetrain.snapshot.keys import Seat
from harness.patience import until
from unit.snapshot.memory import Memory
from unit.snapshot.ranks import Rank


def test_it_is_told_who_has_not_written(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(base, "_TELL_SECONDS", 0.5)
    refused = {"r1of2"}
    storage = Memory(lambda name: "refuse" if any(each in name for each in refused) else None)
    ranks = [Rank(storage, Seat(1, (0, 0), rank, 2)) for rank in range(2)]
    for rank in ranks:
        rank.base(0)
        rank.step(0)
    until(lambda: ranks[0].bases.failure is not None, "a word of the rank that tells", 20.0)
    assert ranks[0].bases.failure == "rank 1 has not written its share of the base of step 0: see its log"
    assert "No space left on device" in capfd.readouterr().err
    refused.clear()
    until(lambda: ranks[0].bases.complete is not None, "the base", 60.0)
    until(lambda: ranks[0].bases.failure is None, "no word of it any more", 20.0)
    for rank in ranks:
        rank.end()


def test_a_storage_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "STALLED_SECONDS", 0.3)
    goes_on = threading.Event()

    def hang(name: str) -> str | None:
        goes_on.wait(60.0)
        return None

    rank = Rank(Memory(hang), Seat(1, (0, 0), 0, 1))
    assert rank.log.stalled is None
    rank.step(0)
    until(lambda: rank.log.stalled is not None, "a word of it", 20.0)
    assert "no answer for more than" in (rank.log.stalled or "")
    goes_on.set()
    until(lambda: rank.log.stalled is None, "no word of it any more", 20.0)
    assert rank.log.durable is not None
    rank.end()
