"""Metrics go by name, whichever micro-batches, pieces and ranks give which; and what is no loss is refused by name, on
all ranks alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drivetrain.comm.ordered import Partial, total_of
from drivetrain.comm.told import MOST_BYTES, told_by_all
from drivetrain.comm.transport import Transport
from drivetrain.data.order import samples_of_step
from drivetrain.errors import UsageError
from drivetrain.parallel.loss import Loss
from drivetrain.parallel.metrics import Metrics
from drivetrain.run import Run
from drivetrain_api.runtime import RuntimeCompression, RuntimePipeline
from unit.runtime import text
from unit.runtime.simulated import Group, SimulatedTransport
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Net, Numbers, settings

SIX = Case(steps=6, batch=12)
CASES = {
    "one rank, micro-batches": (1, SIX.but(microbatches=5)),
    "ranks": (3, SIX.but(microbatches=2)),
    "ranks without samples": (4, SIX.but(batch=3)),
    "deterministic": (3, SIX.but(deterministic=True)),
    "compressed": (2, SIX.but(compression=RuntimeCompression(method="int8", warmup_steps=99))),
    "ZeRO 3": (2, SIX.but(zero=3)),
    "tensor, an idle rank": (3, SIX.but(tensor=2)),
    "data and pipeline, an idle rank": (
        5, SIX.but(microbatches=3, pipeline=RuntimePipeline(stages=2, schedule="1f1b", chunks=1)),
    ),
}  # fmt: skip


def counted(words: torch.Tensor) -> dict[str, float]:
    """How many of the texts begin with which word: not all words in every micro-batch."""
    found = Counter(f"word {int(each) % 13}" for each in words[:, 0])
    return {name: float(count) for name, count in found.items()}


def with_counts(model: nn.Module, words: torch.Tensor) -> Loss:
    loss = text.forward(model, words)
    return Loss(loss * len(words), len(words), counted(words))


def metrics(_: Pipe, case: Case) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Of each step, and of an evaluation: sums."""
    if case.deterministic:
        torch.use_deterministic_algorithms(True)
    run = Run(settings(case), None)
    run.prepare(model=text.make(case, text.PLAN), optimizer=lambda p: torch.optim.AdamW(p, 1e-3), data=text.Text())
    steps = [
        {name: value * case.batch for name, value in run.step(batch, with_counts).metrics.items()}
        for batch in run.batches()
    ]
    evaluation = run.evaluate(text.Text(), with_counts, batch=5)
    run.finish()
    return steps, {name: value * evaluation.weight for name, value in evaluation.metrics.items()}


@pytest.mark.parametrize("name", CASES)
def test_what_some_do_not_give_counts_nothing_there(name: str) -> None:
    world, case = CASES[name]
    data = text.Text()
    picked = [samples_of_step(step, case.batch, len(data), case.seed) for step in range(case.steps)]
    for steps, evaluated in together(metrics, world, case):
        assert steps == [pytest.approx(counted(data.words[each])) for each in picked]
        assert evaluated == pytest.approx(counted(data.words))


def test_the_last_bits_do_not_tell_when_names_were_new() -> None:
    """In deterministic jobs who has come since must not be seen in them."""
    shares = [{"third": each / 3} for each in (1.0, 10.0, 100.0, 7.0, 5.0)]
    metrics, found = Metrics(), []
    for _ in ("new", "known"):
        metrics.begin(None)
        tails = []
        for number, share in enumerate(shares):
            metrics.open(again=number > 0)
            metrics.add(share)
            tails.append(Partial(number, 1, [torch.tensor(metrics.told())]))
        sums = total_of(tails).pieces[0].tolist()
        found.append((sums[0], metrics.means(sums, 3.0, torch.float32, speaks=True)))
    assert [new for new, _ in found] == [5, 0]
    assert found[0][1] == found[1][1]


class Rank:
    """A rank's metrics, and what it brings to each step."""

    def __init__(self, *steps: dict[str, float]) -> None:
        self.metrics = Metrics()
        self._steps = iter(steps)

    def step(self, transport: SimulatedTransport) -> tuple[dict[str, float], int]:
        """The step's means by name, and how many collectives it took."""
        before = transport.next
        self.metrics.begin(cast(Transport, transport))
        self.metrics.open(again=False)
        self.metrics.add(next(self._steps))
        tail = torch.tensor(self.metrics.told())
        transport.all_reduce(tail).wait()
        found = self.metrics.means(tail.tolist(), 2.0, torch.float32, speaks=True)
        return found, transport.next - before


def test_names_are_told_once_in_a_membership() -> None:
    first, second = Rank({"a": 2}, {"a": 4}, {"b": 6}, {"a": 8}), Rank({"b": 2}, {"c": 4}, {"c": 6}, {"a": 8})
    late = Rank({"a": 10}, {"c": 2})
    before, after = Group(2), Group(3)
    transports = [SimulatedTransport(before, rank) for rank in range(2)]
    with ThreadPoolExecutor(3) as pool:
        for expected, collectives in (
            ({"a": 1, "b": 1}, 3),  # all are new
            ({"a": 2, "c": 2}, 3),  # one is
            ({"b": 3, "c": 3}, 1),
        ):
            found = list(pool.map(Rank.step, (first, second), transports))
            assert found == [(expected, collectives)] * 2
        transports = [SimulatedTransport(after, rank) for rank in range(3)]
        found = list(pool.map(Rank.step, (first, second, late), transports))  # who comes knows no names
        assert found == [({"a": 13}, 3)] * 3
    assert (before.mispaired, after.mispaired) == ([], [])


def test_what_is_too_long_to_be_told_is_refused_on_all_ranks() -> None:
    group = Group(2)
    with ThreadPoolExecutor(2) as pool:
        told = [
            pool.submit(told_by_all, cast(Transport, SimulatedTransport(group, rank)), "x" * size, "words")
            for rank, size in enumerate((3, MOST_BYTES))
        ]
        for each in told:
            with pytest.raises(UsageError, match=f"words: {MOST_BYTES + 2} bytes on one rank; at most {MOST_BYTES}"):
                each.result()


# --- what is no loss --------------------------------------------------------------------------------------------------


def loss_of(model: Any, shard: Any) -> torch.Tensor:
    return F.cross_entropy(model(shard[0]), shard[1])


Forward = Callable[[Any, Any], Any]
REFUSED: dict[str, tuple[Forward, str]] = {
    "nothing": (lambda m, s: None, "must return a scalar loss or drivetrain.Loss, got NoneType"),
    "a number": (lambda m, s: 1.0, "got float"),
    "a vector": (lambda m, s: m(s[0])[0], r"got shape \(5,\)"),
    "complex": (lambda m, s: loss_of(m, s) * 1j, "got torch.complex64"),
    "a sum that is a vector": (lambda m, s: Loss(m(s[0])[0], 1.0), r"Loss\(sum=...\) must be a scalar, got shape"),
    "a sum that is a number": (lambda m, s: Loss(cast(Any, 1.0), 1.0), "must be a scalar, got float"),
    "a negative weight": (lambda m, s: Loss(loss_of(m, s), -1.0), r"Loss\(weight=...\) must be .* at least 0, got -1"),
    "weights that are nan": (lambda m, s: Loss(loss_of(m, s), float("nan")), "must be finite .* got nan"),
    "weights without end": (lambda m, s: Loss(loss_of(m, s), float("inf")), "must be finite .* got inf"),
    "many weights": (lambda m, s: Loss(loss_of(m, s), cast(Any, s[2])), r"Loss\(weight=...\): must be one real number"),
    "a text as a metric": (lambda m, s: Loss(loss_of(m, s), 1.0, {"a": cast(Any, "x")}), r"\['a'\]: must be one real"),
    "names that are numbers": (lambda m, s: Loss(loss_of(m, s), 1.0, {cast(Any, 3): 1.0}), "names must be text, got 3"),
    "a long name": (lambda m, s: Loss(loss_of(m, s), 1.0, {"n" * 201: 1.0}), "names have at most 200 characters: nnn"),
    "17 names": (lambda m, s: Loss(loss_of(m, s), 1.0, {f"n{n}": 1.0 for n in range(17)}), "at most 16 names"),
}  # fmt: skip
EVERYWHERE: dict[str, tuple[Forward, str]] = {
    "no weight at all": (lambda m, s: Loss(loss_of(m, s), 0.0), "add up to 0 over the whole batch"),
    "17 names of all ranks": (
        lambda m, s: Loss(loss_of(m, s), 1.0, {f"n{float(each):.6f}": 1.0 for each in s[0][:10, 0]}),
        "at most 16 names",
    ),
}
"""What no rank alone can tell."""
IN_STEPS: dict[str, tuple[Forward, str]] = {
    **REFUSED,
    **EVERYWHERE,
    "a weight that is trained": (
        lambda m, s: Loss(loss_of(m, s), cast(Any, m.last.bias.exp().sum())), "requires a gradient, which it would not"
    ),
    "Loss of one rank, scalars of others": (
        lambda m, s: Loss(loss_of(m, s), 1.0), r"drivetrain.Loss for some .* scalar for others; .*Loss\(mean \* n"
    ),
}  # fmt: skip


def refusals(pipe: Pipe) -> tuple[dict[str, list[str]], str]:
    """What a step and an evaluation are told; the step is made with another function then."""
    run = Run(settings(Case(steps=len(IN_STEPS), batch=25)), None)
    model = run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    found: dict[str, list[str]] = {}
    for name, batch in zip(IN_STEPS, run.batches(), strict=True):
        odd = pipe.rank == 1 or name in EVERYWHERE
        found[name] = []
        operations: list[Callable[[Forward], Any]] = [partial(run.step, batch)]
        if name in REFUSED:
            operations.append(partial(run.evaluate, Numbers()))
        for operation in operations:
            try:
                operation(IN_STEPS[name][0] if odd else loss_of)
            except UsageError as error:
                found[name].append(str(error))
            else:
                found[name].append("made")
        run.step(batch, loss_of)
    sha = run.state_sha256()
    assert all(each.isfinite().all() for each in model.parameters())
    run.finish()
    return found, sha


def test_what_is_no_loss_is_refused_on_all_ranks() -> None:
    by_rank = together(refusals, 2)
    assert len({sha for _, sha in by_rank}) == 1
    for found, _ in by_rank:
        assert list(found) == list(IN_STEPS)
        for name, (_, expected) in IN_STEPS.items():
            assert len(found[name]) == 1 + (name in REFUSED)
            for told in found[name]:
                assert re.search(expected, told), (name, told)


def some_count(model: Any, shard: Any) -> Loss:
    """In some micro-batches no sample counts; the weight is a tensor, and the metric has a gradient."""
    counts = (shard[1] > 1).float()
    total = (F.cross_entropy(model(shard[0]), shard[1], reduction="none") * counts).sum()
    return Loss(total, cast(Any, counts.sum()), {"loss": cast(Any, total)})


def mixed(model: Any, shard: Any) -> Any:
    """Refused in a step, and right in an evaluation, where a mean counts with the number of its samples."""
    loss = loss_of(model, shard)
    return loss if shard[0][0, 0] > 0 else Loss(loss * len(shard[0]), len(shard[0]))


def odd_but_right(_: Pipe, microbatches: int) -> list[float]:
    torch.manual_seed(5)
    run = Run(settings(Case(steps=6, batch=6, microbatches=microbatches)), None)
    run.prepare(model=Net("plain"), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Numbers())
    results = [run.step(batch, some_count) for batch in run.batches()]
    assert [each.metrics["loss"] for each in results] == pytest.approx([each.loss for each in results])
    found = [run.evaluate(Numbers(), forward, batch=10).loss for forward in (mixed, loss_of)]
    run.finish()
    return [*(each.loss for each in results), *found]


def test_what_looks_odd_and_is_right_is_taken() -> None:
    (expected,) = together(odd_but_right, 1, 1)
    assert expected[-1] == pytest.approx(expected[-2])
    for found in together(odd_but_right, 2, 3):
        assert found == pytest.approx(expected, rel=1e-5)
