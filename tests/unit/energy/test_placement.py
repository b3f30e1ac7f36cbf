"""Gangs on nodes: feasible, never worse than greedy, the same for the same seed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivetrain_energy.job.curve import Point
from drivetrain_energy.power.placement import Gang, Node, feasible, greedy, place, score


def gang(name: str, workers: int = 1, devices: int = 4, weight: float = 1.0) -> Gang:
    watts = workers * devices
    points = (
        Point(workers, 0.78, watts * 195, 200),
        Point(workers, 0.94, watts * 287, 300),
        Point(workers, 1, watts * 350),
    )
    return Gang(name, workers, devices, points, weight)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Node], list[Gang], float | None]:
    nodes = [
        Node(
            f"n{index}",
            draw(st.integers(0, 8)),
            draw(st.floats(0.1, 5)),
            draw(st.floats(0.8, 1.5)),
            draw(st.sampled_from(["r1", "r2"])),
            draw(st.floats(-5, 30)),
            draw(st.booleans()),
        )
        for index in range(draw(st.integers(1, 6)))
    ]
    names = st.lists(st.sampled_from([node.name for node in nodes]), max_size=3).map(tuple)
    gangs = [
        replace(
            gang(f"g{index}", draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.floats(0.1, 3))),
            beside=draw(names),
        )
        for index in range(draw(st.integers(0, 5)))
    ]
    return nodes, gangs, draw(st.one_of(st.none(), st.floats(0, 10_000)))


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(0, 3))
def test_feasible_never_worse_than_greedy_and_the_same_by_seed(
    world: tuple[list[Node], list[Gang], float | None], seed: int
) -> None:
    nodes, gangs, watts = world
    start = greedy(nodes, gangs, watts)
    found = place(nodes, gangs, watts, seed, moves=200)
    assert feasible(nodes, gangs, watts, start)
    assert feasible(nodes, gangs, watts, found)
    assert found.keys() == start.keys()
    assert all(len(placed.nodes) == next(g for g in gangs if g.name == name).workers for name, placed in found.items())
    assert score(nodes, gangs, found) <= score(nodes, gangs, start) + 1e-12
    assert place(nodes[::-1], gangs[::-1], watts, seed, moves=200) == found


CASES = {
    # what is better about b
    "less carbon in its zone": {"intensity": 0.5},
    "less energy for the same work": {"energy": 0.8},
    "cooler": {"headroom": 30.0},
    "not throttled": {"throttled": False},
}


@pytest.mark.parametrize("better", CASES.values(), ids=CASES)
def test_goes_where_it_is_better(better: dict[str, float]) -> None:
    bad = Node("a", 4, headroom=3.0, throttled=True)
    found = place([bad, replace(bad, name="b", **better)], [gang("g")], None, 0)  # type: ignore[arg-type]
    assert found["g"].nodes == ("b",)


def test_a_gang_stays_together() -> None:
    nodes = [Node("a", 4, rack="1"), Node("b", 4, rack="2"), Node("c", 4, rack="1")]
    assert place(nodes, [gang("g", 2)], None, 0)["g"].nodes == ("a", "c")


def test_who_comes_later_goes_to_those_that_run() -> None:
    nodes = [Node("a", 4, rack="1"), Node("b", 4, rack="2"), Node("c", 0, rack="2")]
    assert place(nodes, [replace(gang("g"), beside=("c",))], None, 0)["g"].nodes == ("b",)


def test_not_all_of_a_gang_is_on_one_node_where_another_is_as_good() -> None:
    nodes = [Node("a", 8), Node("b", 8)]
    assert place(nodes, [gang("g", 2)], None, 0)["g"].nodes == ("a", "b")
    assert place([nodes[0], replace(nodes[1], intensity=1.2)], [gang("g", 2)], None, 0)["g"].nodes == ("a", "a")
    assert place(nodes, [replace(gang("g", 1), beside=("a",))], None, 0)["g"].nodes == ("b",)


def test_small_ones_do_not_break_two_nodes() -> None:
    found = place([Node("a", 8), Node("b", 8)], [gang("g"), gang("h")], None, 0)
    assert found["g"].nodes == found["h"].nodes


def test_nothing_new_goes_to_a_node_at_its_limit_and_a_gang_that_does_not_fit_waits() -> None:
    nodes = [Node("a", 8, headroom=0.0), Node("b", 4)]
    assert set(place(nodes, [gang("g"), gang("h")], None, 0)) == {"g"}


def test_annealing_finds_what_greedy_does_not() -> None:
    """The large one takes the green node by size; the heavy small one makes more of it."""
    nodes = [Node("green", 4, 0.2), Node("grey", 4, 1.0)]
    gangs = [gang("a", devices=4, weight=0.1), gang("b", devices=3, weight=3.0)]
    assert greedy(nodes, gangs, None)["b"].nodes == ("grey",)
    found = place(nodes, gangs, None, 0)
    assert found["b"].nodes == ("green",)
    assert found["a"].nodes == ("grey",)
