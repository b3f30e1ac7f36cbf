"""What has a value though a part of it has none? `||` and `&&`, and the macros that ask every item of a list or map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from drivetrain_local.apiserver.cel.values import CelError, no_overload, truth

Names = Mapping[str, Any]
Node = Callable[[Names], Any]


def decided(left: Node, right: Node, decisive: bool) -> Node:
    """`||` (decisive: true) or `&&` (false): either side decides alone, whatever became of the other."""

    def value(names: Names) -> bool:
        lost: CelError | None = None
        for side in (left, right):
            try:
                if truth(side(names)) is decisive:
                    return decisive
            except CelError as error:
                lost = lost or error
        if lost is not None:
            raise lost
        return not decisive

    return value


def _each(target: Node, variable: str, names: Names) -> Iterator[tuple[Any, Names]]:
    """The items of a list or the keys of a map, each with the variables that the body sees."""
    holder = target(names)
    if not isinstance(holder, list | dict):
        raise no_overload("comprehension")
    for item in holder:
        yield item, {**names, variable: item}


def _quantified(decisive: bool) -> Callable[[Node, str, Node], Node]:
    def macro(target: Node, variable: str, body: Node) -> Node:
        def value(names: Names) -> bool:
            lost: CelError | None = None
            for _, inner in _each(target, variable, names):
                try:
                    if truth(body(inner)) is decisive:
                        return decisive
                except CelError as error:
                    lost = lost or error
            if lost is not None:
                raise lost
            return not decisive

        return value

    return macro


def _exists_one(target: Node, variable: str, body: Node) -> Node:
    return lambda names: sum(truth(body(inner)) for _, inner in _each(target, variable, names)) == 1


def _filter(target: Node, variable: str, body: Node) -> Node:
    return lambda names: [item for item, inner in _each(target, variable, names) if truth(body(inner))]


def _map(target: Node, variable: str, body: Node) -> Node:
    return lambda names: [body(inner) for _, inner in _each(target, variable, names)]


MACROS: Final[dict[str, Callable[[Node, str, Node], Node]]] = {
    "all": _quantified(False),
    "exists": _quantified(True),
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _map,
}
