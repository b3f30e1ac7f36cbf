"""State that is shared out, with a copy of each part on another rank: no death of one rank costs a step."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from drivetrain.errors import StateLost
from drivetrain.parallel.zero.copies import distance
from drivetrain.run import Run
from drivetrain.world.heal import _holders
from drivetrain.world.reunion import Holder
from drivetrain_api.constants import ENV_POD_UID
from drivetrain_api.messages import EpochId
from drivetrain_api.runtime import RuntimeOptimizer, RuntimePipeline, RuntimePrecision, RuntimeSnapshots
from unit.runtime.led import Death, Leader, lead
from unit.runtime.together import Pipe
from unit.runtime.training import Case, Net, Numbers, forward, make_optimizer, make_scheduler, settings

LAMB = RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4, weight_decay=0.01)
SHARED = Case(
    steps=13, model="deep", batch=24, microbatches=2, clip=0.5, bucket_bytes=1500, scheduler=True, optimizer="adam"
)
POINTS = ("bucket", "gathering", "reduced", "copied", "readied", "heard", "committed")


class Residual(nn.Module):
    """Blocks that can be cut by layers and by stages."""

    tp_plan: ClassVar = {"layers.*.0": "colwise", "layers.*.2": "rowwise"}

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(3))
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        out: torch.Tensor = self.last(hidden)
        return out


def train(
    pipe: Pipe,
    deaths: Sequence[Death],
    rank: int,
    case: Case,
    replicas: int = 1,
    in_a_pod: int = 1,
    snapshots: RuntimeSnapshots | None = None,
) -> dict[str, Any]:
    """One rank of a job."""
    os.environ[ENV_POD_UID] = f"pod {rank // in_a_pod}"
    mortal = lead(pipe, deaths, rank)
    torch.manual_seed(11)
    run = Run(replace(settings(case), replicas=replicas, snapshots=snapshots), None)
    run.prepare(
        model=Net(case.model) if case.model != "residual" else Residual(),
        optimizer=lambda parameters: make_optimizer(case, parameters),
        scheduler=make_scheduler if case.scheduler else None,
        data=Numbers(),
    )
    losses = {}
    optimizer = run._prepared().update.state.optimizer
    for batch in run.batches():
        mortal.begin(batch.step)
        if batch.step == 4:
            optimizer.param_groups[0]["lr"] = 1e-3  # as a script may
        losses[batch.step] = run.step(batch, forward(case)).loss
    mortal.begin(-1)
    counts = run._operations.counts
    told = {
        "sha256": run.state_sha256(),
        "losses": losses,
        "redone": counts.redone_steps,
        "received": counts.states_received,
    }
    run.finish()
    return told


@functools.cache
def undisturbed(case: Case, world: int = 3) -> list[dict[str, Any]]:
    return Leader(train, world, (), (case,)).results()


def assert_undisturbed(case: Case, deaths: Sequence[Death]) -> list[dict[str, Any]]:
    """Some ranks die on the way, and everything is as if none had; what those say that were there at the end."""
    leader = Leader(train, 3, deaths, (case,))
    found = leader.results()
    assert leader.died == len(deaths)
    for one, other in zip(found, undisturbed(case), strict=True):
        assert one["sha256"] == other["sha256"]
        assert one["losses"] == {step: other["losses"][step] for step in one["losses"]}
    return found


CASES = {
    "ZeRO 1": SHARED.but(zero=1),
    "ZeRO 2": SHARED.but(zero=2),
    "ZeRO 3": SHARED.but(zero=3),
    "SGD, sums": SHARED.but(zero=2, optimizer="sgd", loss="weighted", scheduler=False),
    "LAMB": SHARED.but(zero=2, named=LAMB, scheduler=False),
    "fp16, buffers, dropout, unused": SHARED.but(
        zero=2, model="all", precision=RuntimePrecision(compute="fp16", reduce="fp16")
    ),
    "rows, bf16": SHARED.but(
        zero=1, model="sparse", optimizer="plain sgd", scheduler=False, precision=RuntimePrecision(reduce="bf16")
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rank_dies_at_each_point_of_a_step(name: str) -> None:
    deaths = [Death(step + 1, point, step % 3) for step, point in enumerate(POINTS)]
    assert_undisturbed(CASES[name], deaths)


@pytest.mark.parametrize("name", ["ZeRO 2", "ZeRO 3"])
def test_a_rank_dies_before_each_message_of_a_step(name: str) -> None:
    deaths = [Death(number // 2 + 1, f"send {number}", number % 3) for number in range(0, 20, 2)]
    assert_undisturbed(CASES[name], deaths)


@pytest.mark.parametrize("name", ["ZeRO 2", "ZeRO 3", "LAMB"])
def test_who_did_not_hear_that_all_are_ready_follows_who_did(name: str) -> None:
    """Rank 2 dies with what all have said; rank 0 makes the update, rank 1 has heard nothing and makes it, too."""
    found = assert_undisturbed(CASES[name], [Death(3, "heard", 2, deaf=1), Death(7, "heard", 0, deaf=2)])
    assert found[1]["redone"] == 1
    assert found[1]["received"] == 1, "when the job began"


def test_an_update_that_nobody_has_made_is_given_up() -> None:
    """Rank 2 dies when it has all that it needs, but has not said so."""
    found = assert_undisturbed(CASES["ZeRO 2"], [Death(3, "readied", 2)])
    assert found[0]["redone"] == found[1]["redone"] == 0


@pytest.mark.parametrize("stage", [2, 3])
def test_two_die_at_once_that_are_no_neighbours(stage: int) -> None:
    """And two, of which the second dies when the others have met without the first."""
    deaths = [Death(3, "copied", 0), Death(3, "copied", 2), Death(5, "bucket", 1), Death(5, "forming", 3)]
    case = SHARED.but(zero=stage, steps=9)
    leader = Leader(train, 4, deaths, (case,))
    found = leader.results()
    assert leader.died == len(deaths)
    assert [each["sha256"] for each in found] == [each["sha256"] for each in undisturbed(case, 4)]


class Grows(torch.optim.SGD):
    """Keeps a tensor on itself, and changes it in place."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.scale = torch.ones(())

    def step(self, closure: Any = None) -> Any:
        self.scale.mul_(1.1)
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    each.grad *= self.scale
        return super().step(closure)


def grown(pipe: Pipe, deaths: Sequence[Death], rank: int, replicas: int) -> list[float]:
    lead(pipe, deaths, rank)
    torch.manual_seed(11)
    case = SHARED.but(zero=1, steps=5, model="plain")
    run = Run(replace(settings(case), replicas=replicas), None)
    run.prepare(model=Net("plain"), optimizer=lambda parameters: Grows(parameters, 0.02), data=Numbers())
    losses = [run.step(batch, forward(case)).loss for batch in run.batches()]
    run.finish()
    return losses


def test_what_an_optimizer_changes_on_itself_it_changes_once_a_step() -> None:
    assert Leader(grown, 2, (), (1,)).results() == Leader(grown, 2, (), (0,)).results()


def test_the_copy_is_rounded_as_what_snapshots_write(tmp_path: Path) -> None:
    deaths = [Death(step + 1, point, step % 3) for step, point in enumerate(POINTS[3:])]
    case = SHARED.but(zero=2, steps=9)
    told = []
    for number, each in enumerate((deaths, [])):
        kept = RuntimeSnapshots(storage=str(tmp_path / str(number)), precision="bf16")
        told.append([end["sha256"] for end in Leader(train, 3, each, (case, 1, 1, kept)).results()])
    assert told[0] == told[1]


def test_all_ranks_of_a_pod_die_at_once() -> None:
    deaths = [Death(3, "copied", 0), Death(3, "copied", 1), Death(5, "heard", 2), Death(5, "heard", 3)]
    case = SHARED.but(zero=2, steps=9)
    leader = Leader(train, 4, deaths, (case, 1, 2))
    found = leader.results()
    assert leader.died == len(deaths)
    assert [each["sha256"] for each in found] == [each["sha256"] for each in undisturbed(case, 4)]


GROUPS = {
    "tensor": SHARED.but(model="residual", tensor=2, steps=9),
    "tensor, ZeRO 2": SHARED.but(model="residual", tensor=2, zero=2, steps=9),
    "pipeline": SHARED.but(model="residual", pipeline=RuntimePipeline(stages=2), steps=9),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_that_have_the_model_between_them(name: str) -> None:
    """Two of two ranks. Who dies when one of the others has made the update, and one has not, costs no step either."""
    deaths = [Death(2, "gathering", 1), Death(4, "heard", 2, deaf=0), Death(6, "committed", 3)]
    leader = Leader(train, 4, deaths, (GROUPS[name],))
    found = leader.results()
    assert leader.died == len(deaths)
    assert [each["sha256"] for each in found] == [each["sha256"] for each in undisturbed(GROUPS[name], 4)]


PARTS = {
    "all there": ([(7, 0, 0, 1), (7, 0, 1, 0)], [(0, False), (1, False)]),
    "one is a reduction behind": ([(7, 0, 0, -1), (7, 1, 1, -1)], [(0, False), (1, False)]),
    "one is a step behind": ([(6, 0, 0, -1), (7, 0, 1, -1)], None),
    "from a copy": ([(0, 0, 0, -1), (7, 0, 1, 0)], [(1, True), (1, False)]),
    "the copy is a step behind": ([(7, 0, 0, -1), (6, 0, 1, 1)], None),
}


@pytest.mark.parametrize("name", PARTS)
def test_who_tells_a_part(name: str) -> None:
    """Rows are step (0: no state), reductions since, part and copied part."""
    rows, expected = PARTS[name]
    table = [
        [int(s > 0), s, since, 1, 1, 0, part, 2 if s else 0, -1, 0, copied, 5, 0] for s, since, part, copied in rows
    ]
    orders = [(row[0], row[1], row[2], EpochId(row[3], row[4])) for row in table]
    if expected is None:
        with pytest.raises(StateLost):
            _holders(table, orders, max(orders))
    else:
        assert _holders(table, orders, max(orders)) == [Holder(*each) for each in expected]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [("abc", 1), ("aabb", 2), ("aaabbb", 3), ("abab", 1), ("aab", 1), ("aaaa", 1), ("aabbcc", 2), ("ab", 1)],
)
def test_a_copy_is_in_another_pod_where_it_can_be(pods: str, expected: int) -> None:
    assert distance([ord(each) for each in pods]) == expected


@pytest.mark.parametrize("replicas", [0, 1])
def test_what_no_living_rank_has_is_lost(replicas: int) -> None:
    deaths = [Death(3, "reduced", 0), Death(3, "reduced", 1)][: 1 + replicas]
    leader = Leader(train, 3, deaths, (SHARED.but(zero=2), replicas))
    with pytest.raises(
        AssertionError,
        match="StateLost: .*rank 0 of 3 has taken along a part of the state of step 3" + ", and its copy" * replicas,
    ):
        leader.results()
