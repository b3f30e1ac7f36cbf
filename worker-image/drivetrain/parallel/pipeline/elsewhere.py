"""What stands in a script's variables for what another stage of the pipeline has computed.

A stage runs the script's whole forward function, but for the blocks of other stages. Before its own blocks the values
are unknown: whatever is computed from one is unknown, too. When the first of its blocks is called, what that is given
arrives from the stage before, and the stand-in is that tensor from then on; what was computed from it is computed then,
if it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from drivetrain.errors import UsageError

_METADATA: Final = frozenset(
    # Asked for by torch.utils.checkpoint; the stand-in's own answer is right.
    getattr(torch.Tensor, name).__get__
    for name in ("device", "requires_grad", "layout")
)
_PLAIN: Final = frozenset(
    (
        *("__get__", "__bool__", "__len__", "__float__", "__int__", "__index__", "__contains__"),
        *("item", "tolist", "numpy", "size", "dim", "ndimension", "numel", "stride", "element_size"),
        *("is_floating_point", "is_complex"),
    )
)
"""What gives something other than tensors."""


_Computed = tuple[Callable[..., Any], tuple[tuple[Any, ...], dict[str, Any]]]


class Elsewhere(torch.Tensor):
    """Unknown, until `arrived` is set, here or in what it is computed from."""

    arrived: torch.Tensor | None
    computed: _Computed | None
    """By which function, and of what."""

    @staticmethod
    def on(device: torch.device, computed: _Computed | None = None) -> Elsewhere:
        """A new one."""
        made: Elsewhere = torch.empty(0, device=device).as_subclass(Elsewhere)
        made.arrived, made.computed = None, computed
        return made

    def settled(self) -> torch.Tensor | None:
        """The tensor, as soon as it is known."""
        if self.arrived is None and self.computed is not None:
            function, given = self.computed
            args, kwargs = known(given)
            if not has_unknown((args, kwargs)):
                self.arrived = function(*args, **kwargs)
        return self.arrived

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given: tuple[tuple[Any, ...], dict[str, Any]] = known((args, dict(kwargs or {})))
        args, kwargs = given
        if not has_unknown((args, kwargs)):
            return function(*args, **kwargs)
        if function in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        name = getattr(function, "__name__", str(function))
        if name in _PLAIN:
            name = getattr(getattr(function, "__self__", None), "__name__", name)  # of a property
            raise UsageError(
                "forward: with training.parallel.pipeline, what a block returns can only be given to the next block, "
                f"or to operations on the way there; {name} asks for its shape or numbers. Do that inside a block"
            )
        device = next(_stand_ins(given)).device
        return cls.on(device, (function, given))


def known(tree: Any) -> Any:
    """The same with tensors in the places of what is not unknown any more. Looks into tuples, lists and dicts."""
    if isinstance(tree, Elsewhere):
        tensor = tree.settled()
        return tree if tensor is None else tensor
    if type(tree) in (tuple, list):
        return type(tree)(known(each) for each in tree)
    if type(tree) is dict:
        return {name: known(each) for name, each in tree.items()}
    return tree


def has_unknown(tree: Any) -> bool:
    """Whether anything in it is still unknown."""
    return any(each.settled() is None for each in _stand_ins(tree))


def _stand_ins(tree: Any) -> Iterator[Elsewhere]:
    if isinstance(tree, Elsewhere):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            yield from _stand_ins(each)
    elif isinstance(tree, dict):
        yield from _stand_ins(list(tree.values()))
