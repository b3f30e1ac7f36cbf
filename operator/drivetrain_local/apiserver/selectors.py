"""Does an object match a label or field selector?

Label selectors have the whole grammar of Kubernetes (equality and set-based). Field selectors accept the fields that
the real server indexes for a kind, and refuse others with its 400, so that a query that fails there fails here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from drivetrain_local.apiserver.errors import bad_request
from drivetrain_local.objects import Obj, dig, meta

Predicate = Callable[[Obj], bool]

_COMMON = ("metadata.name", "metadata.namespace")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
             "status.podIP", "status.nominatedNodeName"),
    "events": ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
               "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
               "reportingComponent", "source", "type"),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "services": ("spec.clusterIP", "spec.type"),
}  # fmt: skip

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=,()]*)$")
_COMPARE = re.compile(r"^(?P<key>[^\s!=,()<>]+)\s*(?P<op><|>)\s*(?P<value>-?\d+)$")
_EXISTS = re.compile(r"^(?P<not>!?)\s*(?P<key>[^\s!=,()]+)$")


@dataclass(frozen=True)
class Requirement:
    """One comma-separated part of a label selector."""

    key: str
    op: str
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:
                number = _integer(value)
                if number is None:
                    return False
                bound = int(self.values[0])
                return number > bound if self.op == ">" else number < bound


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """`a=b,c in (d,e),!f` as requirements. Raises 400 with the server's words."""
    return tuple(_requirement(part.strip(), text) for part in _split(text) if part.strip())


def label_predicate(text: str) -> Predicate | None:
    """None when the selector selects everything."""
    wanted = parse_labels(text)
    if not wanted:
        return None
    return lambda obj: all(requirement.matches(meta(obj).get("labels") or {}) for requirement in wanted)


def matches_labels(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Equality selector of a Service: empty selects nothing."""
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def field_predicate(text: str, resource: str) -> Predicate | None:
    """None when the selector selects everything. Raises 400 on a field that is not selectable."""
    terms: list[tuple[str, bool, str]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = re.match(r"^([^=!]+?)\s*(==|=|!=)\s*(.*)$", part)
        if found is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        field, op, value = found.groups()
        if field not in _COMMON and field not in _FIELDS.get(resource, ()):
            raise bad_request(f"field label not supported: {field}")
        terms.append((field, op != "!=", value))
    if not terms:
        return None
    return lambda obj: all((_field(obj, field) == value) is equal for field, equal, value in terms)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    if first is None or second is None:
        return first or second
    return lambda obj: first(obj) and second(obj)


def _field(obj: Obj, field: str) -> str:
    if field == "source":
        return str(dig(obj, "source", "component", default="") or obj.get("reportingComponent", ""))
    value = dig(obj, *field.split("."), default="")
    if field == "spec.unschedulable":
        return "true" if value is True else "false"
    return str(value)


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _split(text: str) -> list[str]:
    """Commas outside parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _requirement(part: str, whole: str) -> Requirement:
    if found := _SET.match(part):
        values = tuple(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], found["op"], values)
    if found := _EQUAL.match(part):
        return Requirement(found["key"], "notin" if found["op"] == "!=" else "in", (found["value"],))
    if found := _COMPARE.match(part):
        return Requirement(found["key"], found["op"], (found["value"],))
    if found := _EXISTS.match(part):
        return Requirement(found["key"], "absent" if found["not"] else "exists")
    raise bad_request(
        f"unable to parse requirement: found '{part}', expected: '=', '!=', '==', 'in', notin' in '{whole}'"
    )
