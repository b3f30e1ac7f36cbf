"""The flight recorder: what a rank notes, its launcher can read in whatever state the rank is; and the files of it."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from drivetrain.launch import blackbox
from drivetrain.launch.blackbox import KEPT_FILES, BlackBox, Recordings
from drivetrain.telemetry import flight
from drivetrain.telemetry.flight import ENTRIES, Flight, Record, State
from drivetrain_api.messages import EpochId

EPOCH = EpochId(2, 7)


def held(recorder: Flight) -> list[Record]:
    return flight.read(os.pread(recorder.fd, flight.SIZE, 0))


def test_what_is_noted_can_be_read() -> None:
    recorder = Flight()
    world = recorder.group("world", EPOCH)
    recorder.step = 41
    done, waiting = world.begin("all-reduce", 4096, "float32"), world.begin("all-gather", 8, "int64")
    message = world.of("pipeline").begin("receive", 0, "", 1)
    world.end(done)
    world.wait(waiting)
    world.end(message, State.ABANDONED)
    world.end(message)  # it stays as it ended
    assert [(str(r.call(r.began)), r.step, r.bytes, r.dtype, r.state, r.epoch) for r in held(recorder)] == [
        ("all-reduce #1", 41, 4096, "float32", State.DONE, EPOCH),
        ("all-gather #2", 41, 8, "int64", State.WAITING, EPOCH),
        ("receive #1 from stage 1", 41, 0, "", State.ABANDONED, EPOCH),
    ]
    last = recorder.last()
    assert last is not None
    assert last.operation == "all-gather"  # what it waits for, not the newest


def test_the_oldest_make_room() -> None:
    recorder = Flight()
    calls = recorder.group("world", EPOCH)
    first = calls.begin("all-reduce", 1, "float32")
    for _ in range(ENTRIES):
        calls.begin("all-reduce", 1, "float32")
    calls.end(first)  # somebody else's place by now
    assert [record.number for record in held(recorder)] == list(range(2, ENTRIES + 2))
    assert {record.state for record in held(recorder)} == {State.STARTED}


def test_more_names_than_there_is_room_for() -> None:
    recorder = Flight()
    calls = recorder.group("world", EPOCH)
    for number in range(300):
        calls.begin(f"operation {number}", 1, "float32")
    names = [record.operation for record in held(recorder)]
    assert (names[0], names[200], names[-1]) == ("operation 0", "operation 200", "other")


@pytest.mark.parametrize("memory", [b"", b"\0" * flight.SIZE, b"DTFLIGHT\1\0\0\0" + b"\xff" * (flight.SIZE - 12)])
def test_memory_that_holds_something_else(memory: bytes) -> None:
    assert flight.read(memory) == []


@pytest.mark.parametrize("began", [-1e300, -1e10, 1e300])
def test_a_time_that_cannot_be_does_not_end_the_launcher(tmp_path: Path, began: float) -> None:
    """Whoever scribbles over the ring is ill, and that is when it is read."""
    recorder = Flight()
    recorder.group("world", EPOCH).begin("all-reduce", 4, "float32")
    with open(f"/proc/self/fd/{recorder.fd}", "r+b") as memory:
        memory.seek(flight._at(1) + 16)
        memory.write(struct.pack("<d", began))
    box = BlackBox()
    box.open(os.getpid(), recorder.fd)
    assert [str(call) for call in box.last()] == ["all-reduce #1"]
    Recordings(tmp_path, "lm-1").write(box, "uid/boot/4", lambda: "reason")
    assert len(list(tmp_path.iterdir())) == 1


def test_it_can_be_turned_off() -> None:
    assert Flight.of({"DRIVETRAIN_TELEMETRY": "off"}) is None
    assert flight.UNRECORDED.of("data").begin("all-reduce", 1, "float32") == 0


RANK = """
import os, signal, sys
from drivetrain.telemetry.flight import Flight
from drivetrain_api.messages import EpochId
recorder = Flight()
recorder.group("world", EpochId(1, 1)).begin("all-reduce", 4, "float32")
print(recorder.fd, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_of_a_rank_that_is_stopped_and_then_dead() -> None:
    box = BlackBox()
    with subprocess.Popen([sys.executable, "-c", RANK], stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        box.open(rank.pid, int(rank.stdout.readline()))
        assert [str(call) for call in box.last()] == ["all-reduce #1"]
        rank.kill()
    assert [str(call) for call in box.last()] == ["all-reduce #1"]
    box.close()
    assert box.last() == []


def test_what_is_no_memory_is_not_read() -> None:
    box = BlackBox()
    reading, writing = os.pipe()
    try:
        box.open(os.getpid(), reading)
        assert box.last() == []
        box.open(os.getpid(), 10**6)
        assert box.last() == []
    finally:
        os.close(reading)
        os.close(writing)


def recorded() -> BlackBox:
    """With one collective in it."""
    recorder = Flight()
    recorder.group("world", EPOCH).begin("all-reduce", 4, "float32")
    box = BlackBox()
    box.open(os.getpid(), recorder.fd)
    return box


def test_files_are_few_and_say_why(tmp_path: Path) -> None:
    files = Recordings(tmp_path / "kept", "lm-1")
    for number in range(KEPT_FILES + 3):
        files.write(recorded(), "uid/boot/4", partial("reason {}\n\x1b[2J".format, number), "File x.py\x1b[2J")
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == KEPT_FILES
    text = kept[-1].read_text()
    assert "reason 10" in text
    assert "all-reduce #1" in text
    assert "\x1b" not in text


def test_what_somebody_else_has_put_between_them_stays_and_the_others_go(tmp_path: Path) -> None:
    (tmp_path / "0.txt").mkdir()
    files = Recordings(tmp_path, "lm-1")
    for _ in range(KEPT_FILES + 3):
        files.write(recorded(), "uid/boot/4", lambda: "reason")
    assert len([each for each in tmp_path.iterdir() if each.is_file()]) == KEPT_FILES


def test_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "theirs")
    Recordings(tmp_path / "kept", "lm-1").write(recorded(), "uid/boot/4", lambda: "reason")
    assert list((tmp_path / "theirs").iterdir()) == []


async def test_what_comes_together_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "DELAY_SECONDS", 0.05)
    files, box, closed = Recordings(tmp_path, "lm-1"), recorded(), asyncio.Event()
    files.soon(box, "uid/boot/4", lambda: "its communication failed")
    files.soon(box, "uid/boot/4", lambda: "it ended with signal 9", then=closed.set)
    await asyncio.wait_for(closed.wait(), 20)
    (kept,) = tmp_path.iterdir()
    assert "its communication failed" in kept.read_text()
