"""Does a custom object keep the rules of its CRD (`x-kubernetes-validations`)?

Asked after the schema's own bounds, and not at all where one of those left the object in no shape for it, as the real
server does it. A rule that names oldSelf is for what was there before; one that does not is forgiven where an update
left its node as it was (ratcheting), so that a stricter CRD does not lock objects that are older than it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.cel import CelError, CelSyntaxError, CelUnsupported, compiled
from drivetrain_local.apiserver.crd_schema import nodes_below
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.objects import Obj, meta

_VALIDATIONS: Final = "x-kubernetes-validations"
_NOWHERE: Final = "<nil>"
"""What Go prints for the path of the object itself."""
_BLOCKING: Final = ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany",
                    "FieldValueTypeInvalid")  # fmt: skip
_NOT_CHECKED: Final = FieldError(
    _NOWHERE,
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)
_UNDERSTOOD: Final = {"rule", "message", "messageExpression", "reason", "fieldPath"}


def judge(obj: Obj, old: Obj | None, schema: Obj, found: list[FieldError]) -> list[FieldError]:
    """Findings of all rules; `found` are those of the schema, `old` is what an update replaces."""
    if any(finding.reason in _BLOCKING for finding in found):
        return [_NOT_CHECKED]
    return list(_node(_visible(obj), None if old is None else _visible(old), schema, ""))


def findings_in(schema: Obj, where: str) -> Iterator[FieldError]:
    """What a server finds wrong with the rules themselves when it is given the CRD. Raises 501 outside the subset."""
    for path, node in _nodes(schema, where):
        for position, rule in enumerate(node.get(_VALIDATIONS) or []):
            place = f"{path}.{_VALIDATIONS}[{position}]"
            if unknown := set(rule) - _UNDERSTOOD:
                raise errors.not_here(f"{place}.{min(unknown)}")
            for field in ("rule", "messageExpression"):
                try:
                    if rule.get(field):
                        compiled(rule[field])
                except CelUnsupported as error:
                    raise errors.not_here(f"{error} in {place}.{field}") from error
                except CelSyntaxError as error:
                    yield errors.bad_value(f"{place}.{field}", rule[field], f"compilation failed: ERROR: {error}")


def _visible(obj: Obj) -> Obj:
    """The object as rules see it: of its metadata the name only."""
    names = {key: meta(obj)[key] for key in ("name", "generateName") if key in meta(obj)}
    return {**obj, "metadata": names}


def _nodes(schema: Obj, path: str) -> Iterator[tuple[str, Obj]]:
    yield path, schema
    for where, child in nodes_below(schema, path):
        yield from _nodes(child, where)


def _node(value: Any, old: Any, schema: Obj, path: str) -> Iterator[FieldError]:
    if value is None:
        return
    for rule in schema.get(_VALIDATIONS) or []:
        if (finding := _broken(rule, value, old, schema, path or _NOWHERE)) is not None:
            yield finding
    if isinstance(value, dict):
        yield from _fields(value, old if isinstance(old, dict) else {}, schema, path)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for position, item in enumerate(value):
            yield from _node(item, _counterpart(item, old, schema), schema["items"], f"{path}[{position}]")


def _fields(value: Obj, old: Obj, schema: Obj, path: str) -> Iterator[FieldError]:
    properties, rest = schema.get("properties") or {}, schema.get("additionalProperties")
    for name, item in value.items():
        if name in properties:
            yield from _node(item, old.get(name), properties[name], f"{path}.{name}" if path else name)
        elif isinstance(rest, dict):
            yield from _node(item, old.get(name), rest, f"{path}[{name}]")


def _counterpart(item: Any, old: Any, schema: Obj) -> Any:
    """What an item of a list was before: known for lists with keys only, as on the real server."""
    keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
    if not keys or not isinstance(old, list) or not isinstance(item, dict):
        return None
    same = [o for o in old if isinstance(o, dict) and all(o.get(key) == item.get(key) for key in keys)]
    return same[0] if same else None


def _broken(rule: Obj, value: Any, old: Any, schema: Obj, path: str) -> FieldError | None:
    expression = compiled(rule["rule"])
    if expression.uses_old and old is None:
        return None
    names = {"self": value, "oldSelf": old}
    try:
        if expression.holds(names):
            return None
    except CelError as error:
        detail = f"{error} evaluating rule: {rule.get('message') or rule['rule']}"
        return errors.bad_value(path, schema.get("type", ""), detail)
    if not expression.uses_old and old == value:
        return None
    where = path + re.sub(r"^(?=\w)", ".", rule.get("fieldPath", "")) if rule.get("fieldPath") else path
    return _finding(where.removeprefix(f"{_NOWHERE}."), value, _message(rule, names), rule.get("reason"))


def _message(rule: Obj, names: dict[str, Any]) -> str:
    if rule.get("messageExpression"):
        try:
            told = compiled(rule["messageExpression"]).value(names)
        except CelError:
            told = ""
        if isinstance(told, str) and told.strip() and "\n" not in told:
            return told
    return str(rule.get("message") or f"failed rule: {rule['rule'].strip()}")


def _finding(path: str, value: Any, detail: str, reason: str | None) -> FieldError:
    match reason:
        case "FieldValueForbidden":
            return errors.forbidden_field(path, detail)
        case "FieldValueRequired":
            return errors.required(path, detail)
        case "FieldValueDuplicate":
            return errors.duplicate(path, value)
        case _ if isinstance(value, dict | list):
            # The server leaves the value out here: it would be the whole object.
            return FieldError(path, "FieldValueInvalid", f"Invalid value: {detail}")
        case _:
            return errors.bad_value(path, value, detail)
