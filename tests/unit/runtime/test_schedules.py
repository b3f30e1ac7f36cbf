"""Pipeline schedules, simulated: every piece of work is done once, nobody waits in a circle, no time is wasted."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.parallel.pipeline.cut import cut
from drivetrain.parallel.pipeline.schedules.action import Action, Kind, Shape
from drivetrain.parallel.pipeline.schedules.table import SCHEDULES
from drivetrain_api.choices import ScheduleName

CHUNKS: Final[dict[ScheduleName, int]] = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "zerobubble": 1}


def simulated(name: ScheduleName, shape: Shape) -> tuple[float, list[int]]:
    """The share of time in which a stage is idle, when F, B and W of a chunk take equally long (B stands for both where
    it is not split), and how many activations each stage keeps at most."""
    stages, chunks, microbatches = shape
    lists = [SCHEDULES[name](shape, stage) for stage in range(stages)]
    split = any(action.kind is Kind.WEIGHT for actions in lists for action in actions)
    ended: dict[tuple[Kind, int, int], int] = {}
    clock, place, kept, most = [0] * stages, [0] * stages, [0] * stages, [0] * stages
    going = True
    while going:
        going = False
        for stage, actions in enumerate(lists):
            while place[stage] < len(actions):
                action = actions[place[stage]]
                needs = what_it_needs(action, stage, shape)
                if needs is not None and needs not in ended:
                    break
                begins = max(clock[stage], ended[needs] if needs is not None else 0)
                clock[stage] = begins + (2 if action.kind is Kind.BACKWARD and not split else 1)
                ended[action.kind, action.chunk * stages + stage, action.microbatch] = clock[stage]
                kept[stage] += action.kind is Kind.FORWARD
                most[stage] = max(most[stage], kept[stage])
                kept[stage] -= action.kind is (Kind.WEIGHT if split else Kind.BACKWARD)
                place[stage] += 1
                going = True
    assert place == [len(actions) for actions in lists], "stages wait for each other"
    return 1 - 3 * chunks * microbatches / max(clock), most


def what_it_needs(action: Action, stage: int, shape: Shape) -> tuple[Kind, int, int] | None:
    """Work of this or another stage."""
    chunk, last = action.chunk * shape.stages + stage, shape.stages * shape.chunks - 1
    if action.kind is Kind.WEIGHT:
        return Kind.BACKWARD, chunk, action.microbatch
    if action.kind is Kind.FORWARD:
        return (Kind.FORWARD, chunk - 1, action.microbatch) if chunk else None
    return (Kind.BACKWARD, chunk + 1, action.microbatch) if chunk < last else (Kind.FORWARD, chunk, action.microbatch)


THEORY = {
    "gpipe": lambda p, m: (p - 1) / (m + p - 1),
    "1f1b": lambda p, m: (p - 1) / (m + p - 1),
    "interleaved": lambda p, m: (p - 1) / (CHUNKS["interleaved"] * m + p - 1),
    "zerobubble": lambda p, m: (p - 1) / (3 * m + p - 1),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_no_more_time_is_lost_than_in_theory(name: ScheduleName, stages: int, times: int) -> None:
    shape = Shape(stages, CHUNKS[name], stages * times)
    idle, kept = simulated(name, shape)
    assert idle == pytest.approx(THEORY[name](stages, shape.microbatches))
    if name == "1f1b":
        assert kept == [stages - stage for stage in range(stages)]
    if name == "zerobubble":
        assert max(kept) <= stages


@given(name=st.sampled_from(sorted(SCHEDULES)), stages=st.integers(1, 6), microbatches=st.integers(1, 12))
def test_everything_is_done_once(name: ScheduleName, stages: int, microbatches: int) -> None:
    if name == "interleaved":
        microbatches *= stages
    shape = Shape(stages, CHUNKS[name], microbatches)
    simulated(name, shape)  # it ends
    for stage in range(stages):
        actions = SCHEDULES[name](shape, stage)
        kinds = {action.kind for action in actions}
        wanted = {Action(kind, c, m) for kind in kinds for c in range(shape.chunks) for m in range(microbatches)}
        assert Counter(actions) == Counter(wanted)
        first = [action.microbatch for action in actions if action.kind is Kind.FORWARD and action.chunk == 0]
        assert first == sorted(first)


# --- where blocks are cut ---------------------------------------------------------------------------------------------


def test_blocks_are_cut_by_cost_not_by_count() -> None:
    assert cut([1, 1, 1, 1], 2) == [0, 2, 4]
    assert cut([5, 1, 1, 1, 1, 1], 2) == [0, 1, 6]
    assert cut([1, 1, 1, 1, 1, 5], 2) == [0, 5, 6]
    assert cut([1, 1, 1, 1], 2, last=2) == [0, 3, 4]
    assert cut([1, 1, 1, 1], 2, first=2) == [0, 1, 4]
    assert cut([3, 1, 1, 1, 1, 1, 1], 3) == [0, 1, 4, 7]


@given(costs=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_no_cut_is_better(costs: list[int], data: st.DataObject) -> None:
    chunks = data.draw(st.integers(1, len(costs)))
    inside = st.integers(1, max(1, len(costs) - 1))
    middle = sorted(data.draw(st.sets(inside, min_size=chunks - 1, max_size=chunks - 1)))
    first, last = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))

    def highest(bounds: list[int]) -> int:
        sums = [sum(costs[begin:end]) for begin, end in pairwise(bounds)]
        sums[0] += first
        sums[-1] += last
        return max(sums)

    found = cut(costs, chunks, first, last)
    assert len(found) == chunks + 1
    assert found == sorted(set(found))
    assert highest(found) <= highest([0, *middle, len(costs)])
