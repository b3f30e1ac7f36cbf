"""PURE: how is a pod template merged over the pod that we generate? As `kubectl patch --type=strategic` would.

Maps merge key by key, null deletes a key, lists of the types below merge item by item on Kubernetes' own merge keys,
every other list is replaced. Items keep our order first; the template's new ones follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from drivetrain_operator.render.errors import InvalidTemplate

MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
}
"""patchMergeKey (or, where it names several, the list-map keys) of the lists inside a PodTemplateSpec."""

ABSENT: Final[Mapping[str, str]] = {"protocol": "TCP"}
"""Merge keys that may be left out, and what is meant then."""


def merge(base: Any, patch: Any, path: str = "") -> Any:
    """`patch` over `base`. Raises `InvalidTemplate` with the path of the first thing that cannot be merged."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            where = f"{path}.{key}" if path else str(key)
            if value is None:
                merged.pop(key, None)
            elif key not in merged:
                # Nulls below mean "absent" as well; an empty base of the same kind strips them.
                merged[key] = merge_list([], value, key, where) if isinstance(value, list) else _strip(value, where)
            elif isinstance(merged[key], list) and isinstance(value, list):
                merged[key] = merge_list(merged[key], value, key, where)
            else:
                merged[key] = merge(merged[key], value, where)
        return merged
    if isinstance(base, dict | list) and type(base) is not type(patch):
        raise InvalidTemplate(path, f"must be {'an object' if isinstance(base, dict) else 'a list'}")
    return patch


def merge_list(base: list[Any], patch: list[Any], name: str, path: str) -> list[Any]:
    """Two lists of one field."""
    keys = MERGE_KEYS.get(name)
    if keys is None:
        return patch
    merged = list(base)
    at = {_key(item, keys): position for position, item in enumerate(merged)}
    for position, item in enumerate(patch):
        where = f"{path}[{position}]"
        if not isinstance(item, dict):
            raise InvalidTemplate(where, "must be an object")
        identity = _key(item, keys)
        if identity[0] is None:
            raise InvalidTemplate(where, f"needs a {keys[0]}")
        if identity not in at:
            at[identity] = len(merged)
            merged.append(merge({}, item, where))
        elif name == "volumes" and not set(item) <= set(merged[at[identity]]):
            # Another kind of volume under one of our names replaces it: a volume has exactly one source.
            merged[at[identity]] = item
        else:
            merged[at[identity]] = merge(merged[at[identity]], item, where)
    return merged


def _strip(value: Any, path: str) -> Any:
    return merge({}, value, path) if isinstance(value, dict) else value


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, ABSENT.get(key)) for key in keys)
