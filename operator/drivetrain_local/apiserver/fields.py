"""Which fields do the built-in kinds have, and of which types? What a typed decoder drops or refuses.

`fields.json` holds names and types out of Kubernetes' own OpenAPI document (k8s.io/kubernetes v1.36.3), a type being
`string`, `integer`, `boolean`, `number`, `quantity`, `int-or-string`, `object` (anything), the name of a definition,
or one of these after `[]` (a list of) or `{}` (a map from strings to). To make it again:

    python -m drivetrain_local.apiserver.fields api/openapi-spec/swagger.json > fields.json
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

from drivetrain_local.objects import Obj

_ROOTS = ("Pod", "Service", "Endpoints", "Secret", "ConfigMap", "ServiceAccount", "Namespace", "Node", "Event", "Lease",
          "EndpointSlice", "PodDisruptionBudget", "NetworkPolicy", "CustomResourceDefinition", "DeleteOptions",
          "PersistentVolumeClaim", "Binding", "Eviction")  # fmt: skip
_PREFERRED = (
    "io.k8s.api.core.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
)
_SCHEMAS = {"JSONSchemaPropsOrArray": "JSONSchemaProps", "JSONSchemaPropsOrBool": "schema-or-bool"}
"""What the document leaves open, though there is but one thing that a CRD may have there."""
_PRINTED_NULLS = ("creationTimestamp", "lastProbeTime", "lastTransitionTime", "eventTime", "firstTimestamp",
                  "lastTimestamp", "startedAt", "finishedAt")  # fmt: skip
"""Times that Kubernetes itself writes as null, so that clients never find them missing."""


class WrongType(Exception):
    """A value that does not decode into its field."""


def decode(kind: str, obj: Obj) -> list[str]:
    """Drop, in place, unknown fields and nulls of a built-in kind. Returns the paths of the unknown ones.

    Raises WrongType in the words of Go's decoder. A kind without a definition is left alone.
    """
    definition = _definitions().get(kind)
    return [] if definition is None else _object(obj, definition, "", kind)


def decode_metadata(obj: Obj) -> list[str]:
    """The same for the metadata of any kind."""
    return _value(obj["metadata"], "ObjectMeta", "metadata", "metadata") if obj.get("metadata") is not None else []


def _object(value: Obj, definition: dict[str, str], path: str, owner: str) -> list[str]:
    unknown: list[str] = []
    for name in sorted(value):
        where = f"{path}.{name}" if path else name
        if name not in definition:
            del value[name]
            unknown.append(where)
        elif value[name] is None:
            if name not in _PRINTED_NULLS:
                del value[name]
        else:
            unknown += _value(value[name], definition[name], where, f"{owner}.{name}")
    return unknown


def _value(value: Any, kind: str, path: str, field: str) -> list[str]:
    if kind.startswith("[]"):
        if not isinstance(value, list):
            raise _wrong(value, field, "[]" + kind[2:])
        return [found for i, item in enumerate(value) for found in _item(item, kind[2:], f"{path}[{i}]", field)]
    if kind.startswith("{}"):
        if not isinstance(value, dict):
            raise _wrong(value, field, "map[string]" + kind[2:])
        return [found for key, item in value.items() for found in _item(item, kind[2:], f"{path}.{key}", field)]
    if kind == "schema-or-bool" and not isinstance(value, bool):
        kind = "JSONSchemaProps"
    definition = _definitions().get(kind)
    if definition is not None:
        if not isinstance(value, dict):
            raise _wrong(value, field, kind)
        return _object(value, definition, path, kind)
    if not _fits(value, kind):
        raise _wrong(value, field, kind)
    return []


def _item(value: Any, kind: str, path: str, field: str) -> list[str]:
    return [] if value is None else _value(value, kind, path, field)


def _fits(value: Any, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "int-or-string":
            return isinstance(value, int | str) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "quantity":
            return isinstance(value, int | float | str) and not isinstance(value, bool)
        case _:
            return True


def _wrong(value: Any, field: str, kind: str) -> WrongType:
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return WrongType(f"json: cannot unmarshal {names[type(value)]} into Go struct field {field} of type {kind}")


@functools.cache
def _definitions() -> dict[str, dict[str, str]]:
    loaded: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("fields.json").read_text())
    return loaded


def _extract(swagger: Obj) -> dict[str, dict[str, str]]:
    definitions: Obj = swagger["definitions"]
    full = {name: next(p + name for p in _PREFERRED if p + name in definitions) for name in _ROOTS}
    found: dict[str, dict[str, str]] = {}
    waiting = list(full.values())
    while waiting:
        name = waiting.pop()
        short = name.rpartition(".")[2]
        if short in found:
            continue
        found[short] = {}
        for field, schema in sorted(definitions[name].get("properties", {}).items()):
            found[short][field] = _type(schema, definitions, waiting)
    return dict(sorted(found.items()))


def _type(schema: Obj, definitions: Obj, waiting: list[str]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        short = str(name.rpartition(".")[2])
        if short == "Quantity":
            return "quantity"
        if short in _SCHEMAS:
            return _SCHEMAS[short]
        if "properties" not in definitions[name]:
            return _type(definitions[name], definitions, waiting)
        waiting.append(name)
        return short
    if schema.get("format") == "int-or-string":
        return "int-or-string"
    if schema.get("type") == "array":
        return "[]" + _type(schema["items"], definitions, waiting)
    if isinstance(schema.get("additionalProperties"), dict):
        return "{}" + _type(schema["additionalProperties"], definitions, waiting)
    return str(schema.get("type", "object"))


if __name__ == "__main__":
    json.dump(_extract(json.loads(Path(sys.argv[1]).read_text())), sys.stdout, indent=1)
    print()
