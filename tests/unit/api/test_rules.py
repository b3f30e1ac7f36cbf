"""CEL and Python decide alike, and no rule or bound is there without a case that it rejects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from drivetrain_api.crd import schema
from drivetrain_api.rules import RULES, violations, with_defaults
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_local.apiserver.cel import compiled
from unit.api.bounds import BOUNDS, MUTABLE, with_value
from unit.api.cases import RULE_CASES, STARTED, RuleCase, job


def broken_by_cel(new: dict[str, Any], old: dict[str, Any] | None) -> list[str]:
    """Messages of the rules in the generated schema that this object breaks."""
    found: list[str] = []

    def walk(node: dict[str, Any], value: Any, before: Any) -> None:
        for rule in node.get("x-kubernetes-validations", ()):
            cel = compiled(rule["rule"])
            if not (cel.uses_old and before is None) and not cel.holds({"self": value, "oldSelf": before}):
                found.append(rule["message"])
        for name, child in node.get("properties", {}).items():
            if isinstance(value, dict) and name in value:
                walk(child, value[name], before.get(name) if isinstance(before, dict) else None)

    walk(schema(), with_defaults(new), with_defaults(old) if old is not None else None)
    return found


@pytest.mark.parametrize("case", RULE_CASES, ids=lambda c: f"{c.rule}: {c.name}")
def test_cel_and_its_twin_decide_alike(case: RuleCase) -> None:
    message = next(rule.message for rule in RULES if rule.name == case.rule)
    expected = [] if case.accepted else [message]
    assert [m for m in violations(case.job, case.old) if m == message] == expected
    assert sorted(broken_by_cel(case.job, case.old)) == sorted(violations(case.job, case.old))


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_every_rule_accepts_and_rejects(name: str) -> None:
    assert {case.accepted for case in RULE_CASES if case.rule == name} == {True, False}


def test_every_rule_accepts_the_default_of_its_own_node() -> None:
    """The API server judges defaults as they are written, before the children's own are filled in."""
    for rule in RULES:
        node = schema()
        for step in rule.path.split(".") if rule.path else ():
            node = node["properties"][step]
        if "default" in node:
            assert compiled(rule.cel).holds({"self": node["default"], "oldSelf": None}), rule.name


def test_no_case_is_left_of_a_rule_that_is_gone() -> None:
    assert {case.rule for case in RULE_CASES} == {rule.name for rule in RULES}


@pytest.mark.parametrize(("field", "before", "after"), MUTABLE, ids=lambda v: v if isinstance(v, str) else "")
def test_what_may_change_in_a_started_job(field: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    old, new = job("lm", STARTED, **before), job("lm", STARTED, **after)
    assert violations(new, old) == broken_by_cel(new, old) == []


def test_every_field_may_change_once_started_or_has_a_rule_against_it() -> None:
    ruled = {rule.name.removeprefix("immutable-") for rule in RULES if rule.transition}
    mutable = {field for field, _, _ in MUTABLE}
    top = {field.split(".")[0] for field in ruled | mutable}
    assert top == set(schema()["properties"]["spec"]["properties"])
    assert not ruled & mutable


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, (good, _) in BOUNDS.items() for value in good],
    ids=lambda v: str(v)[:20],
)
def test_within_bounds(path: str, value: Any) -> None:
    found = with_value(path, value)
    TrainingJobSpec.model_validate(found["spec"])
    assert violations(found) == []


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, (_, bad) in BOUNDS.items() for value in bad], ids=lambda v: str(v)[:20]
)
def test_out_of_bounds(path: str, value: Any) -> None:
    with pytest.raises(ValidationError) as error:
        TrainingJobSpec.model_validate(with_value(path, value)["spec"])
    assert {str(e["loc"][0]) for e in error.value.errors()} == {re.split(r"[.\[]", path)[0]}


def test_every_bound_of_the_schema_is_broken_by_a_case() -> None:
    missing = [
        f"{path}: {keyword}"
        for path, node in leaves(schema()["properties"]["spec"])
        for keyword, breaks in BREAKS.items()
        if keyword in node and not any(breaks(node, value) for value in BOUNDS[path][1])
    ]
    assert missing == []


def test_every_field_is_described_and_every_text_list_and_number_is_bounded() -> None:
    for path, node in leaves(schema()["properties"]["spec"]):
        assert node.get("description") or path.endswith("[]"), path
        match node["type"]:
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
            case "integer" | "number":
                assert {"minimum", "maximum"} <= set(node), path


def leaves(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field that holds a value, and every list beside its items."""
    if "properties" in node:
        for name, child in node["properties"].items():
            yield from leaves(child, f"{path}.{name}" if path else name)
        return
    yield path, node
    if "items" in node:
        yield from leaves(node["items"], f"{path}[]")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


BREAKS: dict[str, Callable[[dict[str, Any], Any], bool]] = {
    "minimum": lambda n, v: _number(v) and (v <= n["minimum"] if n.get("exclusiveMinimum") else v < n["minimum"]),
    "maximum": lambda n, v: _number(v) and (v >= n["maximum"] if n.get("exclusiveMaximum") else v > n["maximum"]),
    "minLength": lambda n, v: isinstance(v, str) and len(v) < n["minLength"],
    "maxLength": lambda n, v: isinstance(v, str) and len(v) > n["maxLength"],
    "minItems": lambda n, v: isinstance(v, list) and len(v) < n["minItems"],
    "maxItems": lambda n, v: isinstance(v, list) and len(v) > n["maxItems"],
    "enum": lambda n, v: v not in n["enum"],
    "pattern": lambda n, v: isinstance(v, str) and re.search(n["pattern"], v) is None,
}
