"""What does a script get that uses a parameter of which this rank has but a part, or nothing? An error with its name.

Such a tensor stays the object that modules, optimizer and script know; only while the script's own code runs it is of a
class whose every use raises. It is an ordinary parameter in the layer that it belongs to, and wherever the runtime is
at work: so nothing is asked of a step but to change some classes and change them back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch import nn

from drivetrain.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")


class Turn(Enum):
    """Whose code is running."""

    OURS = auto()
    FORWARD = auto()
    """The script's function that run.step or run.evaluate was given."""
    BETWEEN = auto()
    """The script's, between two calls of ours."""


class Door(Enum):
    """What must be open for the script's forward function to use a tensor."""

    LAYER = auto()
    """The layer that it belongs to runs (tensor parallelism)."""
    BLOCK = auto()
    """The block that it belongs to runs (ZeRO 3)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a tensor must not be used."""

    name: str
    shape: torch.Size
    """Of the whole."""
    why: str
    in_forward: bool = True
    """Not in the script's forward function either, unless all its doors are open."""
    doors: tuple[Door, ...] = ()
    """None: it is never here."""
    between: bool = True
    """Not between steps."""
    may_be_read: bool = False
    """It is all here, but what depends on it gets wrong gradients: refused only where gradients are computed."""


_TRUE: Final = frozenset(
    (
        *("dtype", "device", "layout", "is_leaf", "requires_grad", "grad_fn", "is_cuda", "is_cpu", "is_sparse"),
        *("__hash__", "is_floating_point", "is_complex", "requires_grad_", "retains_grad", "output_nr"),
        *("register_hook", "register_post_accumulate_grad_hook", "is_quantized", "is_meta", "_is_view"),
    )
)
"""What has the same answer for a part as for the whole."""


def _of_shape(name: str, shape: torch.Size, args: tuple[Any, ...]) -> Any:
    """What a question about the shape has for an answer; None if it is no such question."""
    if name in ("shape", "size"):
        return shape[args[0]] if args and args[0] is not None else shape
    if name in ("numel", "nelement"):
        return shape.numel()
    if name in ("dim", "ndim", "ndimension"):
        return len(shape)
    return None


class _Refusing:
    """Raises whatever it is used for."""

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(function, "__name__", str(function))
        accessor = name if name in ("__get__", "__set__", "__delete__") else ""
        if accessor:
            name = getattr(getattr(function, "__self__", None), "__name__", name)
        missing = _missing_in((args, kwargs or {}))
        clears = name == "grad" and accessor == "__set__" and args[1:] == (None,)
        reads = missing.may_be_read and not torch.is_grad_enabled() and accessor != "__set__"
        if name in _TRUE or clears or reads:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))
        if accessor != "__set__" and (answer := _of_shape(name, missing.shape, args[1:])) is not None:
            return answer
        raise UsageError(
            f"{missing.name}.{name}: {missing.why}" if accessor else f"{name} of {missing.name}: {missing.why}"
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        # A debugger, or a traceback with its variables, must not raise.
        missing: Missing = self.__dict__[_MISSING]
        return f"<{missing.name}, {tuple(missing.shape)}, is elsewhere>"


_MISSING: Final = "_drivetrain_missing"


class _RefusingParameter(_Refusing, nn.Parameter):  # type: ignore[misc]  # its repr takes no contents
    __slots__ = ()


class _RefusingTensor(_Refusing, torch.Tensor):  # type: ignore[misc]
    __slots__ = ()


def _missing_in(tree: Any) -> Missing:
    """Of the first refusing tensor in it."""
    found = next(_refusing_in(tree), None)
    return found if found is not None else Missing("a parameter", torch.Size(), "it is elsewhere")


def _refusing_in(tree: Any) -> Iterator[Missing]:
    if isinstance(tree, _Refusing):
        yield tree.__dict__[_MISSING]
    elif isinstance(tree, Mapping):
        for each in tree.values():
            yield from _refusing_in(each)
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            yield from _refusing_in(each)


_Swap = tuple[torch.Tensor, type[torch.Tensor], type[torch.Tensor]]
"""A tensor, its own class, and the refusing one."""


class Absent:
    """The tensors of one model that this rank does not have, or not all of."""

    def __init__(self, model: nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        self._turn = Turn.BETWEEN
        self._table: dict[torch.Tensor, Missing] = {}
        self._swaps: dict[torch.Tensor, _Swap] = {}
        self._refusing: dict[Turn, list[_Swap]] = {turn: [] for turn in Turn}
        self._open: dict[Door, set[torch.Tensor]] = {door: set() for door in Door}
        self._is_divided = False
        if model is not None:
            model.register_forward_pre_hook(
                lambda *_: self._refuse("call the model in the functions of run.step and run.evaluate only")
            )
            model.register_state_dict_pre_hook(lambda *_: self._refuse("write it with run.save"))
            model.register_load_state_dict_pre_hook(lambda *_: self._refuse("load it with prepare(resume=...)"))
        if optimizer is not None:
            optimizer.register_state_dict_pre_hook(lambda *_: self._refuse_state("write it with run.save"))
            optimizer.register_load_state_dict_pre_hook(
                lambda *_: self._refuse_state("load it with prepare(resume=...)")
            )

    # --- what is absent ---------------------------------------------------------------------------------------------

    def set(self, table: Mapping[torch.Tensor, Missing]) -> None:
        """These are, from now on. Empty: but the optimizer's state is divided."""
        with self.ours():
            self.clear()
            self._is_divided = True
            self._table = dict(table)
            for tensor, missing in self._table.items():
                refusing = _RefusingParameter if isinstance(tensor, nn.Parameter) else _RefusingTensor
                tensor.__dict__[_MISSING] = missing
                self._swaps[tensor] = swap = (tensor, type(tensor), refusing)
                if missing.in_forward:
                    self._refusing[Turn.FORWARD].append(swap)
                if missing.between:
                    self._refusing[Turn.BETWEEN].append(swap)

    def clear(self) -> None:
        """Everything is here."""
        with self.ours():
            for tensor in self._table:
                tensor.__dict__.pop(_MISSING, None)
            self._table, self._swaps, self._is_divided = {}, {}, False
            self._open = {door: set() for door in Door}
            self._refusing = {turn: [] for turn in Turn}

    def open(self, door: Door, tensors: Iterable[torch.Tensor]) -> None:
        """From now on the script's forward function may use them, as far as it depends on this."""
        self._turn_at(door, tensors, opens=True)

    def close(self, door: Door, tensors: Iterable[torch.Tensor]) -> None:
        """It must not any more."""
        self._turn_at(door, tensors, opens=False)

    def _turn_at(self, door: Door, tensors: Iterable[torch.Tensor], *, opens: bool) -> None:
        change = self._open[door].add if opens else self._open[door].discard
        for tensor in tensors:
            change(tensor)
            if self._turn is Turn.FORWARD and tensor in self._swaps and self._table[tensor].in_forward:
                _, own, refusing = self._swaps[tensor]
                tensor.__class__ = own if self._is_open(tensor) else refusing

    def _is_open(self, tensor: torch.Tensor) -> bool:
        doors = self._table[tensor].doors
        return bool(doors) and all(tensor in self._open[each] for each in doors)

    # --- whose turn it is -------------------------------------------------------------------------------------------

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Inside, the runtime is at work; after it, who was before."""
        before = self._turn
        self._take(Turn.OURS)
        try:
            yield
        finally:
            self._take(before)

    @contextmanager
    def scripts(self) -> Iterator[None]:
        """Inside, code of the script runs that is not its forward function."""
        before = self._turn
        self._take(Turn.BETWEEN)
        try:
            yield
        finally:
            self._take(before)

    def in_forward(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, which is the script's, called by us."""

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            before = self._turn
            self._take(Turn.FORWARD)
            try:
                return function(*args, **kwargs)
            finally:
                self._take(before)

        return call

    def _take(self, turn: Turn) -> None:
        if turn is self._turn:
            return
        for tensor, own, _ in self._refusing[self._turn]:
            tensor.__class__ = own
        self._turn = turn
        may_be_open = turn is Turn.FORWARD and any(self._open.values())
        for tensor, _, refusing in self._refusing[turn]:
            if not (may_be_open and self._is_open(tensor)):
                tensor.__class__ = refusing

    # --- the whole model --------------------------------------------------------------------------------------------

    def _refuse(self, instead: str) -> None:
        if self._turn is Turn.BETWEEN and self._refusing[Turn.BETWEEN]:
            first = next(iter(self._table.values()))
            raise UsageError(f"between steps no rank has the whole model: {instead} ({first.name}: {first.why})")

    def _refuse_state(self, instead: str) -> None:
        if self._turn is Turn.BETWEEN and self._is_divided:
            raise UsageError(f"between steps no rank has all of the optimizer's state: {instead}")
