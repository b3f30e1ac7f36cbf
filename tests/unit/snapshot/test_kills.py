"""Writers die at any byte, storages fail in any way: what was said to be durable comes back, and nothing else does."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from drivetrain.snapshot import background
from drivetrain.snapshot.errors import Fenced
from drivetrain.snapshot.found import Found, begin_run
from drivetrain.snapshot.keys import Key, Seat
from drivetrain.snapshot.log import Log, Slices
from drivetrain.snapshot.names import SegmentName, pin_name
from drivetrain.snapshot.prune import PIN_SECONDS, Pins, surplus
from unit.snapshot.memory import Memory
from unit.snapshot.ranks import Rank, content, last_durable, numbers


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(background, "_LONGEST_WAIT", 0.01)


@pytest.mark.parametrize("seed", range(200))
def test_a_kill_at_any_byte_loses_nothing_that_was_durable(seed: int) -> None:
    rng = random.Random(seed)
    writes, dies_at = 0, rng.randrange(2, 40)

    def fault(name: str) -> str | None:
        nonlocal writes
        writes += 1
        if writes > dies_at:
            return "refuse"
        if writes == dies_at:
            return rng.choice(["refuse", "tear", "lose"])
        return rng.choice([None] * 6 + ["lose", "refuse"])

    storage = Memory(seed=seed)
    run = begin_run(Found.of(storage), None, (1, 1))
    world = rng.randrange(1, 4)
    ranks = [Rank(storage, Seat(run, (1, 1), rank, world)) for rank in range(world)]
    for rank in ranks:
        rank.base(0)
    assert all(rank.bases.thread.drain(10.0) for rank in ranks)
    storage.fault = fault
    for step in range(rng.randrange(3, 14)):
        for rank in rng.sample(ranks, len(ranks)):
            rank.step(step)
            if step and step % 4 == 0:
                rank.base(step)
    time.sleep(rng.random() * 0.05)
    for rank in ranks:
        rank.end()
    base = ranks[0].bases.complete
    claimed = last_durable([rank.log.durable for rank in ranks], base.step if base is not None else None)
    storage.fault = lambda name: None
    found = Found.of(storage)
    first, step, steps = content(found) or (0, 0, [])
    assert claimed is None or step > claimed, "said to be durable, and is not there"
    for number, values in enumerate(steps, first):
        assert np.array_equal(values, numbers(run, number))
    # What somebody reads stays, and what was written since.
    points = found.points()
    if points:
        read = rng.choice(points)
        storage.objects[pin_name(read.base.run, read.base.step, f"{seed:016x}")] = b""
        gone = surplus(found, storage.list(""), 1)
        assert not {
            *map(str, (each for names in read.segments.values() for each in names)),
            *(name for name in storage.objects if name.startswith(str(read.base))),
        } & {*gone}
        del storage.objects[pin_name(read.base.run, read.base.step, f"{seed:016x}")]
    # What nobody needs goes, and nothing else does.
    storage.delete(surplus(found, storage.list(""), 1 + seed % 2))
    assert (content(Found.of(storage)) or (0, 0, []))[1] == step


def test_the_pin_of_a_reader_that_died_counts_for_some_hours() -> None:
    now = 0.0
    pins, dead, living = Pins(lambda: now), pin_name(1, 5, "0" * 16), pin_name(1, 5, "1" * 16)
    assert pins.stale([dead, "pins/other", "log/x"]) == []
    now = PIN_SECONDS - 1
    assert pins.stale([dead, living]) == []
    now = PIN_SECONDS + 1
    assert pins.stale([dead, living]) == [dead]
    assert pins.stale([]) == []
    assert pins.stale([dead]) == [], "another one of this name"


def test_what_an_old_run_writes_late_is_nobodys() -> None:
    storage = Memory()
    old = [Rank(storage, Seat(begin_run(Found.of(storage), None, (1, 1)), (1, 1), 0, 1))]
    old[0].base(0)
    for step in range(3):
        old[0].step(step)
    assert old[0].log.flush(5.0)
    assert old[0].bases.thread.drain(5.0)
    found = Found.of(storage)
    run = begin_run(found, found.verified(2), (2, 1))
    assert run == 2
    for step in (2, 3, 4):  # it goes on as if nothing were
        old[0].step(step + 1)
    assert old[0].log.flush(5.0)
    assert (content(Found.of(storage)) or (0, 0, []))[1] == 2
    new = Rank(storage, Seat(run, (2, 1), 0, 1))
    new.step(2)
    new.step(3)
    assert new.log.flush(5.0)
    _, step, steps = content(Found.of(storage)) or (0, 0, [])
    assert step == 4
    assert [float(each[0]) for each in steps] == [1000, 1001, 2002, 2003]
    with pytest.raises(Fenced):
        begin_run(found, found.verified(2), (1, 2))
    for rank in (*old, new):
        rank.end()


def test_a_membership_that_lost_a_rank_before_it_wrote_leaves_a_gap_that_is_seen() -> None:
    storage = Memory()
    run = begin_run(Found.of(storage), None, (1, 1))
    two = [Rank(storage, Seat(run, (1, 1), rank, 2)) for rank in range(2)]
    for rank in two:
        rank.base(0)
    for step in range(4):
        two[0].step(step)
        if step < 2:
            two[1].step(step)  # it dies with its slices of two steps
    one = Rank(storage, Seat(run, (1, 2), 0, 1))
    for step in range(4, 8):
        one.step(step)
    assert all(rank.log.flush(5.0) for rank in (*two, one))
    assert all(rank.bases.thread.drain(5.0) for rank in two)
    assert (content(Found.of(storage)) or (0, 0, []))[1] == 2
    one.base(6)
    assert one.bases.thread.drain(5.0)
    first, step, _ = content(Found.of(storage)) or (0, 0, [])
    assert (first, step) == (6, 8)
    for rank in (*two, one):
        rank.end()


def test_a_damaged_base_or_segment_is_gone_around() -> None:
    storage = Memory()
    run = begin_run(Found.of(storage), None, (1, 1))
    rank = Rank(storage, Seat(run, (1, 1), 0, 1))
    for step in range(8):
        if step in (0, 4):
            rank.base(step)
            assert rank.bases.thread.drain(5.0)
        rank.step(step)
    assert rank.log.flush(5.0)
    rank.end()
    whole = dict(storage.objects)
    for name in whole:
        storage.objects = dict(whole)
        storage.objects[name] = whole[name][:-3] + bytes([whole[name][-3] ^ 1]) + whole[name][-2:]
        found = Found.of(storage)
        first, step, steps = content(found) or (0, 0, [])
        if name.startswith("log/"):
            at = int(name.split("/")[3][:10])
            assert step == (at if at >= 4 or at > 4 else 8), name
        elif name.startswith("base/"):
            assert step == 8, name
            assert first == (0 if "/0000000004" in name else 4), name
        for number, values in enumerate(steps, first):
            assert np.array_equal(values, numbers(run, number)), name


def test_a_storage_that_stalls_costs_steps_and_no_memory() -> None:
    storage = Memory(fault=lambda name: "refuse")
    log = Log(storage, 0.0, 10_000, 0.0)
    seat = Seat(1, (1, 1), 0, 1)
    key = Key("w", 0, 500)
    data = np.zeros(2000, np.uint8)
    put = [log.put(seat, Slices(step, (key,), data, "float32", (), b"")) for step in range(50)]
    assert put.count(False) == log.dropped > 30
    assert log.waiting_bytes <= 12_000
    before = log.durable
    storage.fault = lambda name: None
    assert log.flush(10.0)
    assert (before, log.durable is None) == (None, False)
    log.end(1.0)


@pytest.mark.parametrize(
    "odd",
    [
        "0000000000-9999999999.r0of1",
        "0000000000-0000000001.r0of999999999",
        "0000000005-0000000001.r0of1",
        "0000000000-0000000001.r3of2",
    ],
)
def test_names_that_no_rank_writes_are_nobodys(odd: str) -> None:
    assert SegmentName.parse(f"log/000001/000001.000001/{odd}.seg") is None
    storage = Memory()
    begin_run(Found.of(storage), None, (1, 1))
    storage.objects[f"log/000001/000001.000001/{odd}.seg"] = b"x"
    assert Found.of(storage).verified() is None
