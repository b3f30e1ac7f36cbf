"""What does a request ask for? The path, verb and query of Kubernetes' REST conventions, taken apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.resources import NOT_HERE, Registry, Resource
from drivetrain_local.objects import Obj

_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Target:
    """A request to a served resource."""

    verb: str
    resource: Resource
    namespace: str | None
    """None when a namespaced resource is listed over all namespaces."""
    name: str
    subresource: str
    query: dict[str, str]

    @property
    def scope(self) -> str:
        """The namespace as the store knows it."""
        return (self.namespace or "") if self.resource.namespaced else ""


def parse(method: str, path: str, query: dict[str, str], registry: Registry) -> Target:
    """Raises 404, 405 or 501 for what is not served."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise errors.no_such_path()
    if rest[0] == "watch":
        raise errors.not_here("the deprecated /watch/ path")
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) >= 3 and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
    resource = registry.find(group, version, plural)
    if resource is None:
        raise _unserved(group, plural)
    if namespace is not None and not resource.namespaced:
        raise errors.no_such_path()
    _check_subresource(resource, subresource)
    verb = _verb(method, bool(name), query)
    if resource.namespaced and namespace is None and verb not in ("list", "watch"):
        raise errors.method_not_allowed(method)
    if not subresource and verb not in resource.verbs:
        raise errors.method_not_allowed(method)
    return Target(verb, resource, namespace, name, subresource, query)


async def body(request: web.Request) -> Any:
    """The JSON (or, as kubectl may send, YAML) body; None when there is none."""
    raw = await request.read()
    if not raw:
        return None
    if "protobuf" in request.content_type or "cbor" in request.content_type:
        raise errors.unsupported_media(["application/json", "application/yaml"])
    try:
        if "yaml" in request.content_type:
            return yaml.safe_load(raw)
        return json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(f"the object provided is unrecognized (must be of type Object): {error}") from error


async def object_body(request: web.Request) -> Obj:
    found = await body(request)
    if not isinstance(found, dict):
        raise errors.bad_request("the object provided is unrecognized (must be of type Object)")
    return found


def _verb(method: str, named: bool, query: dict[str, str]) -> str:
    if method == "GET":
        if query.get("watch") in ("true", "1", ""):
            return "watch"
        return "get" if named else "list"
    if method == "DELETE":
        return "delete" if named else "deletecollection"
    verb = _METHODS.get(method)
    if verb is None or (not named and verb != "create"):
        raise errors.method_not_allowed(method)
    return verb


def _check_subresource(resource: Resource, subresource: str) -> None:
    if not subresource or subresource in resource.subresources:
        return
    if (subresource == "status" and resource.status) or (subresource == "scale" and resource.scale):
        return
    if resource.key == "pods" and subresource.partition("/")[0] in (
        "exec", "attach", "portforward", "proxy", "ephemeralcontainers", "resize",
    ):  # fmt: skip
        raise errors.not_here(f"pods/{subresource}")
    if resource.key in ("services", "nodes") and subresource.startswith("proxy"):
        raise errors.not_here(f"{resource.plural}/proxy")
    if resource.key == "serviceaccounts" and subresource == "token":
        raise errors.not_here("serviceaccounts/token")
    raise errors.no_such_path()


def _unserved(group: str, plural: str) -> errors.ApiError:
    if group in NOT_HERE and (group or plural in NOT_HERE[""]):
        return errors.not_here(errors.qualified(plural, group))
    return errors.no_such_path()
