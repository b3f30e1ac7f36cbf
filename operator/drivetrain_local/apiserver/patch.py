"""What does an object become under a patch?

Merge patch (RFC 7386), JSON patch (RFC 6902) and, for built-in kinds, the strategic merge patch of `kubectl`.
Nothing here changes its arguments.
"""

from __future__ import annotations

import copy
from typing import Any

from drivetrain_local.apiserver.errors import ApiError, bad_request
from drivetrain_local.objects import Obj

MERGE_KEYS: dict[str, str] = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "volumes": "name", "env": "name",
    "volumeMounts": "mountPath", "volumeDevices": "devicePath", "imagePullSecrets": "name", "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey", "conditions": "type", "ownerReferences": "uid", "podIPs": "ip",
    "addresses": "type", "taints": "key", "secrets": "name", "resourceClaims": "name", "hostIPs": "ip",
}  # fmt: skip
"""The merge key of each list that Kubernetes merges by key. `ports` differs, see `_merge_key`."""

_UNION_LISTS = ("finalizers",)
"""Lists of plain values that merge by union."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. A failed `test` or a missing path is the server's 422."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if not all(isinstance(operation, dict) for operation in operations):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Operation")
    document = copy.deepcopy(target)
    for operation in operations:
        document = _apply_operation(document, operation)
    return document


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Kubernetes' strategic merge, by the merge keys of the built-in kinds."""
    if isinstance(patch, dict):
        return _strategic_object(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, field)
    return patch


def _strategic_object(target: Obj, patch: Obj) -> Obj:
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target)
    if isinstance(keep := patch.get("$retainKeys"), list):
        result = {key: value for key, value in result.items() if key in keep}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name, []) if item not in value]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.partition("/")[2]
            if name in result:
                result[name] = _ordered(result[name], order, name)
    return result


def _strategic_list(target: list[Any], patch: list[Any], field: str) -> list[Any]:
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    if field in _UNION_LISTS:
        return [*target, *(item for item in patch if item not in target)]
    key = _merge_key(field, [*target, *patch])
    if key is None:
        return copy.deepcopy(patch)
    result = list(target)
    for item in patch:
        position = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if position is not None:
                del result[position]
        elif position is None:
            result.append(_strategic_object({}, item))
        else:
            result[position] = _strategic_object(result[position], item)
    return result


def _merge_key(field: str, items: list[Any]) -> str | None:
    """`ports` merge by `port` in a Service and by `containerPort` in a container."""
    if not all(isinstance(item, dict) for item in items):
        return None
    if field == "ports":
        return "containerPort" if any("containerPort" in item for item in items) else "port"
    key = MERGE_KEYS.get(field)
    return key if key is not None and all(key in item for item in items) else None


def _ordered(items: list[Any], order: list[Any], field: str) -> list[Any]:
    """Sort by the patch's wish; items that it does not name keep their place at the end."""
    key = _merge_key(field, [item for item in [*items, *order] if isinstance(item, dict)])

    def identity(item: Any) -> Any:
        return item.get(key) if isinstance(item, dict) and key else item

    ranks = {identity(item): rank for rank, item in enumerate(order)}
    return sorted(items, key=lambda item: ranks.get(identity(item), len(ranks)))


def _apply_operation(document: Any, operation: Obj) -> Any:
    op, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise _unprocessable(f"{op} operation has no path")
    match op:
        case "add":
            return _set(document, path, copy.deepcopy(operation.get("value")), insert=True)
        case "replace":
            _lookup(document, path, op)
            return _set(document, path, copy.deepcopy(operation.get("value")), insert=False)
        case "remove":
            _lookup(document, path, op)
            return _remove(document, path)
        case "test":
            if _lookup(document, path, op, missing_ok=True) != operation.get("value"):
                raise _unprocessable(f"testing value {path} failed: test failed")
            return document
        case "move" | "copy":
            source = operation.get("from")
            if not isinstance(source, str):
                raise _unprocessable(f"{op} operation has no from")
            value = copy.deepcopy(_lookup(document, source, op))
            return _set(_remove(document, source) if op == "move" else document, path, value, insert=True)
        case _:
            raise _unprocessable(f"Unexpected kind: {op}")


def _tokens(path: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def _lookup(document: Any, path: str, op: str, *, missing_ok: bool = False) -> Any:
    for token in _tokens(path):
        if isinstance(document, list) and token.isdecimal() and int(token) < len(document):
            document = document[int(token)]
        elif isinstance(document, dict) and token in document:
            document = document[token]
        elif missing_ok:
            return None
        else:
            raise _unprocessable(f"{op} operation does not apply: doc is missing path: {path}: missing value")
    return document


def _set(document: Any, path: str, value: Any, *, insert: bool) -> Any:
    tokens = _tokens(path)
    if not tokens:
        return value
    parent = _lookup(document, path.rpartition("/")[0], "add")
    last = tokens[-1]
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last) if last.isdecimal() else -1
        if not 0 <= index <= len(parent):
            raise _unprocessable(f"add operation does not apply: doc is missing path: {path}: index out of bounds")
        if insert:
            parent.insert(index, value)
        else:
            parent[index] = value
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise _unprocessable(f"add operation does not apply: doc is missing path: {path}: missing value")
    return document


def _remove(document: Any, path: str) -> Any:
    parent = _lookup(document, path.rpartition("/")[0], "remove")
    last = _tokens(path)[-1] if path.startswith("/") else ""
    if isinstance(parent, list) and last.isdecimal() and int(last) < len(parent):
        del parent[int(last)]
    elif isinstance(parent, dict) and last in parent:
        del parent[last]
    else:
        raise _unprocessable(f"remove operation does not apply: doc is missing path: {path}: missing value")
    return document


def _unprocessable(message: str) -> ApiError:
    """A patch that does not apply: 422 Invalid without a kind, as apimachinery's generic status has it."""
    text = f"the server rejected our request due to an error in our request: {message}"
    return ApiError(422, "Invalid", text)
