"""A device that is not the processor, without hardware: what lies on it is another kind of tensor than what does not.

It is torch's PrivateUse1 backend, written in Python. A `Card` tensor keeps its numbers in a hidden tensor of the
processor, on which operations run; so training on it gives the same bits. It is as strict as CUDA: an operation on
tensors of both devices is an error, except copying and single numbers, and so is asking for its memory (`numpy()`).

Limits: storages cannot be resized (ZeRO 3), a tensor cannot become one of another class (what stands in for the blocks
of other stages of a pipeline), and nothing is asynchronous: streams and events are not tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from drivetrain import plain

NAME: Final = "card"
_aten: Final = torch.ops.aten
_MOVES: Final = ("aten::copy_", "aten::_to_copy", "aten::set_.source_Tensor", "aten::_foreach_copy_")


class Card(torch.Tensor):
    """A tensor on the card."""

    hidden: torch.Tensor

    @staticmethod
    def of(hidden: torch.Tensor) -> Card:
        """One with these numbers, which it shares."""
        made: Card = torch.Tensor._make_wrapper_subclass(
            Card,
            hidden.size(),
            hidden.stride(),
            hidden.storage_offset(),
            dtype=hidden.dtype,
            device=torch.device(NAME, 0),
        )
        made.hidden = hidden
        return made

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        assert isinstance(other, Card), f"a parameter on the card got data on {other.device}"
        torch.Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.hidden = other.hidden

    def tolist(self) -> Any:
        """Its numbers: torch refuses this for kinds of tensors that it does not know."""
        return self.hidden.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a tensor of the processor."""
        return self.hidden.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub has it without its class
        cls,
        function: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[Any, Any] | None = None,
    ) -> Any:
        return _run(function, args, dict(kwargs or {}))


def _run(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    cards = {id(each.hidden): each for each in given if isinstance(each, Card)}
    others = [each for each in given if not isinstance(each, Card)]
    moves = function.name().startswith(_MOVES)
    if cards and not moves and any(each.dim() for each in others):
        raise RuntimeError(f"{function}: expected all tensors to be on the same device, found {NAME} and cpu")
    target = kwargs.get("device")
    to_card = bool(cards) if target is None else torch.device(target).type == NAME
    if target is not None:
        kwargs["device"] = "cpu"
    hidden_args, hidden_kwargs = pytree.tree_map_only(Card, lambda each: each.hidden, (args, kwargs))
    result = function(*hidden_args, **hidden_kwargs)
    if moves and others and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Card):
        return args[0]  # from the card into a tensor of the processor

    def placed(each: torch.Tensor) -> torch.Tensor:
        if id(each) in cards:  # in place
            card = cards[id(each)]
            assert card.shape == each.shape, f"{function} resizes a tensor on the card, which it cannot follow"
            return card
        return Card.of(each) if to_card else each

    return pytree.tree_map_only(torch.Tensor, placed, result)


def _made_on_card(name: str) -> Callable[..., torch.Tensor]:
    function = getattr(_aten, name.split(".")[0])
    overload = getattr(function, name.split(".")[1] if "." in name else "default")

    def make(*args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        return Card.of(overload(*args, **kwargs))

    return make


_library: torch.library.Library | None = None


def install() -> torch.device:
    """Make the device known to torch in this process, once; returns it."""
    global _library
    if _library is None:
        _setup_privateuseone_for_python_backend(NAME)
        _library = torch.library.Library("aten", "IMPL")
        for name in ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"):
            _library.impl(name, _made_on_card(name), "PrivateUse1")
        _library.impl("_copy_from", _from_processor, "PrivateUse1")
        # Tensors of a real device are plain ones, which a file may hold.
        plain._TENSORS = (*plain._TENSORS, Card)  # type: ignore[misc,assignment]
    return torch.device(NAME, 0)


def _from_processor(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    assert isinstance(target, Card)
    target.hidden.copy_(source)
    return target
