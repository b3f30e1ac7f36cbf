"""Objects nested so deep that a parser gives up: one of them costs nobody else anything."""

from __future__ import annotations

import json

import pytest

from drivetrain_operator.kube.depth import DEEPEST, loads, shallow
from drivetrain_operator.kube.watch import parse
from drivetrain_operator.plan.observe import job_view


def nested(levels: int, *, lists: bool = False) -> str:
    opening, closing = ("[", "]") if lists else ('{"a":', "}")
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 600, 1_000, 10_000])
def test_what_is_too_deep_is_cut_off_and_the_rest_stays(levels: int, lists: bool) -> None:
    text = f'{{"items":[{{"name":"a","x":{nested(levels, lists=lists)}}},{{"name":"b \\" [{{"}}]}}'.encode()
    found = json.loads(shallow(text))
    assert [each["name"] for each in found["items"]] == ["a", 'b " [{']
    depth, value = 3, found["items"][0]["x"]
    while value is not None:
        value = value[0] if lists else value["a"]
        depth += 1
    assert depth == DEEPEST


@pytest.mark.parametrize("levels", [10, 400, 5_000])
def test_an_event_with_it_is_an_event(levels: int) -> None:
    metadata = '{"name":"a","uid":"u","resourceVersion":"7"}'
    line = f'{{"type":"ADDED","object":{{"metadata":{metadata},"spec":{nested(levels)}}}}}'.encode()
    assert parse(line).resource_version == "7"


@pytest.mark.parametrize("text", [b"", b"{", b"[1,", b'{"a": ' * 20_000])
def test_what_is_no_json_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_shallow_json_is_not_touched() -> None:
    text = json.dumps([{"a": [{"b": [number]}]} for number in range(1_000)]).encode()
    assert shallow(text) == text


@pytest.mark.parametrize("levels", [30, 100, 250, 300, 900])
def test_such_a_job_has_a_reason_and_every_wish_of_its_user(levels: int) -> None:
    spec = {"image": "i", "command": ["x"], "suspend": True, "podTemplate": {"spec": json.loads(nested(levels))}}
    seen = job_view({"metadata": {"name": "e", "uid": "u", "generation": 1}, "spec": spec})
    assert (seen.spec is None) is (levels > 58)
    assert bool(seen.invalid) is (levels > 58)
    assert seen.wishes.suspend
