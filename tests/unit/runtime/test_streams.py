"""Iterable datasets: what each rank reads, and that training on one is the same in every world."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from drivetrain.data.order import parts_of, share
from drivetrain.data.pieces import Piece, pieces_of
from drivetrain.data.source import is_stream
from drivetrain.data.stream import Passes, StreamSource, fingerprint
from drivetrain.errors import UsageError
from drivetrain.run import Run
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers
from unit.runtime.training import settings as settings_of


class Count(IterableDataset[int]):
    """The numbers below `size`, in every pass; `produced` is what was not skipped."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.epochs: list[int] = []
        self.produced: list[int] = []

    def set_epoch(self, number: int) -> None:
        self.epochs.append(number)

    def __iter__(self) -> Iterator[int]:
        for number in range(self.size):
            self.produced.append(number)
            yield number


class Skipping(Count):
    """The same with iterators that can skip."""

    def __iter__(self) -> Iterator[int]:
        return _Skipper(self)


class _Skipper(Iterator[int]):
    def __init__(self, dataset: Count) -> None:
        self._dataset = dataset
        self._at = 0

    def __next__(self) -> int:
        if self._at == self._dataset.size:
            raise StopIteration
        self._at += 1
        self._dataset.produced.append(self._at - 1)
        return self._at - 1

    def skip(self, count: int) -> int:
        before = self._at
        self._at = min(self._dataset.size, self._at + count)
        return self._at - before


def read(source: StreamSource, step: int, part: range) -> list[int]:
    found: list[int] = source.read(step, part)
    return found


def source_of(dataset: Any, batch: int, passes: Passes | None = None) -> StreamSource:
    return StreamSource(dataset, lambda samples: samples, 0, batch, passes)


@pytest.mark.parametrize("kind", [Count, Skipping])
@given(
    size=st.integers(1, 40),
    batch=st.integers(1, 30),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    microbatches=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_step_reads_the_next_samples_of_the_stream(
    kind: type[Count], size: int, batch: int, worlds: list[int], microbatches: int, data: st.DataObject
) -> None:
    """Whatever the world, when it changes, which step is repeated, who comes fresh, and what it was told of passes."""
    sources = [source_of(kind(size), batch) for _ in range(4)]
    passes: Passes = []
    step = 0
    for world in worlds:
        newcomer = data.draw(st.integers(0, 3))
        sources[newcomer] = source_of(kind(size), batch, list(passes) if data.draw(st.booleans()) else [])
        found: list[int] = []
        for rank in range(world):
            for part in parts_of(share(batch, world, rank), microbatches):
                found += read(sources[rank], step, part)
        assert found == [position % size for position in range(step * batch, (step + 1) * batch)]
        passes = sources[0]._walk._passes
        step += data.draw(st.sampled_from([1, 1, 1, 0, -step, 3]))


def test_a_rank_that_can_skip_produces_its_share_only() -> None:
    dataset = Skipping(1000)
    source = source_of(dataset, 100)
    for step in range(10):
        read(source, step, range(50, 75))
    assert len(dataset.produced) == 10 * (25 + 1)  # and the first of each step, by which ranks compare their streams


def test_a_step_read_again_with_another_share_does_not_begin_the_pass_again() -> None:
    dataset = Count(1000)
    source = source_of(dataset, 100)
    assert read(source, 3, range(90, 95)) == list(range(390, 395))
    assert read(source, 3, range(10, 40)) == list(range(310, 340))
    assert len(dataset.produced) == 395


@pytest.mark.parametrize(("kind", "produced"), [(Count, 60), (Skipping, 10)])
def test_who_knows_where_a_pass_began_reads_no_pass_before_it(kind: type[Count], produced: int) -> None:
    dataset = kind(100)
    assert read(source_of(dataset, 10, [(6, 600), (7, 700)]), 75, range(10)) == list(range(50, 60))
    assert (dataset.epochs, len(dataset.produced)) == ([7], produced)


def test_each_pass_is_announced_once() -> None:
    dataset = Count(7)
    source = source_of(dataset, 5)
    for step in range(5):
        read(source, step, range(5))
    assert dataset.epochs == [0, 1, 2, 3]


class Shuffled(IterableDataset[tuple[int, float]]):
    """A shuffle buffer that draws from every generator."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        buffer = list(range(8))
        for number in range(8, 50):
            at = random.randrange(8)
            yield buffer[at], float(torch.rand(1)) + float(np.random.rand())
            buffer[at] = number
        yield from ((number, 0.0) for number in buffer)


def test_random_numbers_of_a_stream_depend_on_the_pass_only() -> None:
    alone, late = source_of(Shuffled(), 10), source_of(Shuffled(), 10)
    steps = [alone.read(step, range(10)) for step in range(15)]
    torch.manual_seed(5)
    assert late.read(7, range(4, 10)) == steps[7][4:]
    assert sorted(number for step in steps[:5] for number, _ in step) == list(range(50))
    assert steps[0] != steps[5] != steps[10]


def test_ranks_compare_the_first_sample_of_a_step() -> None:
    one, other = source_of(Count(50), 10), source_of(Count(49), 10)
    marks = []
    for step in range(12):
        read(one, step, range(5))
        read(other, step, range(5, 10))
        marks.append((one.mark, other.mark))
    assert all(mine == theirs for mine, theirs in marks[:5])
    assert sum(mine != theirs for mine, theirs in marks[5:]) >= 6


def test_fingerprints_tell_data_apart() -> None:
    samples = [
        torch.ones(2), torch.ones(2, 1), torch.zeros(2), torch.ones(2, dtype=torch.int64), 1, 1.0, "1", b"1", True,
        None, [1], (1,), {"a": 1}, {"a": 2}, np.ones(2), np.ones(3), np.float32(1), torch.ones(()), torch.zeros(0),
        torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.complex64),
    ]  # fmt: skip
    assert len({fingerprint(each) for each in samples}) == len(samples)
    assert fingerprint({"a": torch.ones(2), "b": object()}) == fingerprint({"a": torch.ones(2), "b": object()})


class Broken(Skipping):
    def __iter__(self) -> Iterator[int]:
        skipper = _Skipper(self)
        skipper.skip = lambda count: None  # type: ignore[method-assign, assignment, return-value]
        return skipper


@pytest.mark.parametrize(
    ("dataset", "named"),
    [(Count(0), "no samples"), (Broken(9), r"skip\(5\)")],
)
def test_a_stream_that_breaks_its_word_is_refused(dataset: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        source_of(dataset, 5).read(1, range(5))


class NoLength:
    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (DataLoader(TensorDataset(torch.ones(3))), "DataLoader"),
        (iter([1, 2]), "iterator"),
        (NoLength(), "__len__"),
        (7, "no dataset"),
    ],
)
def test_what_is_no_dataset_is_refused(data: Any, named: str) -> None:
    with pytest.raises(UsageError, match=rf"prepare\(data=...\).*{named}"):
        is_stream(data, "prepare(data=...)")


@pytest.mark.parametrize(("data", "stream"), [([1], False), (range(3), False), ({1}, True), (Count(3), True)])
def test_kinds_of_datasets_are_told_apart(data: Any, stream: bool) -> None:
    assert is_stream(data, "data") is stream


def read_all(pieces: Iterable[Piece]) -> list[tuple[int, list[int]]]:
    """Their numbers and samples."""
    found = [(piece.number, list(piece.read()), piece.size) for piece in pieces]
    assert [len(samples) for _, samples, _ in found] == [size for *_, size in found]
    return [(number, samples) for number, samples, _ in found]


@pytest.mark.parametrize("kind", [Count, Skipping])
@pytest.mark.parametrize(("size", "piece"), [(1, 5), (20, 5), (23, 5), (3, 1)])
def test_members_evaluate_each_sample_once(kind: type[Count], size: int, piece: int) -> None:
    for data in (kind(size), range(size)):
        whole = read_all(pieces_of(data, piece).of(1, 0))
        assert [each for _, samples in whole for each in samples] == list(range(size))
        for parts in (2, 3, 4):
            found = [each for part in range(parts) for each in read_all(pieces_of(data, piece).of(parts, part))]
            assert sorted(found) == whole  # also the numbers of the pieces


def test_an_empty_dataset_cannot_be_evaluated() -> None:
    with pytest.raises(UsageError, match="evaluate"):
        pieces_of([], 3)


# --- through run.step -------------------------------------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    """`Numbers`, in order; `only`: those of one rank, as a stream that shares itself out has them."""

    def __init__(self, only: tuple[int, int] | None = None) -> None:
        self.numbers = Numbers()
        self.only = only

    def __iter__(self) -> Iterator[Any]:
        rank, world = self.only or (0, 1)
        for index in range(rank, len(self.numbers), world):
            yield (*self.numbers[index], index)


def by_stream(
    pipe: Pipe, case: Case, path: str | None = None, apart: bool = False, steps: int | None = None
) -> tuple[list[float], list[int], float]:
    """Losses, which samples this rank saw, and the loss of an evaluation."""
    torch.manual_seed(11)
    run = Run(settings_of(case), None)
    only = (pipe.rank, pipe.world) if apart else None
    run.prepare(
        model=Net(case.model),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.05),
        data=Stream(only),
        resume=path,
    )
    seen: list[int] = []

    def forward(model: Any, shard: Any) -> torch.Tensor:
        x, y, _, index = shard
        if model.training:
            seen.extend(index.tolist())
        return F.cross_entropy(model(x), y)

    losses = []
    for batch in run.batches():
        losses.append(run.step(batch, forward).loss)
        if len(losses) == steps:
            break
    if path is not None:
        run.save(path)
    evaluation = run.evaluate(Stream(), forward, batch=50)
    run.finish()
    return losses, seen, evaluation.loss


@pytest.mark.parametrize("case", [Case(batch=25, microbatches=2), Case(batch=3), Case(batch=25, deterministic=True)])
def test_training_on_a_stream_is_the_same_in_every_world(case: Case) -> None:
    found = {world: together(by_stream, world, case) for world in (1, 2, 4)}
    for world, outcomes in found.items():
        seen = sorted(index for _, indices, _ in outcomes for index in indices)
        assert seen == sorted(position % 193 for position in range(case.steps * case.batch)), world
        for losses, _, evaluated in outcomes:
            assert losses == pytest.approx(found[1][0][0], rel=1e-5)
            assert evaluated == pytest.approx(found[1][0][2], rel=1e-5)


def test_a_resumed_run_goes_on_where_the_stream_was(tmp_path: Path) -> None:
    """In another world, in the second pass, without reading the first one again."""
    path = str(tmp_path / "model.pt")
    case = Case(batch=25, steps=20)
    whole = together(by_stream, 1, case)
    first = together(by_stream, 2, case, path, False, 11)
    second = together(by_stream, 3, case, path)
    seen = sorted(index for _, indices, _ in first + second for index in indices)
    assert seen == sorted(position % 193 for position in range(case.steps * case.batch))
    assert first[0][0] + second[0][0] == pytest.approx(whole[0][0], rel=1e-5)
    assert torch.load(path, weights_only=True)["position"]["passes"][-1] == (2, 386)


def test_ranks_that_find_different_samples_are_told() -> None:
    with pytest.raises(AssertionError, match=r"UsageError: prepare\(data=...\).*different samples"):
        together(by_stream, 2, Case(batch=24), None, True)
