"""What does a request ask for? The path, verb and query of Kubernetes' REST conventions, taken apart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import yaml
from aiohttp import web

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.resources import NOT_HERE, Registry, Resource
from drivetrain_local.objects import Obj
from drivetrain_serving import answers

MAX_BODY: Final = 3 * 1024 * 1024
BODY_SECONDS: Final = 30.0
_MAX_YAML: Final = 256 * 1024
_MAX_DEPTH: Final = 100
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


async def raw_body(request: web.BaseRequest) -> bytes:
    """The bytes of the body. Raises 400, 408 or 413."""
    try:
        return await answers.body(request, MAX_BODY, BODY_SECONDS)
    except answers.Refused as refused:
        if refused.status == 413:
            text = f"Request entity too large: limit is {MAX_BODY}"
            raise errors.ApiError(413, "RequestEntityTooLarge", text) from None
        reason = "Timeout" if refused.status == 408 else "BadRequest"
        raise errors.ApiError(refused.status, reason, refused.message) from None


async def body(request: web.BaseRequest) -> Any:
    """The JSON (or YAML) body; None when there is none."""
    if "protobuf" in request.content_type or "cbor" in request.content_type:
        raise errors.unsupported_media(["application/json", "application/yaml"])
    raw = await raw_body(request)
    if not raw:
        return None
    try:
        found = decoded_yaml(raw) if "yaml" in request.content_type else json.loads(raw, parse_constant=_no_number)
        _check_depth(found)
        if b"\\u" in raw:
            found = _whole(found)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise errors.bad_request(f"the object provided is unrecognized (must be of type Object): {error}") from error
    return found


def decoded_yaml(raw: bytes) -> Any:
    """A YAML document without aliases: a few lines of those are gigabytes. Raises ValueError, YAMLError."""
    if len(raw) > _MAX_YAML:
        raise ValueError(f"a YAML body of {len(raw)} bytes: at most {_MAX_YAML}, send JSON")
    return yaml.load(raw, Loader=_Plain)


class _Plain(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _whole(value: Any) -> Any:
    """Halves of letters, which JSON can name and nothing can store, are replaced, as Go does it."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {_whole(key): _whole(item) for key, item in value.items()}
        case _:
            return value


def _no_number(text: str) -> None:
    raise ValueError(f"invalid character in {text!r}: JSON has no such number")


def _check_depth(value: Any) -> None:
    """Copying, comparing and printing recurse."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise ValueError(f"exceeded max depth of {_MAX_DEPTH}")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


async def object_body(request: web.BaseRequest) -> Obj:
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
