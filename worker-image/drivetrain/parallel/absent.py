"""What does a script get that uses a parameter of which this rank has but a part, or nothing? An error with its name.

Such a tensor stays the object that modules, optimizer and script know; only while the script's own code runs it is of a
class whose every use raises. It is an ordinary parameter in the layer that it belongs to, and wherever the runtime is
at work: so nothing is asked of a step but to change some classes and change them back.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from types import FrameType
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import torch
from torch import nn

from drivetrain.errors import UsageError
from drivetrain.parallel.seen import Seen

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
    gradient: str = ""
    """Why it has no gradient between steps, where it is all here but for that."""
    has_others: Callable[[], bool] = lambda: False
    """Whether there are gradients, which the script has computed, so one without has none."""


_TRUE: Final = frozenset(
    (
        *("dtype", "device", "layout", "is_leaf", "requires_grad", "grad_fn", "is_cuda", "is_cpu", "is_sparse"),
        *("__hash__", "is_floating_point", "is_complex", "requires_grad_", "retains_grad", "output_nr"),
        *("register_hook", "register_post_accumulate_grad_hook", "is_quantized", "is_meta", "_is_view"),
    )
)
"""What has the same answer for a part as for the whole."""


_LOOK_FOR_GRADIENTS: Final = frozenset(
    inspect.unwrap(each).__code__ for each in (torch.optim.Optimizer.zero_grad, nn.Module.zero_grad, nn.Module._apply)
)
"""Whose work is done where there is none."""


def _looks_for_gradients(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code in _LOOK_FOR_GRADIENTS


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
        tensor = _missing_in((args, kwargs or {}))
        missing: Missing = tensor.__dict__[_MISSING]
        asks_gradient = name == "grad" and accessor == "__get__"
        looks = asks_gradient and _looks_for_gradients(sys._getframe(1))
        if isinstance(tensor, _WithoutGradient):
            with torch._C.DisableTorchFunctionSubclass():
                found = function(*args, **(kwargs or {}))
                gone = asks_gradient and found is None and not looks and not missing.has_others()
            if gone:
                raise UsageError(f"{missing.name}.grad: {missing.gradient}")
            return found
        if looks:
            return None
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


class _WithoutGradient(_RefusingParameter):
    """Like any parameter, but for its gradient. A copy of it is one."""

    __slots__ = ()

    def _plain(self) -> nn.Parameter:
        plain = nn.Parameter(self.data, self.requires_grad)
        plain.__dict__.update({name: value for name, value in self.__dict__.items() if name != _MISSING})
        return plain

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = copy.deepcopy(self._plain(), memo)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._plain().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self._plain())


class _RefusingTensor(_Refusing, torch.Tensor):  # type: ignore[misc]
    __slots__ = ()


def _missing_in(tree: Any) -> _Refusing:
    """The first refusing tensor in it, of which more is missing than a gradient if there is one."""
    first = None
    for each in _refusing_in(tree):
        if not isinstance(each, _WithoutGradient):
            return each
        first = each if first is None else first
    assert first is not None
    return first


def _refusing_in(tree: Any) -> Iterator[_Refusing]:
    if isinstance(tree, _Refusing):
        yield tree
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

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        names: Mapping[torch.Tensor, str] | None = None,
    ) -> None:
        """`model` None: it stays whole. `names` of its parameters."""
        self._turn = Turn.BETWEEN
        self._table: dict[torch.Tensor, Missing] = {}
        self._swaps: dict[torch.Tensor, _Swap] = {}
        self._refusing: dict[Turn, list[_Swap]] = {turn: [] for turn in Turn}
        self._open: dict[Door, set[torch.Tensor]] = {door: set() for door in Door}
        self._is_divided = False
        self._seen = Seen(optimizer, names or {})
        if model is not None:
            refuse = functools.partial(_Guard, self._refuse, model)
            model.register_forward_pre_hook(refuse("call the model in the functions of run.step and run.evaluate only"))
            model.register_state_dict_pre_hook(refuse("write it with run.save"))
            model.register_load_state_dict_pre_hook(refuse("load it with prepare(resume=...)"))
        if optimizer is not None:
            optimizer.register_state_dict_pre_hook(lambda *_: self._refuse_state("write it with run.save"))
            optimizer.register_load_state_dict_pre_hook(
                lambda *_: self._refuse_state("load it with prepare(resume=...)")
            )

    # --- what is absent ---------------------------------------------------------------------------------------------

    def set(
        self, table: Mapping[torch.Tensor, Missing], owners: Mapping[nn.Parameter, nn.Parameter] | None = None
    ) -> None:
        """These are, from now on, and the optimizer's state is divided. `owners`: see seen.py."""
        with self.ours():
            self.clear()
            self._is_divided = True
            self._seen.divide(owners or {})
            self._table = dict(table)
            for tensor, missing in self._table.items():
                refusing = _RefusingParameter if isinstance(tensor, nn.Parameter) else _RefusingTensor
                tensor.__dict__[_MISSING] = missing
                self._swaps[tensor] = swap = (tensor, type(tensor), refusing)
                if missing.in_forward:
                    self._refusing[Turn.FORWARD].append(swap)
                if missing.between:
                    self._refusing[Turn.BETWEEN].append(swap)
                elif missing.gradient:
                    self._refusing[Turn.BETWEEN].append((tensor, type(tensor), _WithoutGradient))

    def clear(self) -> None:
        """Everything is here."""
        with self.ours():
            for tensor in self._table:
                tensor.__dict__.pop(_MISSING, None)
            self._table, self._swaps, self._is_divided = {}, {}, False
            self._seen.whole()
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

    @contextmanager
    def many_forwards(self) -> Iterator[None]:
        """Inside, the script's forward function is called many times, and nobody uses what is absent between the calls,
        so it need not come and go each time. Does nothing if there are doors, because backward uses what is behind."""
        before = self._turn
        if not any(missing.doors for missing in self._table.values()):
            self._take(Turn.FORWARD)
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
        if turn is Turn.OURS:
            self._seen.take_back()
        else:
            self._seen.show()
        may_be_open = turn is Turn.FORWARD and any(self._open.values())
        for tensor, _, refusing in self._refusing[turn]:
            if not (may_be_open and self._is_open(tensor)):
                tensor.__class__ = refusing

    # --- the whole model --------------------------------------------------------------------------------------------

    def refuse_changes(self) -> None:
        """Raises `UsageError` if the script has changed of the optimizer what it must not."""
        self._seen.refuse_changes()

    def _refuse(self, instead: str) -> None:
        first = next((each for each in self._table.values() if each.between), None)
        if self._turn is Turn.BETWEEN and first is not None:
            raise UsageError(f"between steps no rank has the whole model: {instead} ({first.name}: {first.why})")

    def _refuse_state(self, instead: str) -> None:
        if self._turn is Turn.BETWEEN and self._is_divided:
            raise UsageError(f"between steps no rank has all of the optimizer's state: {instead}")


class _Guard:
    """A hook of a model of which ranks have parts. Copies of that have it, too, where it does nothing."""

    def __init__(self, refuse: Callable[[str], None], model: nn.Module, instead: str) -> None:
        self._refuse = refuse
        self._model = weakref.ref(model)
        self._instead = instead

    def __call__(self, module: nn.Module, *_: Any) -> None:
        if module is self._model():
            self._refuse(self._instead)

    def __deepcopy__(self, memo: Any) -> _Guard:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise UsageError(
            "a model of which each rank has a part (training.parallel) cannot be pickled: write it with run.save"
        )
