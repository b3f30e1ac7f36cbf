"""Which nodes new workers prefer, and keep off, by what is known of the cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_api.node_match import requests
from drivetrain_api.power import DeviceReport, NodeReport
from drivetrain_energy.settings import Efficiency, Placement
from drivetrain_operator.energy.choice import Choice, Ground, Site, Wish, choose
from drivetrain_operator.energy.nodes import NodeView, node_view

GPU = "nvidia.com/gpu"
GREEN = Site("green", "SE", {"hall": "green"}, 30.0, "g/kWh", max_celsius=80.0)
GREY = Site("grey", "PL", {"hall": "grey"}, 600.0, "g/kWh", max_celsius=80.0)


def node(name: str, hall: str, gpus: int = 8, **fields: Any) -> NodeView:
    allocatable = {"cpu": 64.0, "pods": 110.0, GPU: float(gpus)}
    return replace(NodeView(name, {"hall": hall}, allocatable=allocatable), **fields)


def ground(*nodes: NodeView, **fields: Any) -> Ground:
    return replace(Ground(nodes, {}, {}, Placement()), **fields)


def wish(workers: int = 1, gpus: int = 4, **fields: Any) -> Wish:
    amounts = {"cpu": "1"} | ({GPU: str(gpus)} if gpus else {})
    pod = {"containers": [{"name": "worker", "resources": {"requests": amounts}}]} | fields.pop("pod", {})
    asks = tuple((name, float(amount)) for name, amount in requests(pod).items())
    base = Wish("uid", pod, asks, workers, GPU if gpus else "", sites=(GREEN, GREY))
    return replace(base, **fields)


def report(celsius: float, **fields: Any) -> NodeReport:
    return NodeReport(at=0, devices=(DeviceReport(uuid="u", least=100, most=400, celsius=celsius, **fields),))


def nodes_of(choice: Choice) -> list[str]:
    return [each.node for each in choice.prefers]


SE, PL = node("se", "green"), node("pl", "grey")
CASES = {
    # the ground, the wish, nodes that are preferred, nodes that are kept off
    "less carbon": (ground(PL, SE), wish(), ["se"], ()),
    "cordoned, or not ready": (ground(PL, replace(SE, open=False)), wish(), ["pl"], ()),
    "tainted": (ground(PL, replace(SE, taints=({"key": "k", "effect": "NoSchedule"},))), wish(), ["pl"], ()),
    "a taint that it tolerates": (
        ground(PL, replace(SE, taints=({"key": "k", "effect": "NoSchedule"},))),
        wish(pod={"tolerations": [{"operator": "Exists"}]}), ["se"], (),
    ),
    "not of its selector": (ground(PL, SE), wish(pod={"nodeSelector": {"hall": "grey"}}), ["pl"], ()),
    "not of its zone": (ground(PL, SE), wish(zone="PL"), ["pl"], ()),
    "a zone that is nowhere": (ground(PL, SE), wish(zone="FR"), ["se"], ()),
    "full": (ground(PL, SE, used={"se": {GPU: 5.0}}), wish(), ["pl"], ()),
    "no processor left": (ground(PL, SE, used={"se": {"cpu": 63.5}}), wish(), ["pl"], ()),
    "hot": (ground(PL, SE, reports={"se": report(80)}), wish(), ["pl"], ("se",)),
    "hot until a moment ago": (
        ground(PL, SE, reports={"se": report(77)}, hot=frozenset({"se"})), wish(), ["pl"], ("se",),
    ),
    "warm": (ground(PL, SE, reports={"se": report(79)}), wish(), ["se"], ()),
    "slowed, of two alike": (
        ground(SE, node("se2", "green"), reports={"se": report(50, slowed=True)}), wish(), ["se2"], ("se",),
    ),
    "a power cap is somebody's wish, and no fault of the node": (
        ground(SE, node("se2", "green"), reports={"se": report(50, cap=200)}), wish(), ["se"], (),
    ),
    "a limit for all": (
        ground(PL, SE, reports={"se": report(70)}, settings=Placement(max_temperature_c=65)), wish(), ["pl"], ("se",),
    ),
    "nothing known of heat without a limit": (
        ground(PL, SE, reports={"se": report(99)}), wish(sites=(replace(GREEN, max_celsius=None), GREY)), ["se"], (),
    ),
    "less energy for the same work": (
        ground(
            replace(SE, labels={"hall": "green", "card": "old"}), node("se2", "green"),
            settings=Placement(efficiency=(Efficiency(node_selector={"card": "old"}, energy=1.5),)),
        ),
        wish(), ["se2"], (),
    ),
    "nobody knows what it costs": (
        ground(PL, SE), wish(sites=(replace(GREEN, cost=None), replace(GREY, cost=None))), ["pl"], (),
    ),
    "all of it at one place, on two nodes": (
        ground(PL, SE, node("se2", "green"), node("se3", "green")), wish(2), ["se", "se2"], (),
    ),
    "beside those that run": (
        ground(*(node(f"n{i}", "green", labels={"hall": "green", "topology.kubernetes.io/zone": f"z{i % 2}"})
                 for i in range(6))),
        wish(beside=("n3",)), ["n1"], (),
    ),
    "without GPUs": (ground(PL, SE), wish(3, gpus=0), ["se", "se", "se"], ()),
    "no more than have room": (ground(PL, SE), wish(4), ["pl", "pl", "se", "se"], ()),
}  # fmt: skip


@pytest.mark.parametrize(("around", "of", "nodes", "avoid"), CASES.values(), ids=CASES)
def test_what_is_preferred(around: Ground, of: Wish, nodes: list[str], avoid: tuple[str, ...]) -> None:
    found = choose(around, of)
    assert nodes_of(found) == nodes
    assert {each.avoid for each in found.prefers} == {avoid}
    assert choose(replace(around, nodes=around.nodes[::-1]), of) == found, "the same, in whatever order"


def test_where_not_all_have_room_they_prefer_a_place_and_no_node() -> None:
    found = choose(ground(PL, SE), wish(5))
    assert nodes_of(found) == [""] * 5
    assert {each.labels for each in found.prefers} == {(("hall", "green"),)}
    assert found.why == "prefer green (SE, 30 g/kWh), where not all of them have room now; elsewhere 600"


def test_where_nothing_is_known_nothing_is_preferred() -> None:
    assert choose(ground(), wish()) == Choice()
    assert choose(ground(node("a", "none")), wish(9, sites=())) == Choice()


def test_what_is_said() -> None:
    hot = [node(f"hot{i}", "grey") for i in range(5)]
    around = ground(SE, PL, *hot, reports={each.name: report(91) for each in hot})
    assert choose(around, wish()).why == (
        "prefer se in green (SE, 30 g/kWh); elsewhere 600; keep off hot0 (91 °C), hot1 (91 °C), hot2 (91 °C) and 2 more"
    )


def test_a_large_job_in_a_large_cluster_is_placed_by_several_at_once() -> None:
    around = ground(*(node(f"n{i:04}", "green" if i % 10 == 0 else "grey") for i in range(5000)))
    found = choose(around, wish(100, gpus=4))
    assert len(found.prefers) == 100
    assert {each.labels for each in found.prefers} == {(("hall", "green"),)}


def test_a_node_as_the_api_server_has_it() -> None:
    body: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"k": "v"}},
        "spec": {"taints": [{"key": "t", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "1500m", "memory": "1Gi", GPU: "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    allocatable = {"cpu": 1.5, "memory": float(1 << 30), GPU: 8.0}
    assert node_view(body) == NodeView("a", {"k": "v"}, (body["spec"]["taints"][0],), allocatable)
    assert not node_view({**body, "spec": {"unschedulable": True}}).open
    assert not node_view({**body, "status": {}}).open


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Ground, Wish]:
    labels = st.fixed_dictionaries({"hall": st.sampled_from(["green", "grey", "none"]), "rack": st.sampled_from("ab")})
    nodes = [
        node(f"n{index}", "", draw(st.integers(0, 8)), labels=draw(labels), open=draw(st.booleans()))
        for index in range(draw(st.integers(0, 8)))
    ]
    reports = {each.name: report(draw(st.floats(20, 100)), slowed=draw(st.booleans())) for each in nodes}
    used = {each.name: {GPU: float(draw(st.integers(0, 8)))} for each in nodes}
    pod = draw(st.sampled_from([{}, {"nodeSelector": {"rack": "a"}}]))
    of = wish(draw(st.integers(1, 6)), draw(st.integers(0, 8)), pod=pod, uid=draw(st.text(max_size=3)))
    return ground(*nodes, reports=reports, used=used, settings=Placement(topology_key="rack")), of


@given(clusters())
def test_only_nodes_that_have_room_are_preferred_and_no_hot_ones(world: tuple[Ground, Wish]) -> None:
    around, of = world
    found = choose(around, of)
    assert len(found.prefers) in (0, of.workers)
    assert choose(replace(around, nodes=around.nodes[::-1]), of) == found
    wanted = [name for name in nodes_of(found) if name]
    assert len(wanted) in (0, of.workers)
    gpus = int(dict(of.asks).get(GPU, 0))
    for view in around.nodes:
        if view.name not in wanted:
            continue
        assert view.open
        assert of.pod.get("nodeSelector", {}).items() <= view.labels.items()
        if gpus:
            assert wanted.count(view.name) * gpus <= view.allocatable[GPU] - around.used[view.name][GPU]
        celsius = around.reports[view.name].devices[0].celsius
        limit = {"green": 80, "grey": 80}.get(view.labels["hall"])
        assert limit is None or celsius is None or celsius < limit


@pytest.mark.parametrize("what", ["values", "terms", "tolerations"])
def test_a_pod_that_says_a_hundred_thousand_things_of_nodes_is_not_steered(what: str) -> None:
    """One of a megabyte took ten seconds of a thousand nodes, in which nobody else was steered."""
    in_hall = {
        "key": "hall",
        "operator": "In",
        "values": ["green", *map(str, range(100_000 if what == "values" else 0))],
    }
    terms = [{"matchExpressions": [in_hall]}] * (50_000 if what == "terms" else 1)
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    tolerations = [{"key": str(n), "operator": "Exists"} for n in range(50_000 if what == "tolerations" else 1)]
    many = ground(*(node(f"n{n}", "green") for n in range(1000)))
    pod = {"affinity": {"nodeAffinity": required}, "tolerations": tolerations}
    assert choose(many, wish(pod=pod)) == Choice()
    few = pod | {
        "tolerations": [],
        "affinity": {
            "nodeAffinity": {
                next(iter(required)): {"nodeSelectorTerms": [{"matchExpressions": [in_hall | {"values": ["green"]}]}]}
            }
        },
    }
    assert choose(many, wish(pod=few)).prefers
