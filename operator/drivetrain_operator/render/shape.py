"""PURE: has a template the shape of a Kubernetes pod template, as the official client's models know it?

A wrong type is refused, because the API server would refuse every pod that has it. A field that the models do not know
may be of a newer Kubernetes, so it is only told: the API server drops what it does not know without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from drivetrain_operator.render.errors import InvalidTemplate

MAX_TOLD: Final = 8
MAX_DEPTH: Final = 48
"""The deepest place of a pod, in an affinity term of a volume's claim, is not half as deep."""
_QUANTITIES: Final = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor", "storage"})
"""Where Kubernetes takes a number for a quantity; the models want a string."""
_Template = Mapping[str, Any]


@cache
def models() -> ModuleType:
    """The official client's. Loading them takes half a second, for which no command that tells a status should wait;
    the operator loads them when it starts."""
    from kubernetes import client

    found: ModuleType = client
    return found


def check_template(template: _Template) -> None:
    """Raises `InvalidTemplate` with the path of the first value of a wrong type."""
    _check_depth(template)
    _check_directives(template, ())
    for error in _errors("V1PodTemplateSpec", without_nulls(template)):
        if error["type"] not in ("extra_forbidden", "missing"):
            raise _invalid(error)


def check_pod(pod: _Template) -> None:
    """The same of a whole pod, in which nothing that Kubernetes requires may be missing."""
    for error in _errors("V1Pod", pod):
        if error["type"] != "extra_forbidden":
            raise _invalid(error, pod)


def peer(given: Any) -> dict[str, Any]:
    """A NetworkPolicyPeer as the API server gives it back, without selectors' empty parts. Raises ValueError."""
    models().V1NetworkPolicyPeer.model_validate(given)
    if not given:
        raise ValueError("it needs podSelector, namespaceSelector or ipBlock")
    return {key: {part: value for part, value in each.items() if value} for key, each in given.items()}


def unknown_fields(template: _Template) -> list[str]:
    """Paths of fields that no pod has, as far as the models know; the first few."""
    found = [
        _path(error["loc"])
        for error in _errors("V1PodTemplateSpec", without_nulls(template))
        if error["type"] == "extra_forbidden"
    ]
    return found[:MAX_TOLD]


def without_nulls(value: Any) -> Any:
    """In a patch, null takes a key away: what it would have been is no matter."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def _errors(model: str, value: _Template) -> list[ErrorDetails]:
    try:
        getattr(models(), model).model_validate(value)
    except ValidationError as error:
        return [each for each in error.errors(include_url=False) if not _is_quantity(each)]
    return []


def _is_quantity(error: ErrorDetails) -> bool:
    given = error["input"]
    number = isinstance(given, int | float) and not isinstance(given, bool)
    return error["type"] == "string_type" and number and not _QUANTITIES.isdisjoint(map(str, error["loc"][-2:]))


def _check_depth(template: _Template) -> None:
    if is_deep(template, MAX_DEPTH):
        raise InvalidTemplate("", f"is nested more than {MAX_DEPTH} levels deep")


def is_deep(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested deeper than that. It walks level by level, and so takes any depth."""
    level: list[Any] = [value]
    for _ in range(levels):
        level = [
            each
            for parent in level
            for each in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(each, dict | list)
        ]
        if not level:
            return False
    return True


def _check_directives(value: Any, path: tuple[int | str, ...]) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            if str(key).startswith("$"):
                raise InvalidTemplate(_path((*path, key)), "directives of patches are not understood here")
            _check_directives(each, (*path, key))
    elif isinstance(value, list):
        for position, each in enumerate(value):
            _check_directives(each, (*path, position))


def _invalid(error: ErrorDetails, merged: _Template | None = None) -> InvalidTemplate:
    text = error["msg"].removeprefix("Input ").split(" or instance of ")[0]
    if error["type"] == "missing":
        text = "is required"
    loc = error["loc"] if merged is None else _by_name(error["loc"], merged)
    return InvalidTemplate(_path(loc), text.replace("valid dictionary", "an object").replace("a an", "an"))


def _by_name(loc: Sequence[int | str], value: Any) -> list[int | str]:
    """In a merged list, positions are not the template's; names are."""
    found: list[int | str] = []
    for part in loc:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        named = isinstance(part, int) and isinstance(value, dict) and isinstance(value.get("name"), str)
        found.append(f"{value['name']}." if named else part)
    return found


def _path(loc: Sequence[int | str]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.replace("_", "").isalnum():
            path += f".{part}" if path else part
        else:
            path += f"[{part.removesuffix('.')}]"  # a label or such, with dots of its own; or a name
    return path
