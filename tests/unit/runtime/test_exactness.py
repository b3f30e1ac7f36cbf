"""Several ranks must train as one process with the whole batch would: the same updates, to rounding."""

from __future__ import annotations

import pytest
import torch

from drivetrain_api.runtime import RuntimeLearningRate, RuntimeOptimizer
from unit.runtime.together import Pipe, together
from unit.runtime.training import Case, Outcome, by_drivetrain, by_torch

LAMB = RuntimeOptimizer(name="lamb", lr=0.01, eps=1e-4, weight_decay=0.01)
LARS = RuntimeOptimizer(name="lars", lr=1.0, weight_decay=0.01, trust_coefficient=0.02)
SQRT = RuntimeLearningRate(scaling="sqrt", base_batch=4, warmup_steps=5)

CASES = {
    "even shares": (2, Case()),
    "uneven shares": (3, Case(batch=25)),
    "fewer samples than ranks": (4, Case(batch=3, steps=24)),
    "a share of one sample": (3, Case(batch=4, microbatches=4)),
    "uneven micro-batches": (2, Case(batch=22, microbatches=3)),
    "Adam": (3, Case(batch=25, optimizer="adam")),
    "clipping": (2, Case(clip=0.4, batch=23)),
    "schedule, Adam, clipping, micro-batches": (
        4, Case(scheduler=True, optimizer="adam", clip=0.7, microbatches=2, batch=26),
    ),
    "LAMB, sqrt scaling, warm-up": (3, Case(batch=25, named=LAMB, learning_rate=SQRT)),
    "LARS, schedule": (2, Case(batch=25, named=LARS, scheduler=True)),
    "LAMB, deterministic, clipping": (3, Case(batch=25, named=LAMB, deterministic=True, clip=0.5)),
    "sparse gradients": (3, Case(model="sparse", batch=25, optimizer="plain sgd")),
    "sparse gradients, clipping, micro-batches, fewer samples than ranks": (
        4, Case(model="sparse", batch=3, optimizer="plain sgd", clip=0.4, microbatches=2),
    ),
    "sparse gradients, weighted sums, deterministic": (
        3, Case(model="sparse", batch=25, optimizer="plain sgd", loss="weighted", deterministic=True),
    ),
    "weighted sums": (3, Case(loss="weighted", batch=25)),
    "weighted sums, micro-batches, fewer samples than ranks": (4, Case(loss="weighted", batch=3, microbatches=2)),
    "deterministic": (3, Case(batch=25, deterministic=True)),
    "deterministic, fewer samples than shards": (3, Case(batch=5, deterministic=True, clip=0.5)),
    "deterministic, more ranks than shards": (4, Case(batch=25, deterministic=True, virtual_shards=3)),
    "a look at gradients between steps": (2, Case(batch=25, clip=0.5, looks=True)),
    "a look at gradients between steps, deterministic": (2, Case(batch=25, deterministic=True, looks=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name: str) -> None:
    world, case = CASES[name]
    reference = by_torch(case)
    outcomes: list[Outcome] = together(by_drivetrain, world, case)
    for outcome in outcomes:
        assert outcome.distance(reference) <= 1e-5
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-5)
        if case.clip is None:
            assert outcome.norms == reference.norms
        else:
            assert outcome.norms == pytest.approx(reference.norms, rel=1e-4)
    assert len({outcome.sha256 for outcome in outcomes}) == 1


def without_an_agent(pipe: Pipe, case: Case) -> Outcome:
    """Ranks that somebody started by hand: one of them serves the store."""
    pipe.meet_at_rank_0()
    return by_drivetrain(pipe, case)


def test_ranks_meet_at_rank_0_where_there_is_no_agent() -> None:
    case = Case(steps=3)
    assert together(without_an_agent, 2, case)[1].distance(by_torch(case)) <= 1e-5


def test_alone_equals_plain_torch() -> None:
    case = Case(batch=25, clip=0.5, scheduler=True, optimizer="adam")
    assert together(by_drivetrain, 1, case)[0].distance(by_torch(case)) <= 1e-6


def test_unused_parameters_get_no_gradient_anywhere_or_the_sum() -> None:
    """One branch is used by some ranks in some steps, another never: weight decay must not touch the latter."""
    case = Case(model="unused", batch=6, steps=30, optimizer="adam")
    outcomes = together(by_drivetrain, 3, case)
    assert len({outcome.sha256 for outcome in outcomes}) == 1
    after, before = outcomes[0].after, outcomes[0].before
    assert torch.equal(after["never.weight"], before["never.weight"])
    assert not torch.equal(after["sometimes.weight"], before["sometimes.weight"])


def test_batch_norm_statistics_are_the_weighted_mean_of_the_shares() -> None:
    case = Case(model="norm", batch=25, steps=20)
    alone, outcomes = together(by_drivetrain, 1, case)[0], together(by_drivetrain, 3, case)
    assert len({outcome.sha256 for outcome in outcomes}) == 1
    found, whole = outcomes[0].after, alone.after
    assert int(found["norm.num_batches_tracked"]) == int(whole["norm.num_batches_tracked"]) == 20
    # The mean of shares' means, weighted by samples, is the mean of the whole: equal at the first step, close later
    # (each share normalises by its own statistics, which is what batch-norm under data parallelism is).
    assert together(by_drivetrain, 3, case.but(steps=1))[0].after["norm.running_mean"] == pytest.approx(
        together(by_drivetrain, 1, case.but(steps=1))[0].after["norm.running_mean"], abs=1e-6
    )
    assert (found["norm.running_mean"] - whole["norm.running_mean"]).abs().max() < 0.3


@pytest.mark.parametrize("batch", [2, 9])
def test_every_rank_returns_the_same_result(batch: int) -> None:
    """Also ranks that never had a sample, or no piece of the evaluation."""
    case = Case(loss="weighted", metrics=("a", "right"), batch=batch, steps=8, seed=5)
    outcomes = together(by_drivetrain, 4, case)
    first = outcomes[0]
    assert all(set(metrics) == {"a", "right"} for metrics in first.metrics)
    for outcome in outcomes[1:]:
        assert (outcome.losses, outcome.metrics) == (first.losses, first.metrics)
        assert outcome.evaluation == first.evaluation
    assert set(first.evaluation[1]) == {"right"}


@pytest.mark.parametrize(
    "case",
    [
        Case(model="all", batch=25, deterministic=True, clip=0.5, optimizer="adam", scheduler=True, steps=12),
        Case(model="rest", batch=5, deterministic=True, microbatches=2, loss="weighted", steps=12),
        Case(model="all", batch=25, deterministic=True, virtual_shards=3, steps=12),
        Case(model="sparse", batch=25, deterministic=True, optimizer="plain sgd", microbatches=2, clip=0.4, steps=12),
    ],
    ids=["all at once", "fewer samples than shards", "more ranks than shards", "sparse gradients"],
)
def test_deterministic_mode_is_bitwise_equal_in_every_world(case: Case) -> None:
    """Batch-norm, dropout, other buffers and unused parameters included; also with ranks that have no shard."""
    found = [together(by_drivetrain, world, case) for world in (1, 2, 3, 4)]
    assert len({outcome.sha256 for outcomes in found for outcome in outcomes}) == 1
    assert len({tuple(outcome.losses) for outcomes in found for outcome in outcomes}) == 1
    assert len({outcome.evaluation[0] for outcomes in found for outcome in outcomes}) == 1


def test_the_seed_matters() -> None:
    case = Case(deterministic=True, model="drop", steps=2)
    assert together(by_drivetrain, 1, case)[0].sha256 != together(by_drivetrain, 1, case.but(seed=4))[0].sha256
