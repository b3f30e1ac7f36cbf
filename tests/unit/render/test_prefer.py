"""Where workers had better run, behind what their template says of nodes."""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_operator.plan.effects import CreateWorker, Preference
from drivetrain_operator.render import names
from drivetrain_operator.render.platform import Platform
from drivetrain_operator.render.pod import worker_pod
from unit.plan.builders import JOB, UID, job, spec, started

NAME = names.worker(JOB, names.suffix(UID), 0, 0)
THERE = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
OFF = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in ("x", "y")]}
HALL = {"matchExpressions": [{"key": "hall", "operator": "In", "values": ["1"]}]}
ALL = Preference("a", (("hall", "1"),), ("x", "y"))


def pod(prefers: Preference | None, affinity: dict[str, Any] | None = None) -> dict[str, Any]:
    of = spec(podTemplate={"spec": {"affinity": affinity}} if affinity else {})
    made = worker_pod(job(of, started(of)), CreateWorker(NAME, 0, 0, 0, prefers), Platform("op", "https://r:1"))
    found: dict[str, Any] = made["spec"]
    return found


def own(*weights: int) -> dict[str, Any]:
    terms = [{"weight": weight, "preference": {"matchExpressions": []}} for weight in weights]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}


def preferred(spec: dict[str, Any]) -> list[tuple[int, Any]]:
    terms = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    return [(term["weight"], term["preference"]) for term in terms]


CASES = {
    # what it prefers, its template's own weights, ours
    "all of it": (ALL, (), [(50, THERE), (25, OFF), (25, HALL)]),
    "only hot nodes": (Preference(avoid=("x", "y")), (), [(100, OFF)]),
    "only a place": (Preference(labels=(("hall", "1"),), weight=10), (), [(10, HALL)]),
    "all of ours is less than each of its own": (ALL, (80, 41), [(20, THERE), (10, OFF), (10, HALL)]),
    "the most important, where little is left": (ALL, (2,), [(1, THERE)]),
}


@pytest.mark.parametrize(("prefers", "weights", "ours"), CASES.values(), ids=CASES)
def test_ours_stand_behind_those_of_the_template(
    prefers: Preference, weights: tuple[int, ...], ours: list[tuple[int, Any]]
) -> None:
    found = preferred(pod(prefers, own(*weights) if weights else None))
    assert [weight for weight, _ in found[: len(weights)]] == list(weights)
    assert found[len(weights) :] == ours


def test_nothing_is_added_beside_a_1_and_what_is_required_stays() -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [HALL]}}
    affinity = {"nodeAffinity": {**own(1)["nodeAffinity"], **required}, "podAffinity": {}}
    assert pod(ALL, affinity)["affinity"] == affinity
    affinity = {"nodeAffinity": required, "podAffinity": {}}
    found = pod(ALL, affinity)["affinity"]
    assert found["nodeAffinity"].items() >= required.items()
    assert found["podAffinity"] == {}


def test_our_own_spreading_gives_way_to_a_node_and_to_nothing_else() -> None:
    assert "affinity" not in pod(None)
    assert len(pod(None)["topologySpreadConstraints"]) == 1
    assert len(pod(Preference(avoid=("x",)))["topologySpreadConstraints"]) == 1
    assert "topologySpreadConstraints" not in pod(ALL)
