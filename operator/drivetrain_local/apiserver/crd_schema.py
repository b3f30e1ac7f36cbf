"""Does a custom object fit the structural schema of its CRD?

Three passes, in the server's order: prune unknown fields, fill in defaults, validate. The rules that a CRD writes in
CEL come afterwards, see `cel_rules.py`. What an update leaves as it was is forgiven (ratcheting): a stricter CRD does
not lock objects that are older than it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.patterns import pattern_of
from drivetrain_local.objects import Obj

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_ROOT_FIELDS = {"apiVersion", "kind", "metadata"}
_DATE_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\d[Tt][0-2]\d:[0-5]\d:[0-6]\d(\.\d+)?([Zz]|[+-][0-2]\d:[0-5]\d)")
_NEW: Any = object()
"""What a value is compared with that was not there before."""
_VALIDATING = {"type", "enum", "maxLength", "minLength", "pattern", "maximum", "minimum", "exclusiveMaximum",
               "exclusiveMinimum", "multipleOf", "maxItems", "minItems", "maxProperties", "minProperties", "required",
               "properties", "items", "additionalProperties", "nullable", "default", "format", _PRESERVE,
               _INT_OR_STRING,
               "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
               "x-kubernetes-validations", "description", "title", "example", "externalDocs"}  # fmt: skip
"""Keywords that are enforced here, and those that nothing has to be done for."""


def prune(value: Any, schema: Obj, path: str = "") -> list[str]:
    """Remove, in place, what the schema does not name. Returns the paths removed, as `fieldValidation` reports them."""
    dropped: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        for name in sorted(value):
            where = f"{path}.{name}" if path else name
            if not path and name in _ROOT_FIELDS:
                continue
            if name in properties:
                dropped += prune(value[name], properties[name], where)
            elif isinstance(rest, dict):
                dropped += prune(value[name], rest, where)
            elif not (rest is True or schema.get(_PRESERVE)):
                del value[name]
                dropped.append(where)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            dropped += prune(item, schema["items"], f"{path}[{index}]")
    return dropped


def fill_defaults(value: Any, schema: Obj) -> None:
    """Set defaults, in place; a null is replaced where the field has a default and is not nullable."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            missing = name not in value or (value[name] is None and not child.get("nullable"))
            if missing and "default" in child:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                fill_defaults(value[name], child)
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for item in value.values():
                fill_defaults(item, rest)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            fill_defaults(item, schema["items"])


def drop_nulls(value: Any, schema: Obj) -> None:
    """Remove, in place, nulls of fields that are not nullable: the server prunes them before it validates."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value and value[name] is None and not child.get("nullable"):
                del value[name]
            elif name in value:
                drop_nulls(value[name], child)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            drop_nulls(item, schema["items"])


def malformed(schema: Obj, path: str) -> Iterator[FieldError]:
    """What no object could be judged by."""
    if "pattern" in schema:
        try:
            pattern_of(schema["pattern"])
        except re.error as error:
            yield errors.bad_value(f"{path}.pattern", schema["pattern"], f"must be a valid regular expression: {error}")
    if schema.get("multipleOf") == 0:
        yield errors.bad_value(f"{path}.multipleOf", 0, "must be greater than 0")
    for where, child in nodes_below(schema, path):
        yield from malformed(child, where)


def nodes_below(schema: Obj, path: str) -> Iterator[tuple[str, Obj]]:
    """The schemas of fields and items, with their paths."""
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}.properties[{name}]", child
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield f"{path}.{key}", schema[key]


def unenforced(schema: Obj, path: str) -> Iterator[str]:
    """Keywords, with their paths, that this server would let pass without a look: it rather refuses their CRD."""
    unknown = set(schema) - _VALIDATING
    if schema.get(_INT_OR_STRING):
        unknown -= {"anyOf", "allOf"}  # generators write there what the keyword itself says
    yield from (f"{path}.{keyword}" for keyword in sorted(unknown))
    for where, child in nodes_below(schema, path):
        yield from unenforced(child, where)


def validate(obj: Obj, schema: Obj, old: Obj | None = None) -> list[FieldError]:
    """All violations, in the order of the schema; `old` is what an update replaces. Metadata is checked elsewhere."""
    found: list[FieldError] = []
    for name, child in schema.get("properties", {}).items():
        if name not in _ROOT_FIELDS and name in obj:
            found += _check(obj[name], child, name, (old or {}).get(name, _NEW))
    found += [errors.required(name) for name in schema.get("required", []) if name not in obj]
    return found


def _check(value: Any, schema: Obj, path: str, old: Any = _NEW) -> Iterator[FieldError]:
    if (value is None and schema.get("nullable")) or value == old:
        return
    expected = schema.get("type", "")
    actual = _type_of(value)
    if schema.get(_INT_OR_STRING):
        if actual not in ("integer", "string"):
            yield errors.bad_type(path, actual, "integer,string")
            return
    elif expected and actual != expected and not (expected == "number" and actual == "integer"):
        yield errors.bad_type(path, actual, expected)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield errors.not_supported(path, value, schema["enum"])
    match value:
        case str():
            yield from _check_string(value, schema, path)
        case bool():
            pass
        case int() | float():
            yield from _check_number(value, schema, path)
        case list():
            yield from _check_list(value, schema, path)
        case dict():
            yield from _check_object(value, schema, path, old if isinstance(old, dict) else {})


def _check_string(value: str, schema: Obj, path: str) -> Iterator[FieldError]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield errors.too_long(path, schema["maxLength"])
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield errors.bad_value(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if schema.get("format") == "date-time" and not _is_time(value):
        yield errors.bad_type(path, value, "date-time")
    if "pattern" in schema and not pattern_of(schema["pattern"]).search(value):
        yield errors.bad_value(path, value, f"{path} in body should match '{schema['pattern']}'")


def _is_time(value: str) -> bool:
    """The server looks whether there is such a day, too."""
    if not _DATE_TIME.fullmatch(value):
        return False
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True


def _check_number(value: float, schema: Obj, path: str) -> Iterator[FieldError]:
    if "maximum" in schema and (
        value >= schema["maximum"] if schema.get("exclusiveMaximum") else value > schema["maximum"]
    ):
        words = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield errors.bad_value(path, value, f"{path} in body should be {words} {schema['maximum']}")
    if "minimum" in schema and (
        value <= schema["minimum"] if schema.get("exclusiveMinimum") else value < schema["minimum"]
    ):
        words = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield errors.bad_value(path, value, f"{path} in body should be {words} {schema['minimum']}")
    if "multipleOf" in schema and value % schema["multipleOf"]:
        yield errors.bad_value(path, value, f"{path} in body should be a multiple of {schema['multipleOf']}")


def _check_list(value: list[Any], schema: Obj, path: str) -> Iterator[FieldError]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield errors.too_many(path, len(value), schema["maxItems"])
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield errors.bad_value(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if schema.get("x-kubernetes-list-type") == "set":
        for index, item in enumerate(value):
            if item in value[:index]:
                yield errors.duplicate(f"{path}[{index}]", item)
    keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
    seen: list[Obj] = []
    for index, item in enumerate(value):
        if isinstance(schema.get("items"), dict):
            yield from _check(item, schema["items"], f"{path}[{index}]")
        if keys and isinstance(item, dict):
            identity = {key: item.get(key) for key in keys}
            if identity in seen:
                yield errors.duplicate(f"{path}[{index}]", identity)
            seen.append(identity)


def _check_object(value: Obj, schema: Obj, path: str, old: Obj) -> Iterator[FieldError]:
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        yield errors.too_many(path, len(value), schema["maxProperties"])
    if "minProperties" in schema and len(value) < schema["minProperties"]:
        detail = f"{path} in body should have at least {schema['minProperties']} properties"
        yield errors.bad_value(path, len(value), detail)
    for name in schema.get("required", []):
        if name not in value:
            yield errors.required(f"{path}.{name}")
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    for name, item in value.items():
        child = properties.get(name, rest)
        if isinstance(child, dict):
            yield from _check(item, child, f"{path}.{name}", old.get(name, _NEW))


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
