"""Who holds the others up? On simulated ranks that train in step, through the coordinator's own machine."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

import pytest

from drivetrain_api.bounds import MAX_SECONDS
from drivetrain_api.holdup import HoldUp, Stage, StageTimes
from drivetrain_coordinator.membership import lateness
from drivetrain_coordinator.membership.holdup import sentence
from drivetrain_coordinator.membership.lateness import Interval, Late, Rank
from unit.coordinator.bench import Bench
from unit.coordinator.synchronous import BASE, Ranks

STEP = sum(BASE.values()) + 0.008
"""Seconds."""
DELAYED = (Stage.DATA, Stage.FORWARD, Stage.BACKWARD, Stage.EXCHANGE, Stage.UPDATE)


def found(ranks: Ranks, seconds: float = 20.0, least: float = lateness.BEGINS) -> Late | None:
    """What one look says after so long."""
    told: list[list[StageTimes]] = [[] for _ in range(ranks.world)]
    for _ in ranks.until(seconds, 1.0):
        for rank, each in enumerate(told):
            each.append(ranks.told(rank))
    return lateness.find([Rank(rank, lateness.intervals_of(each)) for rank, each in enumerate(told)], least)


def hidden() -> Iterator[tuple[int, int, Stage, float]]:
    """50 delays: world, rank, stage, part of a step."""
    choose = random.Random(7)
    for number in range(50):
        world = 2 + number % 7
        yield world, choose.randrange(world), DELAYED[number % len(DELAYED)], choose.uniform(0.15, 1.0)


def test_fifty_hidden_delays() -> None:
    first = among_two = stage_right = 0
    wrong = []
    for number, (world, rank, stage, part) in enumerate(hidden()):
        late = found(Ranks(world, {(rank, stage): part * STEP}, seed=number))
        first += late is not None and late.rank == rank
        among_two += late is not None and rank in late.ranks[:2]
        stage_right += late is not None and late.stages == (stage,)
        if late is None or (late.rank, late.stages) != (rank, (stage,)):
            wrong.append((world, rank, stage, part, late))
    assert first >= 48, wrong
    assert among_two == 50, wrong
    assert stage_right >= 45, wrong


CLEAN = [
    ("two ranks", Ranks(2)),
    ("three ranks", Ranks(3)),
    ("eight ranks", Ranks(8)),
    ("noisy machines", Ranks(8, noise=0.2, hiccups=0.05)),
    ("machines that differ a little", Ranks(8, machines=0.02)),
    ("steps of a few ms", Ranks(4, scale=0.03, noise=0.2)),
    ("steps of seconds", Ranks(4, scale=30)),
    ("one has fewer samples", Ranks(3, shares=(8, 8, 7))),
    ("one has half of the samples", Ranks(3, shares=(8, 8, 4))),
    ("one has more samples", Ranks(4, shares=(8, 4, 4, 4))),
]


@pytest.mark.parametrize(("name", "ranks"), CLEAN, ids=[name for name, _ in CLEAN])
def test_nothing_is_said_of_ranks_that_are_alike(name: str, ranks: Ranks) -> None:
    for _ in range(3):
        assert found(ranks, 20 * max(1.0, ranks.scale)) is None


def test_a_late_one_with_a_smaller_share_is_late() -> None:
    late = found(Ranks(3, {(2, Stage.FORWARD): 0.08}, shares=(8, 8, 7)))
    assert late is not None
    assert (late.rank, late.stages) == (2, (Stage.FORWARD,))


def test_two_that_are_alike_are_ambiguous() -> None:
    late = found(Ranks(5, {(1, Stage.DATA): 0.04, (3, Stage.DATA): 0.04}))
    assert late is not None
    assert sorted(late.ranks) == [1, 3]


def test_a_slower_machine_is_late_in_several_stages() -> None:
    late = found(Ranks(4, {(1, Stage.FORWARD): 0.02, (1, Stage.BACKWARD): 0.04}))
    assert late is not None
    assert (late.rank, late.stages) == (1, (Stage.BACKWARD, Stage.FORWARD))


def test_work_that_delays_nobody_is_not_late() -> None:
    """All wait for the network: a rank that works longer meanwhile costs nothing."""
    told = []
    for own, waited in ((0.05, 0.05), (0.05, 0.05), (0.08, 0.05)):
        before, after = (
            StageTimes(steps=n, seconds={"forward": n * own}, waited=n * waited, samples=8 * n) for n in (0, 10)
        )
        told.append([lateness.Interval.between(before, after)] * 10)
    assert lateness.find([Rank(rank, each) for rank, each in enumerate(told)]) is None


def test_stages_of_a_pipeline_are_compared_with_their_like() -> None:
    """Ranks 0 and 2 have the heavy part of the model."""
    heavy = {(0, Stage.FORWARD): 0.05, (2, Stage.FORWARD): 0.05}

    def look(ranks: Ranks, parts: tuple[int, ...]) -> Late | None:
        told: list[list[StageTimes]] = [[] for _ in parts]
        for _ in ranks.until(20, 1.0):
            for rank, each in enumerate(told):
                each.append(ranks.told(rank))
        return lateness.find([Rank(rank, lateness.intervals_of(each), parts[rank]) for rank, each in enumerate(told)])

    assert look(Ranks(4, heavy), (0, 1, 0, 1)) is None
    late = look(Ranks(4, heavy | {(2, Stage.BACKWARD): 0.03}), (0, 1, 0, 1))
    assert late is not None
    assert (late.rank, late.stages) == (2, (Stage.BACKWARD,))


def test_a_pipeline_without_its_like_may_be_cut_unevenly() -> None:
    told: dict[float, list[list[StageTimes]]] = {part: [[], []] for part in (0.15, 0.5)}
    late: dict[float, Late | None] = {}
    for part, each in told.items():
        ranks = Ranks(2, {(1, Stage.FORWARD): part * STEP})
        for _ in ranks.until(20, 1.0):
            for rank in range(2):
                each[rank].append(ranks.told(rank))
        late[part] = lateness.find([Rank(rank, lateness.intervals_of(said), rank) for rank, said in enumerate(each)])
    assert late[0.15] is None
    found = late[0.5]
    assert found is not None
    assert (found.rank, found.unlike) == (1, True)
    assert "may be cut unevenly" in sentence(found, ["a", "b"])


# --- as it is told --------------------------------------------------------------------------------------------------


def train(bench: Bench, ranks: Ranks, seconds: float, *, telling: bool = True) -> list[HoldUp | None]:
    """Launchers say each half second what their ranks tell; returns all that was reported, each change once."""
    names = [f"{letter}1" for letter in string.ascii_lowercase[: ranks.world]]
    began, said = bench.now - ranks.now, list[HoldUp | None]()
    for now in ranks.until(seconds, 0.5):
        bench.now = began + now
        for rank, name in enumerate(names):
            stages = ranks.told(rank) if telling else None
            bench.change(name, stages=stages, step=ranks.steps)
        report = bench.machine.report(1).holdup
        if not said or said[-1] != report:
            said.append(report)
    return said


def bench_of(world: int) -> Bench:
    bench = Bench()
    bench.train(*(f"{letter}1" for letter in string.ascii_lowercase[:world]))
    return bench


def test_it_begins_and_ends() -> None:
    bench, ranks = bench_of(4), Ranks(4)
    assert train(bench, ranks, 30) == [None]
    ranks.delays = {(2, Stage.DATA): 0.04}
    nobody, begun, *_ = train(bench, ranks, 30)
    assert nobody is None
    assert begun is not None
    assert (begun.rank, begun.pod_uid, begun.stage, begun.late) == (2, "c", "data", [2])
    ranks.delays = {}
    assert train(bench, ranks, 60)[-1] is None


def test_the_sentence() -> None:
    bench = bench_of(3)
    said = train(bench, Ranks(3, {(1, Stage.FORWARD): 0.1}, noise=0, machines=0, hiccups=0), 30)
    assert said[-1] is not None
    assert said[-1].message == (
        "rank 1 (b) takes 100 ms longer for each step than the others, in forward: they wait 55% of the time"
    )


def test_it_is_told_seldom() -> None:
    """At the border, and as its size varies: each change is a write of status."""
    for part in (0.07, 0.1, 0.12, 0.5):
        said = train(bench_of(4), Ranks(4, {(1, Stage.FORWARD): part * STEP}, noise=0.1), 300)
        assert len(said) <= 3, (part, said)


def test_nothing_is_said_where_nothing_is_told() -> None:
    late = Ranks(2, {(1, Stage.DATA): 0.1})
    assert train(bench_of(2), late, 30, telling=False) == [None]


def test_of_ranks_that_lie_something_is_said_that_can_be() -> None:
    """A message of a launcher must not end the coordinator."""
    idle = [Rank(rank, [Interval({}, 0.0, 0.0, 1.0)] * 9, 1) for rank in (2, 3, 4)]
    found = lateness.find(
        [
            Rank(0, [Interval({"data": 1.0}, 1.0, 0.0, 1.0)] * 9),
            Rank(1, [Interval({}, 0.0, 1.0, 1.0)] * 9),
            *idle,
        ]
    )
    assert found is not None
    assert (found.rank, found.share) == (0, 1.0)
    works = [Interval({"data": 1e9, "forward": 1e9}, 2e9, 0.0, 1.0)] * 9  # of two steps that go back and forth
    found = lateness.find([Rank(0, works), Rank(1, [Interval({}, 0.0, 1e9, 1.0)] * 9)])
    assert found is not None
    assert HoldUp(rank=0, process="", pod_uid="", slower_by=found.seconds, message="").slower_by == MAX_SECONDS
