"""How does a CustomResourceDefinition become served resources?

A definition is established at once. Several versions share one storage and, as with conversion strategy None,
differ in `apiVersion` only; a conversion webhook is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivetrain_local.apiserver import cel_rules, crd_schema, errors, jsonpath
from drivetrain_local.apiserver.errors import FieldError
from drivetrain_local.apiserver.kinds.base import Kind
from drivetrain_local.apiserver.resources import Column, Resource, Scale
from drivetrain_local.objects import Obj, dig, now, rfc3339


class CustomResourceDefinitions(Kind):
    """Rules of the definition itself, as far as a generated one can break them."""

    def prepare_create(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        spec.setdefault("conversion", {"strategy": "None"})
        obj["metadata"]["generation"] = 1
        moment = rfc3339(now())
        obj["status"] = {
            "acceptedNames": names,
            "storedVersions": [version.get("name") for version in spec.get("versions") or [] if version.get("storage")],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": moment, "reason": reason, "message": message}
                for kind, reason, message in (
                    ("NamesAccepted", "NoConflicts", "no conflicts found"),
                    ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
                )
            ],
        }

    def prepare_update(self, new: Obj, old: Obj) -> None:
        names = new.setdefault("spec", {}).setdefault("names", {})
        names.setdefault("singular", str(names.get("kind", "")).lower())
        names.setdefault("listKind", f"{names.get('kind', '')}List")
        new["spec"].setdefault("conversion", {"strategy": "None"})
        new["status"] = {**new.get("status", {}), "acceptedNames": names}

    def validate(self, obj: Obj) -> list[FieldError]:
        spec, names = obj["spec"], obj["spec"]["names"]
        found = [errors.required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
        found += [errors.required(f"spec.{field}") for field in ("group", "scope") if not spec.get(field)]
        wanted = f"{names.get('plural')}.{spec.get('group')}"
        if obj["metadata"].get("name") != wanted:
            detail = 'must be spec.names.plural+"."+spec.group'
            found.append(errors.bad_value("metadata.name", obj["metadata"].get("name"), detail))
        if sum(bool(version.get("storage")) for version in spec.get("versions") or []) != 1:
            detail = "must have exactly one version marked as storage version"
            found.append(errors.bad_value("spec.versions", spec.get("versions"), detail))
        for index, version in enumerate(spec.get("versions") or []):
            path = f"spec.versions[{index}].schema.openAPIV3Schema"
            schema = dig(version, "schema", "openAPIV3Schema")
            if not isinstance(schema, dict) or not schema:
                found.append(errors.required(path, "schemas are required"))
                continue
            for keyword in crd_schema.unenforced(schema, path):
                raise errors.not_here(keyword)
            found += [*crd_schema.malformed(schema, path), *cel_rules.findings_in(schema, path)]
            found += _findings_in_paths(version, f"spec.versions[{index}]")
        if dig(spec, "conversion", "strategy") != "None":
            raise errors.not_here("a conversion webhook")
        return found


def _findings_in_paths(version: Obj, where: str) -> Iterator[FieldError]:
    """JSON paths that lead nowhere: of columns, and of what scale reads and writes."""
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        if not jsonpath.is_path(column.get("jsonPath", "")):
            yield errors.bad_value(
                f"{where}.additionalPrinterColumns[{index}].jsonPath", column.get("jsonPath"), "is no path"
            )
    for name, path in (dig(version, "subresources", "scale") or {}).items():
        if not jsonpath.is_path(path) or "[" in path:
            yield errors.bad_value(f"{where}.subresources.scale.{name}", path, "must be a path of plain fields")


def resources_of(crd: Obj) -> list[Resource]:
    """The resources that a definition serves, one a version."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            singular=names["singular"],
            status=dig(version, "subresources", "status") is not None,
            unconditional_update=False,
            schema=version["schema"]["openAPIV3Schema"],
            columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()),
            scale=_scale(dig(version, "subresources", "scale")),
            custom=True,
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def _column(column: Obj) -> Column:
    return Column(
        name=column["name"],
        type=column["type"],
        path=column["jsonPath"],
        format=column.get("format", ""),
        description=column.get("description", ""),
        priority=column.get("priority", 0),
    )


def _scale(scale: Obj | None) -> Scale | None:
    if scale is None:
        return None
    return Scale(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))
