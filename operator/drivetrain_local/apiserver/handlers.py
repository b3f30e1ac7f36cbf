"""How is one API request answered? Verb by verb; the semantics stand in the modules that each verb calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from drivetrain_local.apiserver import budgets, errors, patch, pods, scale
from drivetrain_local.apiserver.deletes import DeleteOptions, Deletes
from drivetrain_local.apiserver.events import as_served, as_stored
from drivetrain_local.apiserver.faults import Faults
from drivetrain_local.apiserver.lists import Lists
from drivetrain_local.apiserver.request import Target, body, object_body
from drivetrain_local.apiserver.resources import Registry, Resource
from drivetrain_local.apiserver.store import Store
from drivetrain_local.apiserver.tables import table, wants_table
from drivetrain_local.apiserver.watches import Event, Watches, line
from drivetrain_local.apiserver.writes import WriteOptions, Writes
from drivetrain_local.objects import Obj, dig, meta

_PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")


class Handlers:
    """The verbs over one store."""

    def __init__(
        self, store: Store, registry: Registry, writes: Writes, deletes: Deletes, lists: Lists, watches: Watches,
        faults: Faults, token: str,
    ) -> None:  # fmt: skip
        self._store = store
        self._registry = registry
        self._writes = writes
        self._deletes = deletes
        self._lists = lists
        self._watches = watches
        self._faults = faults
        self._token = token

    async def answer(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        """The response to a parsed request. Raises ApiError."""
        if target.subresource in ("binding", "eviction", "log"):
            return await self._pod_subresource(request, target)
        match target.verb:
            case "get":
                return self._get(request, target)
            case "list":
                return self._list(request, target)
            case "watch":
                return await self._watch(request, target)
            case "create":
                return await self._create(request, target)
            case "update" | "patch":
                return await self._update(request, target)
            case "delete":
                return await self._delete(request, target)
            case _:
                return await self._delete_collection(request, target)

    def _found(self, target: Target) -> Obj:
        obj = self._store.get(target.resource.key, target.scope, target.name)
        if obj is None:
            raise errors.not_found(target.resource.plural, target.resource.group, target.name)
        return as_served(target.resource, obj)

    def _get(self, request: web.BaseRequest, target: Target) -> web.Response:
        obj = self._found(target)
        if target.subresource == "scale":
            return _json(scale.of(target.resource, obj))
        return self._object(request, target, obj)

    def _object(
        self, request: web.BaseRequest, target: Target, obj: Obj, status: int = 200, warnings: list[str] | None = None
    ) -> web.Response:
        if wants_table(request.headers.get("Accept", "")):
            version = {"resourceVersion": meta(obj).get("resourceVersion", "")}
            return _json(table(target.resource, [obj], version, target.query.get("includeObject", "Metadata")))
        return _json(obj, status, warnings)

    def _list(self, request: web.BaseRequest, target: Target) -> web.Response:
        page = self._lists.page(target)
        items = [as_served(target.resource, item) for item in page.items]
        if wants_table(request.headers.get("Accept", "")):
            include = target.query.get("includeObject", "Metadata")
            return _json(table(target.resource, items, page.metadata, include))
        if not target.resource.custom:
            # As from the real server: items of built-in lists carry no apiVersion and no kind.
            items = [{k: v for k, v in item.items() if k not in ("apiVersion", "kind")} for item in items]
        kind, version = f"{target.resource.kind}List", target.resource.group_version
        return _json({"kind": kind, "apiVersion": version, "metadata": page.metadata, "items": items})

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        as_table = wants_table(request.headers.get("Accept", ""))
        include = target.query.get("includeObject", "Metadata")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        transport = request.transport
        stream = self._watches.stream(self._watches.check(target))

        def sever() -> None:
            if transport is not None:
                transport.abort()

        self._faults.watch_opened(target.resource.plural, sever)
        try:
            first = True
            await response.prepare(request)
            async for event in stream:
                obj = event.object
                if event.type not in ("ERROR", "BOOKMARK"):
                    obj = as_served(target.resource, obj)
                if as_table and event.type != "ERROR":
                    version = {"resourceVersion": meta(obj).get("resourceVersion", "")}
                    rows = [obj] if event.type != "BOOKMARK" else []
                    obj = table(target.resource, rows, version, include, header=first)
                    first = False
                await response.write(line(Event(event.type, obj)))
        finally:
            self._faults.watch_closed(sever)
            await stream.aclose()
        return response

    async def _create(self, request: web.BaseRequest, target: Target) -> web.Response:
        if target.name:
            raise errors.method_not_allowed("POST")
        if target.resource.group == "authorization.k8s.io":
            # Whoever has the token may do everything. kubectl asks in protobuf, and then the question is not repeated.
            asked = {} if "protobuf" in request.content_type else (await object_body(request)).get("spec")
            return _json({"kind": target.resource.kind, "apiVersion": target.resource.group_version,
                          "metadata": {}, "spec": asked or {},
                          "status": {"allowed": True, "reason": "there is no RBAC here"}}, 201)  # fmt: skip
        resource = self._stored_as(target.resource)
        given = as_stored(target.resource, await object_body(request))
        options = _options(target)
        obj = self._writes.create(resource, target.scope, given, options)
        return self._object(request, target, as_served(target.resource, obj), 201, options.warnings)

    async def _update(self, request: web.BaseRequest, target: Target) -> web.Response:
        if request.content_type in _APPLY:
            # Before the object is looked for: it would create one.
            raise errors.not_here("server-side apply")
        self._found(target)
        options = _options(target)
        change = await self._change(request, target, options)
        if target.subresource == "scale":
            inner = change

            def change(old: Obj) -> Obj:
                return scale.apply(target.resource, old, inner(scale.of(target.resource, old)))

        def stored(old: Obj) -> Obj:
            return as_stored(target.resource, change(as_served(target.resource, old)))

        narrow = "" if target.subresource == "scale" else target.subresource
        resource = self._stored_as(target.resource)
        put = target.verb == "update" and target.subresource != "scale"
        obj = self._writes.update(resource, target.scope, target.name, stored, options, subresource=narrow, put=put)
        obj = as_served(target.resource, obj)
        if target.subresource == "scale":
            return _json(scale.of(target.resource, obj))
        return self._object(request, target, obj, warnings=options.warnings)

    async def _change(self, request: web.BaseRequest, target: Target, options: WriteOptions) -> Callable[[Obj], Obj]:
        """What the body does to the current object. Raises 400, 415 or 501."""
        if target.verb == "update":
            given = await object_body(request)
            return lambda _: given
        accepted = [*_PATCH_TYPES, *(() if target.resource.custom else (_STRATEGIC,)), _APPLY[0]]
        content_type = request.content_type
        if content_type not in accepted:
            raise errors.unsupported_media(accepted)
        given_patch: Any = await body(request)
        options.patch_text = json.dumps(given_patch, separators=(",", ":"))
        if content_type == _PATCH_TYPES[0]:
            return lambda old: _object_or_400(patch.json_patch(old, given_patch))
        if not isinstance(given_patch, dict):
            raise errors.bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
        if content_type == _STRATEGIC and not target.resource.custom:
            return lambda old: _object_or_400(patch.strategic(old, given_patch))
        return lambda old: _object_or_400(patch.merge(old, given_patch))

    async def _delete(self, request: web.BaseRequest, target: Target) -> web.Response:
        if target.subresource:
            raise errors.method_not_allowed("DELETE")
        options = DeleteOptions.parse(await body(request) or {}, target.query)
        resource = self._stored_as(target.resource)
        deleted = self._deletes.delete(resource, target.scope, target.name, options)
        if not deleted.gone or target.resource.key in ("pods", "services", "nodes", "persistentvolumeclaims"):
            return _json(as_served(target.resource, deleted.object))
        details = {"name": target.name, "group": target.resource.group, "kind": target.resource.plural,
                   "uid": meta(deleted.object)["uid"]}  # fmt: skip
        details = {key: value for key, value in details.items() if value}
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def _delete_collection(self, request: web.BaseRequest, target: Target) -> web.Response:
        options = DeleteOptions.parse(await body(request) or {}, target.query)
        resource = self._stored_as(target.resource)
        page = self._lists.page(target)
        for item in page.items:
            self._deletes.delete(resource, meta(item).get("namespace", ""), meta(item)["name"], options)
        kind = f"{target.resource.kind}List"
        items = [as_served(target.resource, item) for item in page.items]
        return _json(
            {"kind": kind, "apiVersion": target.resource.group_version, "metadata": page.metadata, "items": items}
        )

    async def _pod_subresource(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        pod = self._found(target)
        if target.subresource == "log":
            if target.verb != "get":
                raise errors.method_not_allowed(request.method)
            return await pods.logs(request, self._store, pod, target.query, self._token)
        if target.verb != "create":
            raise errors.method_not_allowed(request.method)
        given = await object_body(request)
        # Read again: the body was awaited, and the pod may have changed meanwhile.
        pod = self._found(target)
        if target.subresource == "binding":
            pods.bind(self._writes, target.resource, pod, given)
        else:
            budgets.check(self._store, pod)
            pods.evict(self._deletes, target.resource, pod, given)
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    def _stored_as(self, resource: Resource) -> Resource:
        """The resource whose rules apply: for a view such as events.k8s.io, the one that is stored."""
        return self._registry.of_storage(resource.key) if resource.storage else resource


def _json(obj: Obj, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    content = json.dumps(obj, separators=(",", ":")).encode()
    response = web.Response(body=content, status=status, content_type="application/json")
    for warning in warnings or ():
        escaped = printable(warning).replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def printable(text: str) -> str:
    """What may stand in a header, whatever a caller had written."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)


def _options(target: Target) -> WriteOptions:
    dry_run = target.query.get("dryRun", "")
    if dry_run not in ("", "All"):
        finding = errors.not_supported("dryRun", dry_run, ["All"])
        raise errors.invalid("PatchOptions", "meta.k8s.io", "", [finding])
    return WriteOptions(dry_run=bool(dry_run), field_validation=target.query.get("fieldValidation") or "Warn")


def _object_or_400(found: Any) -> Obj:
    if not isinstance(found, dict) or not isinstance(dig(found, "metadata", default={}), dict):
        raise errors.bad_request("the patched object is no object with metadata")
    return found
