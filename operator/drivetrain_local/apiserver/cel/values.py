"""What do CEL's operators and functions do to JSON values? As cel-go has it, with its error texts.

CelError            an evaluation that has no value; `||`, `&&` and `?:` may still have one
CelSyntaxError      no CEL at all, or a name that nobody declared: a server answers 422
CelUnsupported      CEL, but not of this subset: the plane answers 501
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final

from drivetrain_local.apiserver.patterns import pattern_of

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1


class CelError(Exception):
    """An expression that has no value, such as one that reads an absent field."""


class CelSyntaxError(Exception):
    """Text that is no expression."""


class CelUnsupported(Exception):
    """An expression with something that only a real API server understands."""


def no_overload(name: str) -> CelError:
    return CelError(f"no such overload: {name}")


def truth(value: Any) -> bool:
    """A boolean, and nothing that merely looks like one."""
    if not isinstance(value, bool):
        raise no_overload("bool")
    return value


def select(value: Any, field: str) -> Any:
    """`value.field`."""
    if not isinstance(value, dict):
        raise no_overload(f"select {field}")
    if field not in value:
        raise CelError(f"no such key: {field}")
    return value[field]


def index(value: Any, key: Any) -> Any:
    """`value[key]` of a list or a map."""
    if isinstance(value, dict):
        return select(value, key)
    if not isinstance(value, list) or not _is_int(key):
        raise no_overload("_[_]")
    if not 0 <= key < len(value):
        raise CelError(f"index out of bounds: {key}")
    return value[key]


def equal(left: Any, right: Any) -> bool:
    """Deep equality in which 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(left == right)


def contained(item: Any, holder: Any) -> bool:
    """`item in holder`."""
    if isinstance(holder, dict):
        return item in holder
    if isinstance(holder, list):
        return any(equal(item, other) for other in holder)
    raise no_overload("@in")


def negated(value: Any) -> Any:
    if not _is_number(value):
        raise no_overload("-_")
    return _bounded(-value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise CelError("integer overflow")
    return value


def _ordered(name: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def apply(left: Any, right: Any) -> bool:
        alike = (_is_number(left) and _is_number(right)) or any(
            isinstance(left, kind) and isinstance(right, kind) for kind in (str, bool)
        )
        if not alike:
            raise no_overload(name)
        return compare(left, right)

    return apply


def _arithmetic(name: str, compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(left: Any, right: Any) -> Any:
        if not _is_number(left) or _is_int(left) != _is_int(right) or not _is_number(right):
            raise no_overload(name)
        return _bounded(compute(left, right))

    return apply


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        return [*left, *right]
    return _sum(left, right)


def _divide(left: Any, right: Any) -> Any:
    """Towards zero, as in Go."""
    if isinstance(left, float):
        return left / right if right else left * float("inf")
    if right == 0:
        raise CelError("division by zero")
    return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)


def _modulo(left: Any, right: Any) -> Any:
    """With the sign of the dividend, as in Go."""
    if isinstance(left, float):
        raise no_overload("_%_")
    if right == 0:
        raise CelError("modulus by zero")
    return abs(left) % abs(right) * (1 if left >= 0 else -1)


_sum = _arithmetic("_+_", operator.add)
BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": _ordered("_<_", operator.lt),
    "<=": _ordered("_<=_", operator.le),
    ">": _ordered("_>_", operator.gt),
    ">=": _ordered("_>=_", operator.ge),
    "in": contained,
    "+": _add,
    "-": _arithmetic("_-_", operator.sub),
    "*": _arithmetic("_*_", operator.mul),
    "/": _arithmetic("_/_", _divide),
    "%": _arithmetic("_%_", _modulo),
}


def _of_text(name: str, compute: Callable[[str, str], Any]) -> Callable[..., Any]:
    def apply(target: Any, argument: Any) -> Any:
        if not isinstance(target, str) or not isinstance(argument, str):
            raise no_overload(name)
        return compute(target, argument)

    return apply


def _size(value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise no_overload("size")
    return len(value)


def _matches(text: str, pattern: str) -> bool:
    try:
        return pattern_of(pattern).search(text) is not None
    except re.error as error:
        raise CelError(f"error parsing regexp: {error}") from error


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise no_overload("int")
    try:
        return int(_bounded(int(value)))
    except ValueError as error:
        raise CelError(f"type conversion error from 'string' to 'int': {value}") from error


def _to_double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise no_overload("double")
    try:
        return float(value)
    except ValueError as error:
        raise CelError(f"type conversion error from 'string' to 'double': {value}") from error


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float | str):
        raise no_overload("string")
    return str(value)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "size": _size,
    "int": _to_int,
    "double": _to_double,
    "string": _to_string,
}
"""What is called as f(x)."""

METHODS: Final[dict[str, Callable[..., Any]]] = {
    "matches": _of_text("matches", _matches),
    "startsWith": _of_text("startsWith", str.startswith),
    "endsWith": _of_text("endsWith", str.endswith),
    "contains": _of_text("contains", lambda text, part: part in text),
}
"""What is called as x.f(y)."""
