"""What does kubectl need of OpenAPI v3? The parameters that `apply` looks for, and schemas for `explain`.

Custom resources come with the schema of their CRD. Built-in kinds are open objects here: `kubectl explain pod` has
little to say. OpenAPI v2 (protobuf) is not served.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.resources import Registry, Resource
from drivetrain_local.objects import Obj

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUERY = ("dryRun", "fieldManager", "fieldValidation")
_DOCS = {
    "apiVersion": "APIVersion defines the versioned schema of this representation of an object.",
    "kind": "Kind is a string value representing the REST resource this object represents.",
}


def index(registry: Registry) -> Obj:
    """/openapi/v3: one relative URL a group version, with a hash for caches."""
    paths = {}
    for path in sorted({resource.base_path.lstrip("/") for resource in registry.all()}):
        digest = hashlib.sha256(json.dumps(document(registry, path), sort_keys=True).encode()).hexdigest()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest[:32].upper()}"}
    return {"paths": paths}


def document(registry: Registry, path: str) -> Obj:
    """/openapi/v3/<path>: the document of a group version. Raises 404."""
    found = [resource for resource in registry.all() if resource.base_path.lstrip("/") == path]
    if not found:
        raise errors.no_such_path()
    paths: Obj = {}
    schemas: Obj = {_META: {"type": "object", "description": "Standard object's metadata.", "properties": {
        "name": {"type": "string"}, "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}}}}}  # fmt: skip
    for resource in found:
        schemas[_schema_name(resource)] = _schema(resource)
        collection = resource.base_path + ("/namespaces/{namespace}" if resource.namespaced else "")
        paths[f"{collection}/{resource.plural}"] = {
            "get": _operation(resource, "list"),
            "post": _operation(resource, "post"),
        }
        paths[f"{collection}/{resource.plural}/{{name}}"] = {
            "get": _operation(resource, "get"),
            "put": _operation(resource, "put"),
            "patch": _operation(resource, "patch"),
            "delete": _operation(resource, "delete"),
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _gvk(resource: Resource) -> Obj:
    return {"group": resource.group, "kind": resource.kind, "version": resource.version}


def _operation(resource: Resource, action: str) -> Obj:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_schema_name(resource)}"}}}
    operation: Obj = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if action in ("post", "put", "patch"):
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in _QUERY
        ]
    if action in ("post", "put"):
        operation["requestBody"] = {"content": {"*/*": content["application/json"]}, "required": True}
    return operation


def _schema_name(resource: Resource) -> str:
    group = ".".join(reversed((resource.group or "core.api.k8s.io").split(".")))
    return f"{group}.{resource.version}.{resource.kind}"


def _schema(resource: Resource) -> Obj:
    base: Obj = _plain(resource.schema) if resource.schema else {"type": "object"}
    properties = {
        **{name: {"type": "string", "description": text} for name, text in _DOCS.items()},
        "metadata": {
            "description": "Standard object's metadata.",
            "allOf": [{"$ref": f"#/components/schemas/{_META}"}],
        },
    }
    base["properties"] = {**base.get("properties", {}), **properties}
    base["x-kubernetes-group-version-kind"] = [_gvk(resource)]
    return base


def _plain(schema: Any) -> Any:
    """A schema without the extensions that only the server reads."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "x-kubernetes-validations"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema
