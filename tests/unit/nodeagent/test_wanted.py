"""Whose card gets which limit, and what is understood of what the operator writes."""

import pytest

from drivetrain_api.power import NodeCaps
from drivetrain_nodeagent.channel import parsed
from drivetrain_nodeagent.wanted import pod_of, wanted

A, B = "0a0a0a0a-1111-2222-3333-444444444444", "0b0b0b0b-1111-2222-3333-444444444444"

CASES = {
    # name: (caps by pod, pods on the card, limit)
    "its pod's": ({A: 250.0}, {A}, 250),
    "another pod's": ({A: 250.0}, {B}, None),
    "nobody's process": ({A: 250.0}, set(), None),
    "shared: the highest": ({A: 250.0, B: 300.0}, {A, B}, 300),
    "shared with one that has none": ({A: 250.0}, {A, B}, None),
    "shared with a process of no pod": ({A: 250.0}, {A, None}, None),
}


@pytest.mark.parametrize(("pods", "on", "limit"), CASES.values(), ids=CASES)
def test_a_card(pods: dict[str, float], on: set[str | None], limit: float | None) -> None:
    found = wanted(NodeCaps(until=1000, pods=pods), 500, 600, {"card": frozenset(on)})
    assert found.get("card") == limit


@pytest.mark.parametrize(
    ("until", "told", "now", "holds"), [(1000, 0, 999, 1), (1000, 0, 1001, 0), (9e9, 0, 3599, 1), (9e9, 0, 3601, 0)]
)
def test_caps_end_by_themselves(until: float, told: float, now: float, holds: int) -> None:
    assert len(wanted(NodeCaps(until=until, pods={A: 250}), told, now, {"card": frozenset({A})})) == holds


def test_nothing_said() -> None:
    assert wanted(None, 0, 0, {"card": frozenset({A})}) == {}


UNDERSCORED = A.replace("-", "_")
CGROUPS = {
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/cri-abc.scope": A,
    f"0::/kubepods/burstable/pod{A}/abc": A,
    f"12:memory:/kubepods/pod{A}/abc\n11:cpu:/kubepods/pod{A}/abc\n": A,
    f"0::/../../kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-abc.scope": A,
    "0::/user.slice/user-0.slice/session-1.scope": None,
    "": None,
}


@pytest.mark.parametrize(("cgroup", "pod"), CGROUPS.items())
def test_whose_process_it_is(cgroup: str, pod: str | None) -> None:
    assert pod_of(cgroup) == pod


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "[]",
        "{}",
        '{"until": "soon"}',
        '{"until": 1, "pods": {"a": -1}}',
        '{"until": 1, "pods": {"a": NaN}}',
        '{"until": Infinity}',
    ],
)
def test_what_cannot_be_understood_is_no_caps(text: str | None) -> None:
    assert parsed(text) is None


def test_what_a_newer_operator_adds_is_passed_over() -> None:
    assert parsed(f'{{"until": 1, "pods": {{"{A}": 250}}, "more": 1}}') == NodeCaps(until=1, pods={A: 250})
