"""The pod template merges as `kubectl patch --type=strategic` would."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain_operator.render.errors import InvalidTemplate
from drivetrain_operator.render.merge import MERGE_KEYS, merge

CASES: list[tuple[str, Any, Any, Any]] = [
    ("a map merges key by key", {"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}, {"a": 1, "b": {"c": 1, "d": 2}}),
    ("null takes a key away", {"a": 1, "b": 2}, {"b": None}, {"a": 1}),
    ("null of an absent key is nothing", {"a": 1}, {"b": None, "c": {"d": None}}, {"a": 1, "c": {}}),
    ("a plain list is replaced", {"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
    (
        "containers merge by name, ours first",
        {"containers": [{"name": "worker", "image": "a"}]},
        {"containers": [{"name": "side", "image": "b"}, {"name": "worker", "tty": True}]},
        {"containers": [{"name": "worker", "image": "a", "tty": True}, {"name": "side", "image": "b"}]},
    ),
    (
        "env merges by name",
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
        {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
    ),
    (
        "mounts merge by path",
        {"volumeMounts": [{"mountPath": "/tmp", "name": "tmp"}]},
        {"volumeMounts": [{"mountPath": "/tmp", "name": "mine"}]},
        {"volumeMounts": [{"mountPath": "/tmp", "name": "mine"}]},
    ),
    (
        "one port number may serve two protocols",
        {"ports": [{"containerPort": 1}]},
        {"ports": [{"containerPort": 1, "protocol": "TCP", "name": "x"}, {"containerPort": 1, "protocol": "UDP"}]},
        {
            "ports": [
                {"containerPort": 1, "protocol": "TCP", "name": "x"},
                {"containerPort": 1, "protocol": "UDP"},
            ]
        },
    ),
    (
        "a volume of ours takes a size",
        {"volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}]},
        {"volumes": [{"name": "dshm", "emptyDir": {"sizeLimit": "1Gi"}}]},
        {"volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]},
    ),
    (
        "a volume of another kind replaces ours: a volume has one source",
        {"volumes": [{"name": "tmp", "emptyDir": {}}]},
        {"volumes": [{"name": "tmp", "hostPath": {"path": "/x"}}]},
        {"volumes": [{"name": "tmp", "hostPath": {"path": "/x"}}]},
    ),
    ("a scalar replaces", {"a": 1}, {"a": "x"}, {"a": "x"}),
]


@pytest.mark.parametrize(("name", "base", "patch", "expected"), CASES, ids=[c[0] for c in CASES])
def test_merge(name: str, base: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy((base, patch))
    assert merge(base, patch) == expected
    assert (base, patch) == before, "its arguments are not changed"


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"spec": []}, "spec"),
        ({"spec": {"containers": {}}}, "spec.containers"),
        ({"spec": {"containers": ["x"]}}, "spec.containers[0]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0]"),
        ({"spec": {"containers": [{"name": "worker", "env": [{"value": "x"}]}]}}, "spec.containers[0].env[0]"),
    ],
)
def test_what_cannot_be_merged_is_named(patch: Any, path: str) -> None:
    base = {"spec": {"containers": [{"name": "worker", "env": []}]}}
    with pytest.raises(InvalidTemplate) as error:
        merge(base, patch)
    assert error.value.path == path


names = st.sampled_from(["a", "b", "c"])
items = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"value": st.text(max_size=2)}), unique_by=lambda i: i["name"]
)


@given(base=items, patch=items)
def test_keyed_lists_keep_every_name_once_and_the_patch_wins(base: list[Any], patch: list[Any]) -> None:
    for field in ("env", "containers"):
        assert MERGE_KEYS[field] == ("name",)
        merged = merge({field: base}, {field: patch})[field]
        found = [item["name"] for item in merged]
        assert sorted(found) == sorted({i["name"] for i in base} | {i["name"] for i in patch})
        assert found[: len(base)] == [i["name"] for i in base]
        for item in patch:
            assert item.items() <= merged[found.index(item["name"])].items()
        assert merge({field: merged}, {field: patch})[field] == merged
