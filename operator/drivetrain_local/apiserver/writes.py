"""What does a write do to the store?

One path for every writer (HTTP, garbage collection): prepare, check, count the generation, honour preconditions,
finalizers and graceful termination, then store. A call is synchronous, so it is a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from drivetrain_local.apiserver import cel_rules, crd_schema, errors, fields, meta_rules, typed
from drivetrain_local.apiserver.kinds import Kinds
from drivetrain_local.apiserver.kinds.crds import resources_of
from drivetrain_local.apiserver.kinds.pods import malformed_quantity
from drivetrain_local.apiserver.resources import Registry, Resource
from drivetrain_local.apiserver.store import Store
from drivetrain_local.objects import Obj, clone, dig, meta

_CRD = "apiextensions.k8s.io/customresourcedefinitions"
_COUNTS_GENERATION = ("pods", _CRD)


@dataclass
class WriteOptions:
    """What a request asks for besides its body; `warnings` goes back as headers."""

    dry_run: bool = False
    field_validation: str = "Warn"
    patch_text: str | None = None
    """The body of a PATCH, which the 422 of a strict patch quotes."""
    warnings: list[str] = field(default_factory=list)


class Writes:
    """All writes to one store."""

    def __init__(self, store: Store, registry: Registry, kinds: Kinds) -> None:
        self._store = store
        self._registry = registry
        self._kinds = kinds

    def create(self, resource: Resource, namespace: str, body: Obj, options: WriteOptions) -> Obj:
        """Store a new object and return it. Raises 400, 403, 404, 409 or 422."""
        obj = clone(body)
        self._check_kind(resource, obj)
        self._decode(resource, obj, options)
        self._check_namespace(resource, namespace, obj)
        obj["metadata"] = meta_rules.fresh(obj["metadata"], namespace if resource.namespaced else "")
        if resource.key == "pods" and (amount := malformed_quantity(obj)):
            raise errors.bad_request(
                f'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '
                f"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {amount}"
            )
        if resource.status and resource.key != "nodes":
            obj.pop("status", None)
        kind = self._kinds.of(resource.key)
        kind.prepare_create(obj)
        if resource.custom:
            obj["metadata"]["generation"] = 1
        self._shape(resource, obj, options)
        findings = meta_rules.validate(obj, resource.kind)
        findings += [*_custom_findings(resource, obj, None, findings), *kind.validate(obj)]
        name = obj["metadata"].get("name", "")
        if not findings and self._store.get(resource.key, namespace, name):
            raise errors.already_exists(resource.plural, resource.group, name)
        if findings:
            kind.released(obj)
            raise errors.invalid(resource.kind, resource.group, name, findings)
        if options.dry_run:
            kind.released(obj)
            return obj
        stored = self._store.put(resource.key, obj)
        if resource.key == _CRD:
            self._registry.add(resources_of(stored))
        return stored

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Obj], Obj],
        options: WriteOptions,
        *,
        subresource: str = "",
        put: bool = False,
    ) -> Obj:
        """Replace an object by `change(current)` and return what is stored then.

        `put` has the rules of PUT: a uid in the body is a precondition, and kinds without unconditional update need
        a resourceVersion. A change of nothing writes nothing.
        """
        old = self._get(resource, namespace, name)
        new = clone(change(old))
        self._check_kind(resource, new)
        self._decode(resource, new, options)
        self._check_identity(resource, namespace, name, new)
        given = meta(new)
        if put and given.get("uid") and given["uid"] != meta(old)["uid"]:
            why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {meta(old)['uid']}"
            raise errors.conflict(resource.plural, resource.group, name, why)
        version = given.get("resourceVersion") or ""
        if not version and not resource.unconditional_update:
            finding = errors.FieldError(
                "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
            )
            raise errors.invalid(resource.kind, resource.group, name, [finding])
        if version and version != meta(old)["resourceVersion"]:
            raise errors.conflict(resource.plural, resource.group, name)
        new = self._narrow(resource, new, old, subresource)
        new["metadata"] = meta_rules.carried_over(new["metadata"], meta(old))
        new["metadata"]["resourceVersion"] = meta(old)["resourceVersion"]
        kind = self._kinds.of(resource.key)
        if not subresource:
            kind.prepare_update(new, old)
        self._shape(resource, new, options)
        findings = [*meta_rules.validate_update(new, old), *meta_rules.validate(new, resource.kind)]
        findings += _custom_findings(resource, new, old, findings)
        if not subresource:
            findings += [*kind.validate(new), *kind.validate_update(new, old)]
        if findings:
            raise errors.invalid(resource.kind, resource.group, name, findings)
        if _counts(resource) and not subresource and _intent(new, resource) != _intent(old, resource):
            new["metadata"]["generation"] = meta(old).get("generation", 0) + 1
        if new == old or options.dry_run:
            return new
        if meta(new).get("deletionTimestamp") and not meta(new).get("finalizers") and _may_go(new):
            return self._remove(resource, new)
        stored = self._store.put(resource.key, new)
        if resource.key == _CRD:
            self._registry.discard(stored["spec"]["group"], stored["spec"]["names"]["plural"])
            self._registry.add(resources_of(stored))
        return stored

    def put_as_server(self, resource: Resource, obj: Obj) -> Obj:
        """Store what only the server itself may set (deletion marks, bindings), without any check."""
        return self._store.put(resource.key, obj)

    def remove(self, resource: Resource, obj: Obj) -> Obj:
        """Drop an object now, whatever its finalizers. `deletes.py` decides when."""
        return self._remove(resource, obj)

    def _remove(self, resource: Resource, obj: Obj) -> Obj:
        last = self._store.remove(resource.key, obj)
        self._kinds.of(resource.key).released(last)
        if resource.key == _CRD:
            group, plural = last["spec"]["group"], last["spec"]["names"]["plural"]
            for instance in self._store.all(f"{group}/{plural}"):
                self._store.remove(f"{group}/{plural}", instance)
            self._registry.discard(group, plural)
        return last

    def _get(self, resource: Resource, namespace: str, name: str) -> Obj:
        found = self._store.get(resource.key, namespace, name)
        if found is None:
            raise errors.not_found(resource.plural, resource.group, name)
        return found

    def _narrow(self, resource: Resource, new: Obj, old: Obj, subresource: str) -> Obj:
        """Which part of an update counts: all but status, or status alone."""
        if subresource == "status":
            kept = {key: value for key, value in old.items() if key != "status"}
            if "status" in new:
                kept["status"] = new["status"]
            if not resource.custom:
                # Built-in kinds take metadata from a status update too, so a wrong uid is refused. Custom resources
                # take nothing but status: there a uid in the body checks nothing, only resourceVersion does.
                kept["metadata"] = {**new["metadata"], "ownerReferences": meta(old).get("ownerReferences")}
            return kept
        if resource.status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        return new

    def _shape(self, resource: Resource, obj: Obj, options: WriteOptions) -> None:
        """Give a custom object, in place, the form in which it is judged and stored."""
        if resource.schema is not None:
            crd_schema.drop_nulls(obj, resource.schema)
            self._report_unknown(resource, crd_schema.prune(obj, resource.schema), options)
            crd_schema.fill_defaults(obj, resource.schema)

    def _decode(self, resource: Resource, obj: Obj, options: WriteOptions) -> None:
        """What a typed decoder does: 400 for a wrong type, unknown fields dropped. Of a custom object, its metadata."""
        try:
            if resource.custom:
                unknown = fields.decode_metadata(obj)
                typed.complete_metadata(obj)
            else:
                unknown = fields.decode(resource.kind, obj)
                typed.complete(resource.kind, obj)
        except fields.WrongType as error:
            kind = resource.kind
            text = f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {error}'
            raise errors.bad_request(text) from error
        self._report_unknown(resource, unknown, options)

    def _report_unknown(self, resource: Resource, paths: list[str], options: WriteOptions) -> None:
        unknown = [f'unknown field "{path}"' for path in paths]
        if unknown and options.field_validation == "Strict":
            text = "strict decoding error: " + ", ".join(unknown)
            if options.patch_text is not None:
                raise errors.invalid("", "", "", [errors.bad_value("patch", options.patch_text, text)])
            kind = resource.kind
            raise errors.bad_request(f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {text}')
        if options.field_validation == "Warn":
            options.warnings += unknown

    def _check_kind(self, resource: Resource, obj: Obj) -> None:
        version, kind = obj.setdefault("apiVersion", resource.group_version), obj.setdefault("kind", resource.kind)
        if version != resource.group_version:
            raise errors.bad_request(
                f"the API version in the data ({version}) does not match the expected API version "
                f"({resource.group_version})"
            )
        if kind != resource.kind:
            raise errors.bad_request(
                f"{kind} in version {version!r} cannot be handled as a {resource.kind}: converting: kinds differ"
            )

    def _check_identity(self, resource: Resource, namespace: str, name: str, obj: Obj) -> None:
        given = meta(obj).get("name", name)
        if given != name:
            text = f"the name of the object ({given}) does not match the name on the URL ({name})"
            raise errors.bad_request(text)
        if meta(obj).get("namespace", namespace) != namespace and resource.namespaced:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )

    def _check_namespace(self, resource: Resource, namespace: str, obj: Obj) -> None:
        if not resource.namespaced:
            return
        if obj["metadata"].get("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        home = self._store.get("namespaces", "", namespace)
        if home is None:
            raise errors.not_found("namespaces", "", namespace)
        if meta(home).get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated",
                     "field": "metadata.namespace"}  # fmt: skip
            name = obj["metadata"].get("name", "")
            raise errors.forbidden(resource.plural, resource.group, name, why, causes=[cause])


def _custom_findings(
    resource: Resource, obj: Obj, old: Obj | None, found: list[errors.FieldError]
) -> list[errors.FieldError]:
    """What the CRD has against an object, beside what was `found` before: bounds, then rules."""
    if resource.schema is None:
        return []
    bounds = crd_schema.validate(obj, resource.schema, old)
    return [*bounds, *cel_rules.judge(obj, old, resource.schema, [*found, *bounds])]


def _counts(resource: Resource) -> bool:
    return resource.custom or resource.key in _COUNTS_GENERATION


def _intent(obj: Obj, resource: Resource) -> Obj:
    """What generation counts: all but metadata, and but status where that is a subresource."""
    hidden = ("metadata", "status") if resource.status else ("metadata",)
    return {key: value for key, value in obj.items() if key not in hidden}


def _may_go(obj: Obj) -> bool:
    """A pod in its grace period goes when the node agent says so, not when its last finalizer does."""
    return not dig(obj, "metadata", "deletionGracePeriodSeconds", default=0)
