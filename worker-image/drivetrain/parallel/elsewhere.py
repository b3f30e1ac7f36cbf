"""What stands in a script's variables for what another stage of the pipeline has computed.

A stage runs the script's whole forward function, but for the blocks of other stages. Before its own blocks the values
are unknown: whatever is computed from one is unknown, too. When the first of its blocks is called, what that is given
arrives from the stage before, and the stand-in is that tensor from then on; what was computed from it is computed then,
if it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch.utils._pytree import tree_any, tree_map

from drivetrain.errors import UsageError

_METADATA: Final = frozenset(
    # Asked for by torch.utils.checkpoint; the stand-in's own answer is right.
    getter.__get__
    for getter in (torch.Tensor.device, torch.Tensor.requires_grad, torch.Tensor.layout)  # type: ignore[attr-defined]
)
_PLAIN: Final = frozenset(
    "__get__ __bool__ __len__ __float__ __int__ __index__ __contains__ item tolist numpy size dim ndimension numel "
    "stride is_floating_point is_complex element_size".split()
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
        args, kwargs = known((args, dict(kwargs or {})))
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
        device = next(each.device for each in _leaves((args, kwargs)) if isinstance(each, Elsewhere))
        return cls.on(device, (function, (args, kwargs)))


def known(tree: Any) -> Any:
    """The same with tensors in the places of what is not unknown any more."""

    def replaced(each: Any) -> Any:
        tensor = each.settled() if isinstance(each, Elsewhere) else None
        return each if tensor is None else tensor

    return tree_map(replaced, tree)


def has_unknown(tree: Any) -> bool:
    """Whether anything in it is still unknown."""
    return tree_any(lambda each: isinstance(each, Elsewhere) and each.settled() is None, tree)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    tree_map(found.append, tree)
    return found
