"""Sharded files: every record once a pass, each rank in parts of its own, and errors that name file and record."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain.data.files import Files
from drivetrain.data.lanes import Shuffle, places_in_lanes
from drivetrain.data.order import share
from drivetrain.data.source import MapSource
from drivetrain.errors import DataError, UsageError


def numbered(folder: Path, sizes: list[int]) -> list[str]:
    """Files of lines; every line is a number of its own, together all below sum(sizes)."""
    number = 0
    for file, size in enumerate(sizes):
        (folder / f"{file:03}.txt").write_text("".join(f"{each}\n" for each in range(number, number + size)))
        number += size
    return [str(folder / f"{file:03}.txt") for file in range(len(sizes))]


# --- the order --------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 400), batch=st.integers(1, 60), lanes=st.integers(1, 70))
@settings(max_examples=80, deadline=None)
def test_lanes_are_one_to_one(size: int, batch: int, lanes: int) -> None:
    places = places_in_lanes(torch.arange(size), size, batch, lanes)
    assert sorted(places.tolist()) == list(range(size))


@given(records=st.lists(st.integers(1, 20), min_size=1, max_size=30), seed=st.integers(0, 9), number=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_shuffle_is_one_to_one_and_keeps_parts_together(records: list[int], seed: int, number: int) -> None:
    size = sum(records)
    indices = Shuffle(torch.tensor(records), seed, number).indices(torch.arange(size)).tolist()
    assert sorted(indices) == list(range(size))
    owner = [part for part, count in enumerate(records) for _ in range(count)]
    changes = sum(owner[one] != owner[other] for one, other in pairwise(indices))
    assert changes == len(records) - 1


def test_a_lane_is_read_on_from_step_to_step() -> None:
    steps = places_in_lanes(torch.arange(960), 960, 32, 8).view(30, 8, 4)
    assert torch.equal(steps[1:, :, 0], steps[:-1, :, 3] + 1)
    assert steps[0, :, 0].tolist() == [lane * 120 for lane in range(8)]


@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=8).filter(any),
    batch=st.integers(1, 40),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=9),
)
@settings(max_examples=30, deadline=None)
def test_each_pass_reads_every_record_once_in_any_world(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], batch: int, worlds: list[int]
) -> None:
    urls = numbered(tmp_path_factory.mktemp("files"), sizes)
    ranks = [MapSource(Files(urls, part_bytes=20, cache_bytes=200), list, 3, batch) for _ in range(4)]
    alone = MapSource(Files(urls, part_bytes=20, cache_bytes=200), list, 3, batch)
    read: list[str] = []
    for step, world in enumerate(worlds):
        found = [each for rank in range(world) for each in ranks[rank].read(step, share(batch, world, rank))]
        assert found == alone.read(step, range(batch))
        read += found
    size = sum(sizes)
    for number in range(-(-len(read) // size)):
        seen = Counter(read[number * size : (number + 1) * size])
        assert set(seen) <= {str(each) for each in range(size)}
        assert set(seen.values()) == {1}


Reads = list[int]
"""Sizes of what was read from memory://, in order."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    found: Reads = []
    original = MemoryFileSystem.cat_file

    def noted(self: MemoryFileSystem, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        data: bytes = original(self, path, start=start, end=end, **kwargs)
        found.append(len(data))
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", noted)
    yield found
    MemoryFileSystem.store.clear()


def test_a_rank_reads_the_parts_of_its_share_only(reads: Reads) -> None:
    """Four ranks, two passes: together little more than the data, and no part again and again."""
    system = fsspec.filesystem("memory")
    for file in range(16):
        system.pipe_file(f"/data/{file}.txt", b"".join(b"%06d\n" % (file * 1000 + line) for line in range(1000)))
    total = 16 * 7000
    world, batch = 4, 64
    ranks = [
        MapSource(Files("memory://data/*.txt", part_bytes=700, cache_bytes=700 * 40), list, 5, batch)
        for _ in range(world)
    ]
    reads.clear()
    bytes_of_rank = []
    for rank, source in enumerate(ranks):
        before = len(reads)
        for step in range(2 * 16000 // batch):
            source.read(step, share(batch, world, rank))
        bytes_of_rank.append(sum(reads[before:]))
    assert sum(bytes_of_rank) < 1.2 * 2 * total  # at the borders of lanes two ranks read the same part
    assert max(bytes_of_rank) < 1.15 * min(bytes_of_rank)


def test_no_more_is_kept_than_was_allowed(tmp_path: Path) -> None:
    files = Files(numbered(tmp_path, [100] * 20), part_bytes=50, cache_bytes=400)
    kept = []
    for index in torch.randperm(2000, generator=torch.Generator().manual_seed(1)).tolist():
        assert files[index] == str(index)
        kept.append(sum(size for size, _ in files._loaded.values()))
        assert files._loaded_bytes == kept[-1]
    assert 300 < max(kept) <= 400


# --- what is in a file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "read", "expected"),
    [
        ("a", b"x\ny\n", "lines", ["x", "y"]),
        ("a", b"x\n\ny", "lines", ["x", "", "y"]),
        ("a", b"x\r\ny\r\n", "lines", ["x", "y"]),
        ("a", "ä€\n".encode(), "lines", ["ä€"]),
        ("a", b'{"a": 1}\n\n  \n[2]\r\n 3', "json", [{"a": 1}, [2], 3]),
        ("a.gz", b"x\ny\n", "lines", ["x", "y"]),
        ("a.jsonl.gz", b"1\n2\n", "json", [1, 2]),
        ("a", b"abc", lambda data: list(data), [97, 98, 99]),
        ("a", b"abc", lambda data: (each for each in data), [97, 98, 99]),
    ],
)
@pytest.mark.parametrize("part_bytes", [1, 4, 1000])
def test_records_of_a_file(
    tmp_path: Path, name: str, content: bytes, read: Any, expected: list[Any], part_bytes: int
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "empty").write_bytes(b"")
    files = Files([tmp_path / name, tmp_path / "empty"], read=read, part_bytes=part_bytes)
    assert [files[index] for index in range(len(files))] == expected
    assert files.__getitems__(list(range(len(files)))[::-1]) == expected[::-1]
    assert files[-1] == expected[-1]
    with pytest.raises(IndexError):
        files[len(files)]


def test_a_transform_makes_the_sample(tmp_path: Path) -> None:
    files = Files(numbered(tmp_path, [5]), transform=int)
    assert sum(files[index] for index in range(5)) == 10


def test_files_may_be_far_away(server: str) -> None:
    files = Files([f"{server}/a.txt", f"{server}/b.txt"], part_bytes=64, transform=int)
    assert [files[index] for index in range(len(files))] == list(range(302))


# --- the index --------------------------------------------------------------------------------------------------------


def test_an_index_saves_reading(reads: Reads, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for file in range(4):
        system.pipe_file(f"/data/{file}", b"1\n2\n3\n")
    assert len(Files("memory://data/*", index=tmp_path)) == 12
    assert len(reads) == 4
    assert len(Files("memory://data/*", index=tmp_path)) == 12
    assert len(reads) == 4
    system.pipe_file("/data/2", b"1\n2\n3\n4\n")
    assert len(Files("memory://data/*", index=tmp_path)) == 13
    assert len(reads) == 5


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda here: Files(f"{here}/none*"), r"urls.*none\* matches no file"),
        (lambda here: Files(f"{here}/none"), "urls.*none does not exist"),
        (lambda here: Files([]), "urls"),
        (lambda here: Files(f"{here}/empty"), "urls.*no record in 1 files.*empty"),
        (lambda here: Files("nosuch://x/*"), "urls.*nosuch"),
        (lambda here: Files(f"{here}/empty", read="csv"), "read='csv'.*json"),
        (lambda here: Files(f"{here}/empty", cache_bytes=0), "cache_bytes=0"),
        (lambda here: Files(f"{here}/empty", part_bytes=-1), "part_bytes=-1"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, make: Callable[[Path], Files], named: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UsageError, match=named):
        make(tmp_path)


def raises(data: bytes) -> list[int]:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("content", "options", "named"),
    [
        (b"1\n2\n{\n", {"read": "json"}, r"bad, record 2 .*read='json'.*JSONDecodeError"),
        (b"1\n2\n{\n", {"read": "json", "part_bytes": 2}, r"bad, record 2 .*read='json'.*JSONDecodeError"),
        (b"ok\n\xff\xff\n", {}, r"bad, record 1 .*UnicodeDecodeError"),
        (b"1\nx\n", {"transform": int}, r"bad, record 1 .*transform.*ValueError"),
        (b"1\n", {"read": raises}, "bad: .*read.*KeyError"),
        (b"no gzip", {"compression": "gzip"}, "bad: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, options: dict[str, Any], named: str) -> None:
    (tmp_path / "bad").write_bytes(content)

    def read() -> None:
        files = Files(tmp_path / "bad", **options)
        for index in range(len(files)):
            files[index]

    with pytest.raises(DataError, match=named):
        read()


@pytest.mark.parametrize("content", [b"1\n2\n", b"1\n2222", b""])
def test_a_file_that_changed_is_noticed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1\n2\n3\n")
    files = Files(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a: .*indexed"):
        files[0]


def test_json_is_what_json_says(tmp_path: Path) -> None:
    values = [{"a": [1, 2.5, None, "\n"]}, "x", -3, True]
    (tmp_path / "a").write_text("\n".join(map(json.dumps, values)))
    files = Files(tmp_path / "a", read="json")
    assert [files[index] for index in range(4)] == values
