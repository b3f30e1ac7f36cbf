"""W&B's file has each step once, whatever was torn, repeated, uploaded or written by one who was taken for dead."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivetrain.telemetry.trackers.tracker import Life, Point, Standing, Subject
from drivetrain.telemetry.trackers.wandb import TakenOver, Wandb
from drivetrain.telemetry.trackers.wandb_log import Kept, Log, kept
from drivetrain_api.runtime import RuntimeWandb

LIFE = Life("a", 0)


def points(first: int, last: int, **values: float) -> list[Point]:
    return [Point(step, 1e9 + step, {"loss": 1 / step, **values}) for step in range(first, last + 1)]


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Callable[[], Wandb]]:
    """One more, as another process would have it."""
    made: list[Wandb] = []

    def make() -> Wandb:
        made.append(Wandb(RuntimeWandb(folder=str(tmp_path), project="digits"), Subject("uid", "job/1", {"steps": 7})))
        return made[-1]

    yield make
    for each in made:
        each.close(finished=False)


def path(folder: Path) -> Path:
    return folder / "offline-run-job-1-uid" / "run-job-1-uid.wandb"


def log_of(steps: int, life: str = "a", size: int = 0) -> io.BytesIO:
    file = io.BytesIO()
    log = Log(file, life)
    log.run({"id": "i", "project": "p"}, {}, 100)
    for step in range(1, steps + 1):
        log.history(step, {"text": "x" * size})
    return file


@pytest.mark.parametrize("size", [0, 1000, 32_000, 32_768, 100_000])
def test_a_log_goes_on_where_it_is_torn(size: int) -> None:
    """Wherever: in a chunk's header, its data, or the zeros at the end of a block."""
    whole = log_of(40, size=size).getvalue()
    cuts = range(len(whole) - 300, len(whole)) if size < 2000 else range(len(whole) - 70_000, len(whole), 997)
    for cut in cuts:
        file = io.BytesIO(whole[:cut])
        found = kept(file, "a", 0)
        assert found.started == 100
        last = found.last or 0
        assert found.end <= cut
        file.seek(found.end)
        file.truncate()
        log = Log(file, "a", found.end)
        for step in range(last + 1, 41):
            log.history(step, {"text": "x" * size})
        assert file.getvalue() == whole


def test_a_damaged_record_ends_what_counts() -> None:
    file = log_of(20)
    data = bytearray(file.getvalue())
    data[len(data) // 2] ^= 1
    found = kept(io.BytesIO(data), "a", 0)
    assert found.last is not None
    assert 5 < found.last < 15


@pytest.mark.parametrize("content", [b"", b":W&B", b"something else altogether"])
def test_what_is_no_log_has_nothing(content: bytes) -> None:
    assert kept(io.BytesIO(content), "a", 0) == Kept()


def test_whoever_takes_over_asks_what_is_there(tmp_path: Path, tracker: Callable[[], Wandb]) -> None:
    first, second = tracker(), tracker()
    assert first.open(LIFE) == Standing(0)
    first.write(points(1, 10))
    assert second.open(LIFE) == Standing(10)
    second.write(points(11, 12))
    with pytest.raises(TakenOver):
        first.write(points(11, 11))
    first.close(finished=True)
    assert tracker().open(LIFE) == Standing(12)
    assert [each.name for each in path(tmp_path).parent.iterdir()] == [path(tmp_path).name]


@pytest.mark.parametrize(("first", "last"), [(0, 0), (6, 6), (10, 10), (15, 15)])
def test_what_is_repeated_takes_the_place_of_what_was_written(
    first: int, last: int, tmp_path: Path, tracker: Callable[[], Wandb]
) -> None:
    before = tracker()
    before.open(LIFE)
    before.write(points(1, 10))
    before.close(finished=True)
    after = tracker()
    assert after.open(Life("b", first)) == Standing(last)
    after.write(points(first + 1, 20))
    assert tracker().open(Life("b", first)) == Standing(20)
    with path(tmp_path).open("rb") as file:
        assert kept(file, "c", 8).last == 8 if first != 15 else 8


def test_a_run_that_had_ended_goes_on(tmp_path: Path, tracker: Callable[[], Wandb]) -> None:
    each = tracker()
    each.open(LIFE)
    each.write(points(1, 3))
    ended = path(tmp_path).stat().st_size
    each.close(finished=True)
    assert path(tmp_path).stat().st_size > ended
    assert each.open(LIFE) == Standing(3)
    assert path(tmp_path).stat().st_size == ended


def test_what_is_new_is_uploaded_again(tmp_path: Path, tracker: Callable[[], Wandb]) -> None:
    """`wandb sync` leaves a mark, and passes by what has it."""
    mark = path(tmp_path).with_name(path(tmp_path).name + ".synced")
    each = tracker()
    each.open(LIFE)
    mark.touch()
    each.write(points(1, 1))
    assert not mark.exists()
    mark.touch()
    each.close(finished=True)
    assert not mark.exists()
    mark.touch()
    each.open(LIFE)
    assert not mark.exists()
    mark.touch()
    each.close(finished=False)
    assert mark.exists()
