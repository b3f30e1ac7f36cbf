"""What patches do, apart from HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivetrain_local.apiserver import patch
from drivetrain_local.apiserver.errors import ApiError

_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_OBJECTS: Any = st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


@_PATIENT
@given(_OBJECTS, _OBJECTS)
def test_merging_twice_is_merging_once(target: Any, change: Any) -> None:
    once = patch.merge(target, change)
    assert patch.merge(once, change) == once


@_PATIENT
@given(_OBJECTS)
def test_merging_into_nothing_drops_nulls(change: Any) -> None:
    assert patch.merge({}, change) == _without_nulls(change)


@pytest.mark.parametrize(
    ("target", "change", "expect"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_table_of_rfc_7386(target: Any, change: Any, expect: Any) -> None:
    assert patch.merge(target, change) == expect


@pytest.mark.parametrize(
    ("operations", "expect"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 9}], {"a": [1, 2, 9]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": {}}], {"a": {}}),
        ([{"op": "test", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ([{"op": "copy", "from": "/a/0", "path": "/b"}], {"a": [1, 2], "b": 1}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": [1, 2]}),
        ([{"op": "add", "path": "/x~1y~0z", "value": 1}], {"a": [1, 2], "x/y~z": 1}),
    ],
)
def test_json_patch(operations: Any, expect: Any) -> None:
    target = {"a": [1, 2]}
    assert patch.json_patch(target, operations) == expect
    assert target == {"a": [1, 2]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/none/deep", "value": 1},
        {"op": "add", "path": "/a/7", "value": 1},
        {"op": "jump", "path": "/a"},
        {"op": "add"},
    ],
)
def test_a_json_patch_that_does_not_apply_is_unprocessable(operation: Any) -> None:
    with pytest.raises(ApiError) as refused:
        patch.json_patch({"a": [1, 2]}, [operation])
    assert refused.value.code == 422


@pytest.mark.parametrize(
    ("change", "expect"),
    [
        ({"containers": [{"name": "b", "image": "2"}]},
         {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        ({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]},
         {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]}),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, {"containers": []}),
        ({"containers": [{"$patch": "replace"}, {"name": "z"}]}, {"containers": [{"name": "z"}]}),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b"}]},
         {"containers": [{"name": "b"}, {"name": "a", "image": "1"}]}),
        ({"containers": None}, {}),
    ],
)  # fmt: skip
def test_strategic_merge_goes_by_key(change: Any, expect: Any) -> None:
    assert patch.strategic({"containers": [{"name": "a", "image": "1"}]}, change) == expect


def test_lists_without_a_key_are_replaced_and_finalizers_united() -> None:
    target = {"args": ["a"], "metadata": {"finalizers": ["x"]}}
    change = {"args": ["b"], "metadata": {"finalizers": ["y"]}}
    assert patch.strategic(target, change) == {"args": ["b"], "metadata": {"finalizers": ["x", "y"]}}
    removed = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert patch.strategic(target, removed)["metadata"]["finalizers"] == []


def test_ports_merge_by_their_own_keys() -> None:
    service = {"ports": [{"port": 80, "name": "a"}]}
    assert patch.strategic(service, {"ports": [{"port": 81}]})["ports"] == [{"port": 80, "name": "a"}, {"port": 81}]
    container = {"ports": [{"containerPort": 80}]}
    merged = patch.strategic(container, {"ports": [{"containerPort": 80, "name": "web"}]})
    assert merged["ports"] == [{"containerPort": 80, "name": "web"}]
