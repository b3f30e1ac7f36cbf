"""Data order, state trees, positions, checkpoints, random streams, the meter: no processes needed."""

from __future__ import annotations

import collections
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from drivetrain import rng
from drivetrain.checkpoint import load_checkpoint, save_checkpoint
from drivetrain.data.order import parts_of, permute, samples_of_step, share
from drivetrain.data.source import MapSource
from drivetrain.errors import StateMismatch, UsageError
from drivetrain.position import Position, StepResult
from drivetrain.state import Piece, TrainingState, as_bytes, checksum, digest, flatten, places, unflatten
from drivetrain.telemetry.meter import Meter
from drivetrain_api.messages import EpochId

# --- data order -------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 3000), key=st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_permute_is_one_to_one(size: int, key: int) -> None:
    assert sorted(permute(torch.arange(size), size, key).tolist()) == list(range(size))


@given(size=st.integers(1, 60), batch=st.integers(1, 90), seed=st.integers(0, 9), passes=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_pass_visits_each_sample_once(size: int, batch: int, seed: int, passes: int) -> None:
    steps = -(-size * passes // batch)
    seen = torch.cat([samples_of_step(step, batch, size, seed) for step in range(steps)]).tolist()
    for number in range(passes):
        assert sorted(seen[number * size : (number + 1) * size]) == list(range(size))


@given(step=st.integers(0, 10**6), batch=st.integers(1, 40), size=st.integers(1, 10**6), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_order_is_a_pure_function(step: int, batch: int, size: int, seed: int) -> None:
    torch.manual_seed(step)
    first = samples_of_step(step, batch, size, seed)
    torch.rand(3)
    assert torch.equal(first, samples_of_step(step, batch, size, seed))


@given(
    size=st.integers(1, 9000),
    batch=st.integers(1, 3000),
    steps=st.lists(st.integers(0, 5000) | st.integers(0, 30), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_a_source_knows_the_samples_of_any_step(size: int, batch: int, steps: list[int]) -> None:
    source = MapSource(range(size), None, 5, batch)
    for step in steps:
        assert torch.equal(source.indices(step), samples_of_step(step, batch, size, 5))


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(samples_of_step(step, 50, 50, seed).tolist()) for step in range(4) for seed in range(4)}
    assert len(orders) == 16


@given(total=st.integers(0, 500), parts=st.integers(1, 40))
def test_shares_cover_everything_in_order_and_evenly(total: int, parts: int) -> None:
    shares = [share(total, parts, part) for part in range(parts)]
    assert [each for part in shares for each in part] == list(range(total))
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1


@given(start=st.integers(0, 50), length=st.integers(0, 50), count=st.integers(1, 9))
def test_micro_batches_are_not_empty_and_cover_the_share(start: int, length: int, count: int) -> None:
    parts = parts_of(range(start, start + length), count)
    assert all(len(part) for part in parts)
    assert [each for part in parts for each in part] == list(range(start, start + length))


def test_getitems_is_used_where_a_dataset_has_it() -> None:
    class Many:
        asked: list[list[int]] = []  # noqa: RUF012  (one instance only)

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int, /) -> Any:
            raise AssertionError

        def __getitems__(self, indices: list[int]) -> list[int]:
            self.asked.append(indices)
            return indices

    source = MapSource(Many(), None, 0, 4)
    assert source.read(0, range(4)).tolist() == source.indices(0).tolist() == Many.asked[0]


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(UsageError, match="data"):
        MapSource([], None, 0, 4)


# --- state ------------------------------------------------------------------------------------------------------------

tensors = st.builds(
    lambda shape, dtype, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.integers(0, 2**31),
)
leaves = tensors | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=80, deadline=None)
def test_a_tree_is_the_same_after_flatten_and_unflatten(tree: Any) -> None:
    skeleton, found = flatten(tree)
    assert [place.index for place in places(skeleton)] == list(range(len(found)))
    assert [place.bytes for place in places(skeleton)] == [each.numel() * each.element_size() for each in found]
    again = unflatten(skeleton, [each.clone() for each in found])
    assert digest(again) == digest(tree)


@given(trees, trees)
@settings(max_examples=80, deadline=None)
def test_digests_are_equal_for_equal_trees_only(one: Any, other: Any) -> None:
    def described(tree: Any) -> str:
        skeleton, found = flatten(tree)
        return repr((_sorted(skeleton), [as_bytes(each).tolist() for each in found]))

    def _sorted(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: _sorted(node[key]) for key in sorted(node, key=repr)}
        return [_sorted(each) for each in node] if isinstance(node, (list, tuple)) else node

    # Lists and tuples are alike: a state that went through a file has lists where tuples were.
    if len(repr(described(one))) < 10**5:
        assert (digest(one) == digest(other)) == (described(one) == described(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 23], [12, 3]), (["ab", "c"], ["a", "bc"]), ([1], [True]), ([0.0], [-0.0]), ([1], [1.0]), ([[], 1], [[1]])],
)
def test_what_looks_alike_has_another_digest(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


def test_named_tuples_and_sizes_survive() -> None:
    Pair = collections.namedtuple("Pair", "first second")
    tree = {"pair": Pair(torch.ones(2), 3), "size": torch.Size([2, 3]), "counter": collections.Counter("aab")}
    skeleton, found = flatten(tree)
    again = unflatten(skeleton, found)
    assert (again["pair"].second, again["size"], again["counter"]) == (3, torch.Size([2, 3]), {"a": 2, "b": 1})


@given(st.integers(1, 5000), st.integers(0, 2**31), st.data())
@settings(max_examples=50, deadline=None)
def test_checksum_tells_short_and_misplaced_copies(size: int, seed: int, data: st.DataObject) -> None:
    whole = torch.randint(1, 256, (size,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    assert checksum(whole.clone()) == checksum(whole)
    cut = data.draw(st.integers(0, size - 1))
    assert checksum(whole[:cut]) != checksum(whole)
    if size >= 1024:
        moved = torch.roll(whole, 512)
        assert torch.equal(moved, whole) or checksum(moved) != checksum(whole)


def test_adopted_state_is_live_and_equal() -> None:
    def made(seed: int) -> tuple[TrainingState, nn.Module]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        registry = TrainingState()
        registry.register(Piece("model", model))
        registry.register(Piece("optimizer", optimizer))
        return registry, model

    one, _ = made(1)
    other, model = made(2)
    skeleton, found = flatten(one.collect())
    kept = list(model.parameters())
    other.load(unflatten(skeleton, [each.clone() for each in found]))
    assert other.sha256() == one.sha256()
    assert [id(each) for each in model.parameters()] == [id(each) for each in kept]
    with pytest.raises(StateMismatch, match="more"):
        other.load({**one.collect(), "more": {}})
    with pytest.raises(StateMismatch, match="taken"):
        one.register(Piece("model", model))


# --- position ---------------------------------------------------------------------------------------------------------


def test_the_most_advanced_position_is_the_greatest() -> None:
    def at(step: int, reductions: int, epoch: int, *, state: bool = True) -> Position:
        return Position(step, EpochId(1, epoch), state, since=[[0.0]] * reductions)

    ordered = [at(9, 9, 9, state=False), at(1, 0, 1), at(1, 0, 2), at(1, 1, 1), at(2, 0, 1), at(2, 0, 3)]
    assert sorted(ordered[3:] + ordered[:3], key=Position.order) == ordered


@pytest.mark.parametrize(
    ("there", "here", "can"),
    [
        ((5, 0), (5, 0), True), ((5, 2), (5, 1), True), ((6, 0), (5, 0), True), ((6, 1), (5, 3), True),
        ((7, 0), (5, 0), False), ((5, 0), (5, 1), False), ((4, 0), (5, 0), False),
    ],
)  # fmt: skip
def test_a_script_can_follow_one_step_at_most(there: tuple[int, int], here: tuple[int, int], can: bool) -> None:
    assert Position(there[0], since=[[0.0]] * there[1]).follows(*here) is can


def test_a_position_travels_whole() -> None:
    position = Position(first=3, step=3)
    position.commit_reduction([1.0, 2.0], EpochId(1, 2))
    position.mark = 1
    position.passes.append((1, 20))
    other = Position()
    other.load(position.dump())
    assert other == position
    position.commit_step(StepResult(3, 0.5, {"a": 1.0}, 2.0), EpochId(1, 4))
    other.load(position.dump())
    assert (other.step, other.since, other.before_first, other.mark) == (4, [], [[1.0, 2.0]], None)
    assert other.last == StepResult(3, 0.5, {"a": 1.0}, 2.0)
    other.begin()
    assert (other.first, other.before_first) == (4, [])


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "model.pt"
    state = {"model": {"weight": torch.ones(3)}, "optimizer": {"state": {}}}
    save_checkpoint(path, state, Position(step=4).dump())
    assert torch.equal(torch.load(path, weights_only=True)["model"]["weight"], torch.ones(3))

    def crash(fd: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"model": {}}, Position(step=5).dump())
    found, position = load_checkpoint(path)
    assert torch.equal(found["model"]["weight"], torch.ones(3))
    assert position["step"] == 4
    assert [each.name for each in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(StateMismatch, match=r"resume=.*model\.pt"):
        load_checkpoint(path)
    torch.save({"something": 1}, path)
    with pytest.raises(StateMismatch, match=r"resume=.*model\.pt"):
        load_checkpoint(path)


# --- random streams, meter --------------------------------------------------------------------------------------------


def drawn() -> tuple[float, ...]:
    normal = np.random.randn(2)  # numpy makes two at a time
    return float(torch.rand(1)), random.random(), float(np.random.rand()), *normal.tolist()


def test_a_stream_depends_on_its_numbers_only_and_leaves_the_outside_alone() -> None:
    def inside(*numbers: int) -> tuple[float, ...]:
        with rng.stream(*numbers):
            return drawn()

    def around(*numbers: int) -> tuple[float, ...]:
        with rng.stream(*numbers):
            first = drawn()
            inside(7, 7)
            return (*first, *drawn())

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    outside = [drawn(), drawn()]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    first = drawn()
    once = inside(1, 2, 3)
    assert [first, drawn()] == outside
    assert inside(1, 2, 3) == once
    with rng.stream(1, 2, 3):
        both = (*drawn(), *drawn())
    assert around(1, 2, 3) == both, "one inside the other"
    assert len({once, inside(1, 2, 4), inside(1, 3, 3), inside(2, 2, 3), inside(1, 3, 2)}) == 5


def test_a_stream_ends_with_an_exception_too() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    with pytest.raises(ValueError, match="x"), rng.stream(1, 2, 3):
        raise ValueError("x")
    assert random.random() == expected


def test_the_meter_knows_rates_and_never_misses_the_last_step() -> None:
    meter = Meter(3, 32)
    first = meter.visible(StepResult(0, 0.5, {"right": 0.25}), {"mine": 2.0})
    assert (first.step_seconds, first.samples_per_second, first.metrics) == (None, None, {"right": 0.25, "mine": 2.0})
    assert meter.report_due(first)
    second = meter.visible(StepResult(1, 0.5), {})
    assert second.step_seconds is not None
    assert second.samples_per_second == pytest.approx(32 / second.step_seconds)
    assert not meter.report_due(second)
    last = meter.visible(StepResult(2, 0.25), {"right": 0.5})
    assert meter.report_due(last)
    assert meter.line(first)
    assert meter.line(second) is None
    line = meter.line(last)
    assert line is not None
    assert line.startswith("step 3/3  loss 0.2500  right 0.5")


def test_a_pace_is_that_of_one_world_size() -> None:
    meter = Meter(10, 32)
    for step in range(3):
        told = meter.visible(StepResult(step, 0.5), {}, world=2)
    assert told.step_seconds is not None
    assert meter.visible(StepResult(3, 0.5), {}, world=4).step_seconds is None
    assert meter.visible(StepResult(4, 0.5), {}, world=4).step_seconds is not None
