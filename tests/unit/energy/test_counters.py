"""What did each pod draw, by samples of counters?"""

from __future__ import annotations

import pytest

from drivetrain_energy.accounts.counters import Gathered, Sample, Stretch, complete_until, drawn, stretches

MINE = frozenset({"ns/a"})


def sample(at: float, joules: float, *holders: str) -> Sample:
    return Sample(at, joules, frozenset(f"ns/{each}" for each in holders))


@pytest.mark.parametrize(
    ("what", "samples", "joules", "refused"),
    [
        ("nothing", [], 0, 0),
        ("one sample tells nothing", [sample(0, 500, "a")], 0, 0),
        ("what has risen", [sample(0, 500, "a"), sample(10, 1500, "a"), sample(20, 4500, "a")], 4000, 0),
        ("in any order", [sample(20, 4500, "a"), sample(0, 500, "a"), sample(10, 1500, "a")], 4000, 0),
        ("over a gap", [sample(0, 500, "a"), sample(7200, 720_500, "a")], 720_000, 0),
        ("a counter that began anew", [sample(0, 9000, "a"), sample(10, 9500, "a"), sample(20, 700, "a")], 1200, 0),
        ("that did so in a long gap", [sample(0, 9e5, "a"), sample(3600, 2000, "a")], 2000, 0),
        ("one that jumps", [sample(0, 0, "a"), sample(10, 1e15, "a"), sample(20, 1e15 + 600, "a")], 600, 1),
        ("that jumps down to what cannot be", [sample(0, 9e14, "a"), sample(60, 8e14, "a")], 0, 1),
        ("two scrapes that overtook each other", [sample(0, 9000, "a"), sample(15, 9900, "a"), sample(15.1, 9800, "a"),
                                                  sample(30, 10_000, "a")], 1000, 0),
        ("one sample that is too low", [sample(0, 9000, "a"), sample(15, 0, "a"), sample(30, 9900, "a")], 900, 1),
        ("one that is too high", [sample(0, 9000, "a"), sample(15, 1e300, "a"), sample(30, 9900, "a")], 900, 1),
        ("every second one is somebody else's", [sample(n * 15.0, 9000 + n * 15.0 if n % 2 == 0 else 7.0 * n, "a")
                                                 for n in range(11)], 150, 5),
        ("another one's", [sample(0, 0, "b"), sample(10, 1000, "b")], 0, 0),
        ("nobody's", [sample(0, 0), sample(10, 1000)], 0, 0),
        ("shared by two", [sample(0, 0, "a", "b"), sample(10, 1000, "a", "b")], 500, 0),
        ("and one that leaves", [sample(0, 0, "a", "b"), sample(10, 1000, "a"), sample(20, 2000, "a")], 1750, 0),
        ("told once for each, at one time", [sample(0, 0, "a"), sample(0, 0, "b"), sample(10, 1000, "a"),
                                              sample(10, 1000, "b")], 500, 0),
        ("that came between two samples", [sample(0, 0), sample(10, 1000, "a"), sample(20, 2000, "a")], 1500, 0),
        ("that followed another one", [sample(0, 0, "b"), sample(10, 1000, "a"), sample(20, 2000, "a")], 1500, 0),
        ("that was last seen an hour ago", [sample(0, 0, "a"), sample(3600, 360_000)], 6000, 0),
    ],
)  # fmt: skip
def test_what_is_a_pods(what: str, samples: list[Sample], joules: float, refused: int) -> None:
    found, wrong = stretches(samples, MINE, "gpu", 5e3)
    assert sum(each.joules for each in found) == pytest.approx(joules)
    assert len(wrong) == refused
    assert all(each.end > each.start for each in found)


def test_all_holders_of_a_device_have_it_once() -> None:
    samples = [sample(n * 15.0, n * 3000.0, *{0: "ab", 1: "b", 2: "bc"}[n % 3]) for n in range(60)]
    whole = sum(sum(x.joules for x in stretches(samples, frozenset({f"ns/{pod}"}), "gpu", 5e3)[0]) for pod in "abc")
    assert whole == pytest.approx(59 * 3000)


def gathered(since: float, *found: list[Stretch]) -> Gathered:
    of = Gathered(since)
    for each in found:
        of.add(each)
    return of


def test_two_looks_add_up_to_one_wherever_they_meet() -> None:
    samples = [sample(n * 15.0 + 4, n * 3000.0 % 60_000, "a") for n in range(100)]
    whole = drawn(gathered(100, stretches(samples, MINE, "gpu", 5e3)[0]).buckets(1320), 100, 1300).joules["gpu"]
    for middle in (120.0, 121.5, 607.0, 1299.9):
        first, _ = stretches([each for each in samples if each.at < middle + 60], MINE, "gpu", 5e3)
        second, _ = stretches([each for each in samples if each.at > middle - 120], MINE, "gpu", 5e3)
        parts = [
            drawn(gathered(100, first).buckets(middle + 30), 100, middle),
            drawn(gathered(middle, second).buckets(1320), middle, 1300),
        ]
        assert sum(each.joules.get("gpu", 0.0) for each in parts) == pytest.approx(whole)


def test_what_is_refused_counts_once_wherever_two_looks_meet() -> None:
    samples = [sample(n * 15.0 + 4, n * 3000.0 + (1e12 if n == 40 else 0), "a") for n in range(100)]
    for middle in (580.0, 599.9, 604.0, 607.0, 615.0, 620.0, 700.0, 890.0):
        looks = []
        for since, until, of in ((100.0, middle, [x for x in samples if x.at < middle + 60]),
                                 (middle, 1300.0, [x for x in samples if x.at > middle - 300])):  # fmt: skip
            found, refused = stretches(of, MINE, "gpu", 5e3)
            known = gathered(since, found)
            known.refuse(refused)
            looks.append(drawn(known.buckets(until + 30), since, until).refused)
        assert sum(looks) == 1, f"looks meet at {middle}"


def test_a_time_of_which_all_is_refused_says_so() -> None:
    known = Gathered(0)
    known.refuse([100.0, 110.0])
    assert drawn(known.buckets(300), 0, 300).refused == 2
    assert drawn(known.buckets(300), 0, 300).joules == {}


def test_a_pod_with_two_counters_is_measured_once() -> None:
    known = gathered(
        0,
        [Stretch(0, 60, 600, "cpu", "ns/a")],
        [Stretch(30, 90, 60, "dram", "ns/a")],
        [Stretch(0, 90, 9, "cpu", "ns/b")],
    )
    assert drawn(known.buckets(120), 0, 100).pod_seconds == pytest.approx(180)
    assert drawn(known.buckets(120), 0, 100).joules == pytest.approx({"cpu": 609, "dram": 60})


def test_what_is_kept_of_thousands_of_pods_is_as_much_as_of_one() -> None:
    samples = [sample(n * 15.0, n * 3000.0, "a") for n in range(100)]
    found, _ = stretches(samples, MINE, "gpu", 5e3)
    known = gathered(300, *([Stretch(s.start, s.end, s.joules, "gpu", f"ns/{n}") for s in found] for n in range(50)))
    buckets = known.buckets(1485)
    assert len(buckets) == (1470 - 300) / 30
    assert drawn(buckets, 300, 1470).joules["gpu"] == pytest.approx(50 * 200 * 1170)
    assert drawn(buckets, 300, 1470).pod_seconds == pytest.approx(50 * 1170)


@pytest.mark.parametrize(
    ("what", "last", "until"),
    [
        ("no counter", [], 100),
        ("the one that is behind", [500, 485, 490], 480),
        ("without one that has ended", [515, 150, 511], 510),
        ("none is news", [90, 95], 100),
    ],
)
def test_up_to_where_it_is_complete(what: str, last: list[float], until: float) -> None:
    assert complete_until(last, 100, 300) == until
