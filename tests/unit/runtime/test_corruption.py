"""A rank whose memory changes under it is found, named and healed; ranks that are alike are never called anything else.

Bits are changed through `.data`, as torch does not notice it, on one rank only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from drivetrain.alike import BUFFER, NOTHING, OPTIMIZER, PARAMETER, Difference, Sums, compared, judge
from drivetrain.healing import Healing
from drivetrain.position import Position
from drivetrain.run import Run
from drivetrain.state import TrainingState
from drivetrain_api.messages import Corruption
from drivetrain_api.runtime import RuntimeCompression, RuntimeOptimizer, RuntimePrecision, RuntimeSnapshots
from unit.runtime.together import Pipe, Worlds, together
from unit.runtime.training import Case, Net, Numbers, forward, make_optimizer, make_scheduler, settings

EVERY = 4
CHECKED = 8
"""A step that is compared."""
WRONG = 1
"""The rank whose bits are changed."""

Tensor = torch.Tensor
Pick = Callable[[Any, torch.optim.Optimizer], Tensor]


def flip(tensor: Tensor, bit: int) -> None:
    """One bit of one element."""
    flat = tensor.data.view(-1)
    words = flat.view({4: torch.int32, 8: torch.int64}[flat.element_size()])
    words[-1] = words[-1] ^ (1 << bit if bit < 31 else -(1 << 31))


def moment(name: str) -> Pick:
    return lambda model, optimizer: optimizer.state[model.first.weight][name]


PLACES: dict[str, tuple[str, Pick]] = {
    "a parameter": (f"{PARAMETER}first.weight", lambda model, optimizer: model.first.weight),
    "a bias": (f"{PARAMETER}last.bias", lambda model, optimizer: model.last.bias),
    "a moment": (f"{OPTIMIZER}first.weight exp_avg", moment("exp_avg")),
    "the other moment": (f"{OPTIMIZER}first.weight exp_avg_sq", moment("exp_avg_sq")),
    "a statistic": (f"{BUFFER}norm.running_mean", lambda model, optimizer: model.norm.running_mean),
    "a count": (f"{BUFFER}norm.num_batches_tracked", lambda model, optimizer: model.norm.num_batches_tracked),
    "a buffer": (f"{BUFFER}calls", lambda model, optimizer: model.calls),
    "a parameter that is never used": (f"{PARAMETER}never.bias", lambda model, optimizer: model.never.bias),
}
BITS = {"the lowest": 0, "one of the exponent": 30, "the sign": 31}


def trained(
    pipe: Pipe,
    case: Case,
    every: int,
    before: int = -1,
    change: Callable[[Any, torch.optim.Optimizer], None] = print,
    snapshots: RuntimeSnapshots | None = None,
) -> tuple[str, list[Corruption], int]:
    """State at the end, what was found, and how often this rank was healed. `change` is made before step `before`."""
    if case.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.manual_seed(11 + pipe.rank)
    run = Run(replace(settings(case), check_every_steps=every, snapshots=snapshots), None)
    made: list[torch.optim.Optimizer] = []

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        made.append(make_optimizer(case, parameters))
        return made[0]

    model: Any = run.prepare(
        model=Net(case.model),
        optimizer=optimizer,
        scheduler=make_scheduler if case.scheduler else None,
        data=Numbers(),
    )
    for batch in run.batches():
        if batch.step == before and pipe.rank == WRONG:
            change(model, made[0])
        run.step(batch, forward(case))
    sha = run.state_sha256()
    run.finish()
    if run._snapshots is not None:
        assert run._snapshots.recorder.bases.thread.drain(30.0)
        run._snapshots.end(20.0)
    torch.use_deterministic_algorithms(False)
    healing = run._operations.subject.healing
    assert healing is not None
    return sha, list(healing.found), healing.healed


# --- found, named, healed ---------------------------------------------------------------------------------------------

ADAM = Case(model="all", batch=25, optimizer="adam", scheduler=True)


def changed_before_a_comparison(pipe: Pipe, ports: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, port in ports.items():
        Worlds.enter(port)
        place, _, bit = name.partition(", ")
        change = flipping(PLACES[place][1], BITS[bit]) if place else print
        found[name] = trained(pipe, ADAM, EVERY, CHECKED if place else -1, change)
    return found


def flipping(pick: Pick, bit: int) -> Callable[[Any, torch.optim.Optimizer], None]:
    return lambda model, optimizer: flip(pick(model, optimizer), bit)


def test_one_bit_before_a_comparison_leaves_no_trace() -> None:
    """Whatever it is of: the run ends with the undisturbed one's bits, and the place is named."""
    names = [f"{place}, {bit}" for place in PLACES for bit in BITS]
    worlds = Worlds(["", *names])
    ranks = together(changed_before_a_comparison, 3, worlds.ports)
    undisturbed = ranks[0][""][0]
    for rank, outcomes in enumerate(ranks):
        assert outcomes[""] == (undisturbed, [], 0)
        for name in names:
            sha, found, healed = outcomes[name]
            what = PLACES[name.partition(", ")[0]][0]
            expected = Corruption(
                step=CHECKED, rank=WRONG, peer=0, ranks=3, known=True, what=what, only_buffers=what.startswith(BUFFER)
            )
            assert (sha, found, healed) == (undisturbed, [expected], int(rank == WRONG)), name


def changed_between(pipe: Pipe, ports: list[int]) -> list[Any]:
    found = []
    for port, zero in zip(ports, (0, 1, 2), strict=True):
        Worlds.enter(port)
        case = Case(batch=25, optimizer="adam", zero=zero, bucket_bytes=300)
        before = CHECKED if zero else CHECKED - EVERY + 1
        found.append(trained(pipe, case, EVERY, before, lambda model, _: flip(model.first.weight, 20)))
    return found


def test_it_is_found_within_so_many_steps_and_with_state_that_is_shared_out() -> None:
    worlds = Worlds(["plain", "zero 1", "zero 2"])
    ranks = together(changed_between, 3, list(worlds.ports.values()))
    for number, name in enumerate(("plain", "zero 1", "zero 2")):
        for _, found, _ in (each[number] for each in ranks):
            assert [(each.step, each.rank, each.known) for each in found] == [(CHECKED, WRONG, True)], name
        assert [each[number][2] for each in ranks] == [0, 1, 0]
    assert len({each[0][0] for each in ranks}) == 1


def of_two(pipe: Pipe) -> tuple[str, list[Corruption], int]:
    return trained(pipe, ADAM, EVERY, CHECKED, lambda model, _: flip(model.last.weight, 7))


def test_of_two_nobody_knows_which_is_right_and_that_is_said() -> None:
    ranks = together(of_two, 2)
    assert len({sha for sha, _, _ in ranks}) == 1
    for _, found, _ in ranks:
        assert [(each.rank, each.peer, each.known, each.what) for each in found] == [
            (rank, 0, False, f"{PARAMETER}last.weight") for rank in (0, 1)
        ]
    assert [healed for _, _, healed in ranks] == [0, 1]


def never_compared(pipe: Pipe) -> tuple[str, list[Corruption], int]:
    return trained(pipe, ADAM, 0, CHECKED, lambda model, _: flip(model.last.weight, 7))


def test_without_comparisons_ranks_stay_apart() -> None:
    """What the other tests would see if nothing was done."""
    ranks = together(never_compared, 3)
    assert len({sha for sha, _, _ in ranks}) > 1
    assert all(not found for _, found, _ in ranks)


def with_snapshots(pipe: Pipe, ports: dict[str, int], folder: Path) -> dict[str, str]:
    """The state in which each run ends; `back` only goes on from what `struck` has written."""
    found = {}
    for name, port in ports.items():
        Worlds.enter(port)
        snapshots = RuntimeSnapshots(
            storage=str(folder / ("whole" if name == "whole" else "struck")), commit_seconds=0.0, base_every_steps=100
        )
        before = CHECKED if name == "struck" else -1
        case = ADAM.but(steps=30)  # a base is copied over many steps
        found[name] = trained(pipe, case, EVERY, before, lambda model, _: flip(model.first.weight, 20), snapshots)[0]
    return found


def test_what_was_copied_of_a_state_that_was_wrong_is_not_gone_back_to(tmp_path: Path) -> None:
    worlds = Worlds(["whole", "struck", "back"])
    for found in together(with_snapshots, 3, worlds.ports, tmp_path):
        assert found["struck"] == found["back"] == found["whole"]
    bases = {path.name for path in (tmp_path / "struck" / "base").glob("*/*") if (path / "manifest.json").exists()}
    assert any(int(name.partition("-")[0]) == CHECKED + 1 for name in bases), bases


def struck_speaker(pipe: Pipe, folder: Path) -> tuple[int, bool, list[bool]]:
    """How often this rank was healed; whether all bases are written soon; whether it takes parameters for the
    script's."""
    torch.manual_seed(11 + pipe.rank)
    snapshots = RuntimeSnapshots(storage=str(folder), commit_seconds=0.0, base_every_steps=100)
    run = Run(replace(settings(ADAM), check_every_steps=EVERY, snapshots=snapshots), None)
    model: Any = run.prepare(
        model=Net(ADAM.model), optimizer=lambda parameters: make_optimizer(ADAM, parameters), data=Numbers()
    )
    assert run._snapshots is not None
    recorder = run._snapshots.recorder
    for batch in run.batches():
        if batch.step == CHECKED:
            assert recorder.bases.thread.drain(30.0)  # the first one is complete
            if pipe.rank == 0:
                flip(model.first.weight, 20)
        run.step(batch, forward(ADAM))
    run.finish()
    written = recorder.bases.thread.drain(20.0)
    run._snapshots.end(20.0)
    healing = run._operations.subject.healing
    assert healing is not None
    return healing.healed, written, [recorder.scripted]


def test_the_rank_that_writes_for_all_was_wrong_and_the_next_base_does_not_wait(tmp_path: Path) -> None:
    """It has taken the flipped bit for the script's doing, and waited for a base that no other rank has begun."""
    assert together(struck_speaker, 3, tmp_path) == [(1, True, [False]), (0, True, [False]), (0, True, [False])]
    bases = {path.parent.name for path in (tmp_path / "base").glob("*/*/manifest.json")}
    assert any(int(name.partition("-")[0]) == CHECKED + 1 for name in bases), bases


# --- no false alarm ---------------------------------------------------------------------------------------------------

ALIKE: dict[str, Case] = {
    "plain": Case(model="all", batch=25, optimizer="adam", clip=0.5),
    "accumulation, schedule": ADAM.but(microbatches=3),
    "fewer samples than ranks": Case(model="rest", batch=2, steps=16, optimizer="adam", clip=0.3),
    "deterministic": Case(model="drop", batch=25, deterministic=True, optimizer="adam", virtual_shards=4),
    "fp16": Case(batch=25, precision=RuntimePrecision(compute="fp16", reduce="fp16"), optimizer="adam"),
    "bf16": Case(batch=25, precision=RuntimePrecision(compute="bf16", reduce="bf16"), optimizer="adam"),
    "int8": Case(batch=25, compression=RuntimeCompression(method="int8"), optimizer="adam"),
    "powersgd": Case(batch=25, compression=RuntimeCompression(method="powersgd", warmup_steps=2)),
    "topk": Case(batch=25, compression=RuntimeCompression(method="topk", density=0.1), optimizer="plain sgd"),
    "LAMB": Case(model="deep", batch=25, named=RuntimeOptimizer(name="lamb", lr=0.01)),
    "sparse": Case(model="sparse", batch=25, optimizer="plain sgd"),
    "balance": Case(batch=26, balance_every=3),
    "zero 1": Case(model="rest", batch=25, zero=1, optimizer="adam", clip=0.5),
    "zero 2": Case(model="deep", batch=25, zero=2, named=RuntimeOptimizer(name="lars", lr=1.0)),
    "zero 3": Case(model="deep", batch=25, zero=3, optimizer="adam"),
    "the script computes between steps": Case(model="all", batch=25, looks=True),
}


def compared_in_every_step(pipe: Pipe, ports: dict[str, int]) -> dict[str, list[Corruption]]:
    found = {}
    for name, port in ports.items():
        Worlds.enter(port)
        found[name] = trained(pipe, ALIKE[name], 1)[1]
    return found


def test_ranks_that_are_alike_are_called_so_in_every_mode() -> None:
    worlds = Worlds(ALIKE)
    for outcomes in together(compared_in_every_step, 3, worlds.ports):
        assert outcomes == {name: [] for name in ALIKE}


class Cached(nn.Module):
    """Keeps a table that is no part of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(2), persistent=False)
        self.register_buffer("scale", torch.ones(2))


def test_caches_are_the_ranks_own() -> None:
    names = [name for name, _ in compared(Cached(), torch.optim.SGD([torch.zeros(1)]), whole=True)]
    assert names == [f"{BUFFER}scale"]


def with_a_buffer_of_its_own(pipe: Pipe, ports: list[int]) -> list[Any]:
    found: list[Any] = []
    for port, writers in zip(ports, ((0, 1, 2), (WRONG,)), strict=True):
        Worlds.enter(port)
        case = Case(batch=25, optimizer="adam", steps=5 * EVERY)
        torch.manual_seed(5)
        run = Run(replace(settings(case), check_every_steps=EVERY), None)
        net = Net("plain")
        net.register_buffer("mine", torch.zeros(2))
        model: Any = run.prepare(model=net, optimizer=lambda p: make_optimizer(ADAM, p), data=Numbers())
        for batch in run.batches():
            if pipe.rank in writers:
                model.mine.fill_(pipe.rank + batch.step)
            run.step(batch, forward(case))
        run.finish()
        healing = run._operations.subject.healing
        assert healing is not None
        found.append((model.mine.tolist(), [each.step for each in healing.found]))
    return found


def test_a_buffer_that_a_script_writes_on_some_ranks_is_theirs() -> None:
    """On all: it is never touched. On one of three: it may be bits that flipped, once."""
    worlds = Worlds(["all", "one"])
    last = 5 * EVERY - 1
    for rank, (of_all, of_one) in enumerate(together(with_a_buffer_of_its_own, 3, list(worlds.ports.values()))):
        assert of_all == ([float(rank + last)] * 2, [])
        assert of_one == ([float(rank + last)] * 2 if rank == WRONG else [0.0] * 2, [EVERY])


class Odd(torch.nn.Module):
    """Has a tensor that has no bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "odd", torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (3,), check_invariants=True)
        )


def test_what_has_no_bytes_ends_comparisons_and_not_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    strategy: Any = SimpleNamespace(
        model=Odd(),
        optimizer=torch.optim.SGD([torch.zeros(1)]),
        sharded=None,
        training=SimpleNamespace(zero=0, tensor=1, pipeline=None),
    )
    healing = Healing(strategy, TrainingState(), 1)
    assert [healing.told(Position(step=step)) for step in (1, 2)] == [NOTHING, NOTHING]
    assert capsys.readouterr().err.count("ranks are not compared") == 1


# --- who is right -----------------------------------------------------------------------------------------------------


def told(*totals: int, kind: int = 1) -> list[bytes]:
    return [struct.pack("<qI", total, kind) for total in totals]


JUDGED: list[tuple[str, list[bytes], Difference | None]] = [
    ("all alike", told(5, 5, 5), None),
    ("one of three", told(5, 6, 5), Difference(0, (1,), known=True)),
    ("the first of three", told(6, 5, 5), Difference(1, (0,), known=True)),
    ("one of two", told(5, 6), Difference(0, (1,), known=False)),
    ("two of four", told(5, 6, 6, 5), Difference(0, (1, 2), known=False)),
    ("two that differ, of four", told(5, 6, 7, 5), Difference(0, (1, 2), known=True)),
    ("each its own", told(7, 6, 5), Difference(0, (1, 2), known=False)),
    ("nothing was told", [NOTHING, NOTHING], None),
    ("another machine", [*told(5, 5), *told(6, kind=2)], None),
    ("one that was told nothing of", [*told(5, 5), NOTHING], None),
]


@pytest.mark.parametrize(("told_", "expected"), [each[1:] for each in JUDGED], ids=[each[0] for each in JUDGED])
def test_most_are_right(told_: list[bytes], expected: Difference | None) -> None:
    assert judge(told_) == expected


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(7),
        torch.full((3, 5), math.nan),
        torch.arange(9, dtype=torch.bfloat16),
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(20.0)[1:],
        torch.arange(20.0).view(4, 5)[:, 1:3],
        torch.tensor(True),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3, dtype=torch.complex64).conj(),
        torch.ones(3, dtype=torch.complex64).conj().imag,
        torch.ones(1).expand(5),
        torch.empty(0),
        torch.tensor(3),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
def test_every_bit_counts_and_where_it_lies_does_not(tensor: Tensor) -> None:
    def total(of: Tensor) -> bytes:
        return Sums.of(iter([("x", of)])).told()

    moved = (
        torch.empty(tensor.numel() + 3, dtype=tensor.dtype)[3:].as_strided(tensor.shape, tensor.stride())
        if (tensor.is_contiguous())
        else tensor.clone(memory_format=torch.preserve_format)
    )
    if 0 not in tensor.stride():
        moved.copy_(tensor)
        assert total(moved) == total(tensor)
    bits = tensor.untyped_storage()
    for index in range(tensor.element_size() if tensor.numel() else 0):
        at = tensor.storage_offset() * tensor.element_size() + index
        for bit in range(8 if tensor.dtype is not torch.bool else 1):
            before, whole = total(tensor), bits[at]
            bits[at] = whole ^ (1 << bit)
            assert total(tensor) != before
            bits[at] = whole
            assert total(tensor) == before
