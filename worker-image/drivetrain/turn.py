"""Whose turn is it, the script's or the runtime's? What a script asks for begins and ends here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from drivetrain.operation import Operations

P = ParamSpec("P")
R = TypeVar("R")


def operation(method: Callable[Concatenate[Operations, P], R]) -> Callable[Concatenate[Operations, P], R]:
    """Something that the script asks for: the runtime is at work until it ends, and the script after that."""

    @functools.wraps(method)
    def call(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with self.subject.ours():
                return method(self, *args, **kwargs)
        finally:
            self.world.at("script", self.position.step, "")

    return call


def at_work(method: Callable[Concatenate[Operations, P], R]) -> Callable[Concatenate[Operations, P], R]:
    """The same for what the runtime does in the course of one."""

    @functools.wraps(method)
    def call(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.subject.ours():
            return method(self, *args, **kwargs)

    return call
