"""An S3 server is killed again and again while steps are written: what was said to be durable is there, whole, each
time that it comes back, and nothing is there that was not written."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from drivetrain.snapshot import background
from drivetrain.snapshot.base import Bases
from drivetrain.snapshot.found import Found, begin_run
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.log import Log, Slices
from drivetrain.snapshot.names import BaseName
from drivetrain.snapshot.storage.s3 import S3
from drivetrain.snapshot.units import Unit, Values
from harness.patience import until
from storage.servers import BUCKET, S3Server

SIZE = 1_000_000
"""Elements: 4 MB a step, so that a kill comes in the middle of one."""
KEY = Key("w", 0, SIZE)


def numbers(step: int) -> np.ndarray:
    return np.random.default_rng(step).standard_normal(SIZE, dtype=np.float32)


def write_base(storage: S3, seat: Seat) -> None:
    bases = Bases(storage, 64 << 20)
    bases.begin(BaseName(seat.run, 0, seat.epoch), seat, b"small")
    bases.add(Unit(KEY, 0, Values(numbers(0).view(np.uint8), "float32"), {}, b""))
    bases.finish({"w": SIZE}, 0)
    assert bases.thread.drain(60.0)
    assert bases.complete is not None, bases.failure
    bases.thread.end(5.0)


def last(log: Log) -> int:
    return -1 if log.durable is None else log.durable.last


def more_than(step: int, log: Log) -> None:
    """Wait until that is durable, and what follows it."""
    until(lambda: last(log) > step, "more steps are durable", 30)


def test_a_server_that_dies_in_the_middle_of_writes(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(background, "_LONGEST_WAIT", 0.2)
    rng = random.Random(7)
    server = S3Server(tmp_path / "server")
    ended = threading.Event()
    try:
        server.start()
        storage = S3(f"s3://{BUCKET}/job", {"endpoint": server.endpoint}, secret)
        seat = Seat(begin_run(Found.of(storage), None, (1, 1)), (1, 1), 0, 1)
        write_base(storage, seat)
        log = Log(storage, 0.0, 16 << 20, 60.0)
        put: list[int] = []

        def train() -> None:
            while not ended.is_set() and len(put) < 1000:
                step = len(put)
                assert log.put(seat, Slices(step, (KEY,), numbers(step).view(np.uint8), "float32", (), b"x"))
                put.append(step)

        trainer = threading.Thread(target=train)
        trainer.start()
        for _ in range(5):
            more_than(last(log) + 1, log)
            time.sleep(rng.random() * 0.1)
            server.kill()
            said = last(log)
            until(lambda: log.failure is not None, "it is seen that nobody answers", 30)
            server.start()
            durable = Found.of(storage).durable()
            assert set(range(said + 1)) <= set(durable), "said to be durable, and is not there"
        ended.set()
        trainer.join(60)
        assert log.end(60.0)
        found = Found.of(storage)
        point = found.verified()
        assert point is not None
        assert (point.step, found.damaged) == (len(put), {})
        for each in found.steps_of(point):
            (piece,) = each.slices
            assert np.array_equal(piece.data.view(np.float32), numbers(each.step))
        assert log.dropped == 0
    finally:
        ended.set()
        server.end()
