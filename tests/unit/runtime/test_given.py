"""What `run.prepare` and `run.on_gradients` take, what comes of it, and what is refused: with what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DistributedSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

from drivetrain.data.passes import PassLength
from drivetrain.data.sampled import Sampled
from drivetrain.data.source import MapSource
from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Loss, returned
from drivetrain.run import Run
from drivetrain.settings import Settings
from drivetrain_api.runtime import RuntimeCompression, RuntimePrecision, RuntimeTraining
from unit.runtime.training import Numbers
from unit.runtime.user_scripts import BATCH, STEPS, ByLength, ModelOutput, Net, cross_entropy, sgd

ONE = torch.tensor(2.0)


def run_with(**training: Any) -> Run:
    return Run(Settings(RuntimeTraining(steps=STEPS, global_batch=BATCH, seed=2, **training), STEPS, BATCH, 1), None)


def prepared(run: Run | None = None, **given: Any) -> Run:
    run = run or run_with()
    run.prepare(**{"model": Net(), "optimizer": sgd, "data": Numbers(), **given})
    return run


# --- what forward returns ---------------------------------------------------------------------------------------------

OUTPUTS: dict[str, tuple[Any, float, dict[str, float]]] = {
    "a mean": (ONE, 8.0, {}),
    "an output of Hugging Face": (ModelOutput(loss=ONE, logits=torch.ones(4, 5)), 8.0, {}),
    "with another loss": (
        ModelOutput(loss=ONE, aux_loss=torch.tensor(0.5), logits=torch.ones(4)),
        8.0,
        {"aux_loss": 2},
    ),
    "a dict with numbers": ({"loss": ONE, "right": 0.25, "seen": True, "note": "text"}, 8.0, {"right": 1.0}),
    "a tuple": ((ONE, torch.ones(4, 5)), 8.0, {}),
    "a tuple with numbers": ((ONE, {"right": 0.5}), 8.0, {"right": 2.0}),
    "a Loss": (Loss(ONE, 3, {"right": 1}), 2.0, {"right": 1}),
    "a Loss in a dict": ({"loss": Loss(ONE, 3, {"right": 1}), "rate": 0.5}, 2.0, {"right": 1, "rate": 1.5}),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_forward_returns_is_a_loss_and_numbers(name: str) -> None:
    result, loss, metrics = OUTPUTS[name]
    found = returned(result, 4, "forward:")
    assert (found.loss, found.metrics) == (loss, metrics)
    assert found.value is ONE


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"logits": ONE}, "the dict has ['logits'], and no 'loss'"),
        (("text", ONE), "got str"),
        ((), "got tuple"),
        (None, "got NoneType"),
        ({"loss": torch.ones(3)}, "got shape (3,)"),
    ],
)
def test_what_is_no_loss_is_named(result: Any, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        returned(result, 4, "forward:")
    assert told in str(refused.value)


# --- between backward and update --------------------------------------------------------------------------------------


def test_what_a_function_leaves_of_gradients_is_applied() -> None:
    """Plain SGD moves each parameter by at most the rate times what gradients are clipped to."""
    run = run_with(clip_norm=10.0)
    model = prepared(run, optimizer=lambda p: torch.optim.SGD(p, 1.0))._prepared().model
    run.on_gradients(lambda found: nn.utils.clip_grad_value_(found.parameters(), 1e-3))
    seen: list[dict[str, float]] = []
    run.on_gradients(lambda found: {"largest": max(float(each.grad.abs().max()) for each in found.head.parameters())})  # type: ignore[union-attr]
    for batch in run.batches():
        before = [each.detach().clone() for each in model.parameters()]
        seen.append(run.step(batch, cross_entropy).metrics)
        for one, other in zip(before, model.parameters(), strict=True):
            assert float((one - other.detach()).abs().max()) <= 1e-3 + 1e-6
    assert seen == [{"largest": pytest.approx(1e-3)}] * STEPS


def test_a_gradient_that_is_taken_away_is_not_applied() -> None:
    run = run_with(clip_norm=0.1)
    model = prepared(run)._prepared().model

    def forget(found: nn.Module) -> None:
        found.get_submodule("head").zero_grad()

    run.on_gradients(forget)
    before = model.get_parameter("head.weight").detach().clone()
    for batch in run.batches():
        run.step(batch, cross_entropy)
    assert torch.equal(before, model.get_parameter("head.weight"))


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"zero": 1}, "training.parallel"),
        ({"precision": RuntimePrecision(compute="fp16")}, "training.precision.compute fp16"),
        ({"verify": "firstStep"}, "training.verify"),
    ],
)
def test_where_gradients_are_not_there_in_full_no_function_gets_them(training: dict[str, Any], told: str) -> None:
    early, late = run_with(**training), prepared(run_with(**training))
    early.on_gradients(lambda model: None)
    for too_far in (lambda: prepared(early), lambda: late.on_gradients(lambda model: None)):
        with pytest.raises(UsageError, match=r"run\.on_gradients: cannot be used with") as refused:
            too_far()
        assert told in str(refused.value)


@pytest.mark.parametrize("result", [3.0, {"norm": "long"}, {"norm": torch.ones(3)}])
def test_a_function_of_gradients_returns_numbers_by_name(result: Any) -> None:
    run = prepared()
    run.on_gradients(lambda model: result)
    with pytest.raises(UsageError, match=r"run\.on_gradients"):
        run.step(next(iter(run.batches())), cross_entropy)


def test_a_script_without_a_group_is_told_how_to_get_one() -> None:
    run = prepared()

    def forward(model: nn.Module, shard: Any) -> torch.Tensor:
        torch.distributed.all_reduce(torch.ones(1))
        return cross_entropy(model, shard)

    with pytest.raises(UsageError, match=r"prepare\(process_group=True\)"):
        run.step(next(iter(run.batches())), forward)


# --- schedules --------------------------------------------------------------------------------------------------------


def rates(run: Run, after: Callable[[Any], None] = lambda batch: None) -> list[float]:
    found = []
    for batch in run.batches():
        run.step(batch, cross_entropy)
        after(batch)
        found.append(round(run._prepared().update.state.optimizer.param_groups[0]["lr"], 6))
    return found


def test_a_schedule_goes_on_with_each_pass() -> None:
    run = prepared(scheduler=lambda found: torch.optim.lr_scheduler.StepLR(found, 1, 0.5), schedule="pass")
    assert rates(run) == [0.05] * 7 + [0.025] * 7  # 193 samples are over in the 8th batch of 25


def test_a_pass_whose_last_step_is_left_out_is_over() -> None:
    run = prepared(scheduler=lambda found: torch.optim.lr_scheduler.StepLR(found, 1, 0.5), schedule="pass")
    for batch in run.batches():
        if batch.ends_pass:
            run.skip(batch)
        else:
            run.step(batch, cross_entropy)
    assert run.scheduler.get_last_lr() == [0.025]


def test_a_script_tells_a_schedule_what_it_wants_to_know() -> None:
    run = prepared(scheduler=lambda found: torch.optim.lr_scheduler.ReduceLROnPlateau(found, factor=0.1, patience=1))

    def tell(batch: Any) -> None:
        if batch.step in (3, 5, 7, 9):
            run.scheduler.step(1.0)

    assert rates(run, tell) == [0.05] * 7 + [0.005] * 7


PLATEAU = torch.optim.lr_scheduler.ReduceLROnPlateau


class Stream:
    def __iter__(self) -> Iterator[Any]:
        data = Numbers()
        return (data[index] for index in range(193))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a schedule that asks, each step": (
        {"scheduler": PLATEAU, "schedule": "step"},
        "ReduceLROnPlateau.step must be told a number",
    ),
    "no such schedule": ({"scheduler": PLATEAU, "schedule": "epoch"}, "must be one of step, pass, script, got 'epoch'"),
    "passes of a stream": (
        {"scheduler": lambda found: torch.optim.lr_scheduler.StepLR(found, 1), "schedule": "pass", "data": Stream()},
        'prepare(schedule=...) "pass": how long a pass of an iterable dataset is',
    ),
    "a sampler of a stream": ({"data": Stream(), "sampler": range(3)}, "prepare(sampler=...): an iterable dataset"),
    "whole batches of a stream": ({"data": Stream(), "drop_last": True}, "prepare(drop_last=True): an iterable"),
    "too few for a batch": (
        {"sampler": range(20), "drop_last": True},
        "a pass has 20 samples, and a batch (training.batch.global) 25",
    ),
    "a sampler of batches": (
        {"sampler": BatchSampler(SequentialSampler(range(193)), 8, False)},
        "BatchSampler makes batches; hand over the sampler inside",
    ),
    "lists of indices": ({"sampler": [[1, 2], [3]]}, "list yields batches ([1, 2])"),
    "a rank's sampler": (
        {"sampler": DistributedSampler(Numbers(), 2, 0)},  # type: ignore[arg-type]
        "DistributedSampler picks the samples of one rank",
    ),
    "an iterator": ({"sampler": iter(range(9))}, "range_iterator cannot be asked for each pass anew"),
    "an index too high": ({"sampler": [1, 193]}, "yields the index 193, and the data has 193 samples"),
    "no index": ({"sampler": ["a"]}, "yields 'a', which is no index"),
    "no samples": ({"sampler": []}, "pass 0 of list has no samples"),
    "LBFGS": ({"optimizer": torch.optim.LBFGS}, "LBFGS.step must be given a closure"),
    "float16": ({"model": Net().half()}, "found ['torch.float16 on cpu']; float16 is what training.precision.compute"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_by_prepare(name: str) -> None:
    given, told = REFUSED[name]
    with pytest.raises(UsageError) as refused:
        prepared(**given)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("training", "field"),
    [
        ({"zero": 2}, "training.parallel.zero"),
        ({"compression": RuntimeCompression(method="int8")}, "training.compression"),
    ],
)
def test_ranks_share_out_parameters_of_one_type(training: dict[str, Any], field: str) -> None:
    model = Net()
    model.body[0].to(torch.bfloat16)
    with pytest.raises(UsageError) as refused:
        prepared(run_with(**training), model=model)
    assert f"{field}: trainable parameters must be all float32" in str(refused.value)
    assert "body.0.weight is bfloat16" in str(refused.value)


# --- which samples ----------------------------------------------------------------------------------------------------


def order(sampler: Any, steps: int, *, drop_last: bool = False, seed: int = 3) -> list[list[int]]:
    source = MapSource(range(60), list, seed, 25, sampler, drop_last=drop_last)
    return [source.read(step, range(25)) for step in range(steps)]


def test_batches_go_on_in_the_next_pass_of_a_sampler() -> None:
    found = [each for batch in order(RandomSampler(range(60)), 12) for each in batch]
    passes = [found[at : at + 60] for at in range(0, 300, 60)]
    assert all(sorted(each) == list(range(60)) for each in passes)
    assert len({tuple(each) for each in passes}) == 5


def test_whole_batches_leave_the_rest_of_a_pass_out() -> None:
    for sampler in (RandomSampler(range(60)), None):
        batches = order(sampler, 8, drop_last=True)
        for one, two in zip(batches[::2], batches[1::2], strict=True):
            assert len({*one, *two}) == 50
        left_out = [set(range(60)) - {*one, *two} for one, two in zip(batches[::2], batches[1::2], strict=True)]
        assert len({frozenset(each) for each in left_out}) == 4, "others in each pass"


def test_a_weighted_sampler_draws_by_weight() -> None:
    weights = [0.0] * 30 + [1.0] * 20 + [9.0] * 10
    drawn = [each for batch in order(WeightedRandomSampler(weights, 100), 40) for each in batch]
    assert min(drawn) >= 30
    assert 0.75 < sum(each >= 50 for each in drawn) / len(drawn) < 0.88


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampler(range(60), replacement=True),
        lambda: WeightedRandomSampler([1.0] * 60, 40, generator=torch.Generator()),
        lambda: ByLength([float(each % 7) for each in range(60)], 20),
    ],
)
def test_a_pass_of_a_sampler_is_a_function_of_seed_and_pass(make: Callable[[], Any]) -> None:
    """Whoever comes later, or reads a step again, finds the same samples."""
    torch.manual_seed(1)
    whole = order(make(), 8)
    torch.manual_seed(2)
    late = MapSource(range(60), list, 3, 25, make())
    assert [late.read(step, range(25)) for step in (7, 2, 3, 0)] == [whole[step] for step in (7, 2, 3, 0)]
    assert order(make(), 8, seed=4) != whole


def test_asking_a_sampler_draws_none_of_the_scripts_random_numbers() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Sampled(RandomSampler(range(60)), 60, 3)
    assert torch.equal(torch.rand(3), expected)


class Shrinking:
    """Another length in each pass."""

    def __init__(self) -> None:
        self.number = 0

    def set_epoch(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[int]:
        return iter(range(30 - self.number))


def test_passes_of_a_sampler_are_of_one_length() -> None:
    with pytest.raises(UsageError, match="pass 1 has 29 samples, and the first one had 30"):
        order(Shrinking(), 3)


PASSES = [
    (PassLength(50, 25), [0, 0, 1, 1, 2], [False, True, False, True, False]),
    (PassLength(60, 25), [0, 0, 0, 1, 1], [False, False, True, False, True]),
    (PassLength(10, 25), [0, 2, 5, 7, 10], [True] * 5),
    (PassLength(25, 25), [0, 1, 2, 3, 4], [True] * 5),
]


@pytest.mark.parametrize(("length", "numbers", "ends"), PASSES)
def test_a_step_knows_its_pass(length: PassLength, numbers: list[int], ends: list[bool]) -> None:
    assert [length.number(step) for step in range(5)] == numbers
    assert [length.ends(step) for step in range(5)] == ends


def test_a_stream_has_passes_that_nobody_knows() -> None:
    batch = next(iter(prepared(data=Stream()).batches()))
    with pytest.raises(UsageError, match=r"batch\.ends_pass"):
        assert batch.ends_pass
    with pytest.raises(UsageError, match=r"batch\.pass_number"):
        assert batch.pass_number
