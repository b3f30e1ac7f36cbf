"""What does the server say about itself? Versions, groups and resources, from which kubectl builds its mapping.

Aggregated discovery is not offered: a client that asks for it gets plain JSON and falls back.
"""

from __future__ import annotations

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.resources import Registry, Resource
from drivetrain_local.objects import Obj

GIT_VERSION = "v1.34.0-drivetrain-local"
"""The API level that this server imitates; the suffix tells people that it is no Kubernetes."""


def version() -> Obj:
    major, minor, *_ = GIT_VERSION.removeprefix("v").split(".")
    return {
        "major": major, "minor": minor, "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "cpython", "platform": "linux/amd64",
    }  # fmt: skip


def api_versions(address: str) -> Obj:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(registry: Registry) -> Obj:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, v) for g, v in registry.groups().items()]}


def group(registry: Registry, name: str) -> Obj:
    """One group. Raises 404."""
    versions = registry.groups().get(name)
    if versions is None:
        raise errors.no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def resources(registry: Registry, group_name: str, version_name: str) -> Obj:
    """The resources of a group version. Raises 404."""
    found = registry.in_version(group_name, version_name)
    if not found:
        raise errors.no_such_path()
    listed = [entry for resource in found for entry in _entries(resource)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].group_version,
        "resources": listed,
    }


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _entries(resource: Resource) -> list[Obj]:
    main: Obj = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    if resource.categories:
        main["categories"] = list(resource.categories)
    found = [main]
    if resource.status:
        found.append(_sub(resource, "status", resource.kind, ["get", "patch", "update"]))
    if resource.scale:
        scale = _sub(resource, "scale", "Scale", ["get", "patch", "update"])
        found.append({**scale, "group": "autoscaling", "version": "v1"})
    if resource.key == "pods":
        found.append(_sub(resource, "log", "Pod", ["get"]))
        found.append(_sub(resource, "binding", "Binding", ["create"]))
        found.append({**_sub(resource, "eviction", "Eviction", ["create"]), "group": "policy", "version": "v1"})
    return found


def _sub(resource: Resource, name: str, kind: str, verbs: list[str]) -> Obj:
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": verbs,
    }
