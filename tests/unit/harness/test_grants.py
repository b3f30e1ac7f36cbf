"""Which permissions were never used?"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.audit import Request
from harness.grants import Grant, granted, in_vain
from harness.helm import NAMESPACE, rendered

MINE = "system:serviceaccount:sys:mine"


@pytest.mark.parametrize(
    ("grant", "request_", "used"),
    [
        (("", "", "pods", "get"), ("get", "", "pods", "a"), True),
        (("", "", "pods", "get"), ("list", "", "pods", "a"), False),
        (("", "", "pods", "get"), ("get", "", "pods/log", "a"), False),
        (("", "x.dev", "pods", "get"), ("get", "", "pods", "a"), False),
        (("a", "", "pods", "get"), ("get", "", "pods", "a"), True),
        (("a", "", "pods", "get"), ("get", "", "pods", "b"), False),
        (("a", "", "pods", "list"), ("list", "", "pods", ""), False),
        (("", "", "pods", "get", ("one",)), ("get", "", "pods", "a", "one"), True),
        (("", "", "pods", "get", ("one",)), ("get", "", "pods", "a", "other"), False),
    ],
)
def test_what_a_request_needs(grant: tuple[Any, ...], request_: tuple[Any, ...], used: bool) -> None:
    given = Grant(MINE, *grant)
    assert (in_vain([given], [Request(MINE, *request_)]) == []) is used
    assert in_vain([given], [Request("system:serviceaccount:sys:other", *request_)]) == [given]


def test_what_was_denied_is_no_use() -> None:
    grant = Grant(MINE, "", "", "pods", "get")
    assert in_vain([grant], [Request(MINE, "get", "", "pods", "a", code=403, denied=True)]) == [grant]


@pytest.mark.parametrize("namespaces", [[], ["team-a", "team-b"]], ids=["all", "named"])
def test_what_the_chart_grants_its_account(namespaces: list[str]) -> None:
    found = granted(rendered({"watchNamespaces": namespaces}).values())
    assert {each.user for each in found} == {f"system:serviceaccount:{NAMESPACE}:drivetrain-operator"}
    assert {each.where for each in found if each.resource == "pods"} == set(namespaces or [""])
    assert {each.where for each in found if each.resource == "leases"} == {NAMESPACE}
    assert not {"update", "*"} & {each.verb for each in found if each.resource != "trainingjobs/finalizers"}
