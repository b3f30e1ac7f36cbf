"""Label and field selectors, apart from HTTP."""

from __future__ import annotations

import pytest

from drivetrain_local.apiserver.errors import ApiError
from drivetrain_local.apiserver.selectors import field_predicate, label_predicate

_OBJECT = {"metadata": {"name": "a", "namespace": "n", "labels": {"k": "v", "n": "3", "dotted.io/x": ""}}}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("k=v", True), ("k==v", True), ("k=w", False), ("k!=v", False), ("k!=w", True), ("absent!=x", True),
        ("k in (v,w)", True), ("k in (w)", False), ("k notin (w)", True), ("absent notin (x)", True),
        ("k", True), ("absent", False), ("!absent", True), ("!k", False), ("n>2", True), ("n<3", False),
        ("k>2", False), ("k<2", False), ("absent>1", False), ("dotted.io/x=", True), ("k=v,n in (3, 4),!z", True),
    ],
)  # fmt: skip
def test_labels(selector: str, matches: bool) -> None:
    predicate = label_predicate(selector)
    assert predicate is not None
    assert predicate(_OBJECT) is matches


def test_an_empty_selector_selects_everything() -> None:
    assert label_predicate("") is None
    assert field_predicate("", "pods") is None


@pytest.mark.parametrize("selector", ["a b", "=v", "k in v", "k=(v)", "k=a=b"])
def test_nonsense_is_refused(selector: str) -> None:
    with pytest.raises(ApiError) as refused:
        label_predicate(selector)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("resource", "selector", "known"),
    [
        ("pods", "spec.nodeName=a", True),
        ("pods", "status.podIP=1", True),
        ("configmaps", "spec.nodeName=a", False),
        ("widgets", "metadata.name=a", True),
        ("widgets", "spec.workers=1", False),
    ],
)
def test_only_indexed_fields_select(resource: str, selector: str, known: bool) -> None:
    if known:
        assert field_predicate(selector, resource) is not None
    else:
        with pytest.raises(ApiError, match="field label not supported"):
            field_predicate(selector, resource)
