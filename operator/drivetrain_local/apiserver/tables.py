"""How does `kubectl get` print an object? The server decides: columns and cells, as a meta.k8s.io/v1 Table.

Built-in kinds have their columns in `columns.py`, custom ones in their CRD.
"""

from __future__ import annotations

from typing import Any

from drivetrain_local.apiserver import jsonpath
from drivetrain_local.apiserver.columns import BUILTIN, Cells, human_age
from drivetrain_local.apiserver.resources import Column, Resource
from drivetrain_local.objects import Obj, meta

_NAME = "Name must be unique within a namespace. Is required when creating resources."


def wants_table(accept: str) -> bool:
    """Whether the first acceptable form is a Table that this server makes."""
    for part in accept.split(","):
        form = dict(item.strip().partition("=")[::2] for item in part.split(";")[1:])
        if part.strip().startswith("application/json"):
            return form.get("as") == "Table" and form.get("g") == "meta.k8s.io"
    return False


def table(resource: Resource, items: list[Obj], metadata: Obj, include: str, *, header: bool = True) -> Obj:
    """The Table of some objects. `include` is the request's includeObject: Metadata, Object or None."""
    definitions, cells = _columns(resource)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if header else None,
        "rows": [{"cells": cells(item), "object": _row_object(item, include)} for item in items],
    }


def partial(obj: Obj) -> Obj:
    """An object's metadata alone, as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(obj)}


def _row_object(item: Obj, include: str) -> Obj | None:
    if include == "None":
        return None
    return item if include == "Object" else partial(item)


def _columns(resource: Resource) -> tuple[list[Obj], Cells]:
    name = {"name": "Name", "type": "string", "format": "name", "description": _NAME, "priority": 0}
    if (builtin := BUILTIN.get(resource.key)) is not None:
        head, make = builtin
        return [_definition(*column, named=column[0] == "Name") for column in head], make
    columns = resource.columns or (Column("Age", "date", ".metadata.creationTimestamp"),)
    definitions = [name] + [
        {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority}
        for c in columns
    ]
    return definitions, lambda obj: [meta(obj)["name"], *(_cell(obj, column) for column in columns)]


def _definition(name: str, kind: str, priority: int, *, named: bool) -> Obj:
    return {"name": name, "type": kind, "format": "name" if named else "", "description": "", "priority": priority}


def _cell(obj: Obj, column: Column) -> Any:
    found = jsonpath.find(obj, column.path)
    if not found:
        return None
    value = found[0]
    match column.type:
        case "date":
            return human_age(str(value))
        case "integer" | "number" if isinstance(value, int | float):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "string" if len(found) > 1:
            return ",".join(str(item) for item in found)
        case "string":
            return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
        case _:
            return None
