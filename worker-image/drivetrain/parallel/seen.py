"""What does a script see of its optimizer while ranks have parts of the state? Groups with the model's parameters and
their rates, which it may read and set; and state that refuses, because no rank has all of it.

The runtime's own code has the real one: which parameters are pieces then, and the state is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch
from torch import nn

from drivetrain.errors import UsageError

_INSTEAD: Final = (
    "no rank has all of the optimizer's state with training.parallel: write it with run.save, and read or change it in "
    "that file, from which prepare(resume=...) goes on"
)


class StateElsewhere(MutableMapping[Any, Any]):
    """In the place of `optimizer.state`: every use of it raises `UsageError`."""

    def __init__(self, names: Mapping[torch.Tensor, str]) -> None:
        self._names = names

    def _refuse(self, key: Any = None) -> NoReturn:
        name = self._names.get(key) if isinstance(key, torch.Tensor) else None
        raise UsageError(f"optimizer.state{f'[{name}]' if name else ''}: {_INSTEAD}")

    def __getitem__(self, key: Any) -> Any:
        self._refuse(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse(key)

    def __delitem__(self, key: Any) -> None:
        self._refuse(key)

    def __contains__(self, key: Any) -> bool:
        self._refuse(key)

    def __iter__(self) -> Iterator[Any]:
        self._refuse()

    def __len__(self) -> int:
        self._refuse()

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._refuse()

    def __repr__(self) -> str:
        return "<the optimizer's state is elsewhere>"  # a debugger must not raise


@dataclass(slots=True)
class _Group:
    """One of the optimizer, as the script and as the runtime has it."""

    group: dict[str, Any]
    real: list[nn.Parameter]
    shown: list[nn.Parameter]
    """The script may have this list and change it, so what was in it stands in `as_shown`."""
    as_shown: tuple[nn.Parameter, ...]


class Seen:
    """One optimizer, as its script sees it."""

    def __init__(self, optimizer: torch.optim.Optimizer | None, names: Mapping[torch.Tensor, str]) -> None:
        """`names` of the model's parameters."""
        self._optimizer = optimizer
        self._elsewhere = StateElsewhere(names)
        self._groups: list[_Group] = []
        self._is_divided = False
        self._real: Any = None
        """The state, while the script sees another."""
        self._changed = ""

    def divide(self, owners: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """From now on the state is. `owners`: the model's parameters by the pieces that the optimizer has of them."""
        self.whole()
        self._is_divided = True
        for group in self._optimizer.param_groups if self._optimizer is not None and owners else ():
            shown = [owners.get(each, each) for each in group["params"]]
            self._groups.append(_Group(group, group["params"], shown, tuple(shown)))

    def whole(self) -> None:
        """It is not any more."""
        self._is_divided, self._groups = False, []

    def show(self) -> None:
        """The script's code runs."""
        optimizer = self._optimizer
        if optimizer is None or self._real is not None or not self._is_divided:
            return
        self._real, optimizer.state = optimizer.state, self._elsewhere  # type: ignore[assignment]
        for each in self._groups:
            each.group["params"] = each.shown

    def take_back(self) -> None:
        """The runtime's does. What the script has changed meanwhile is told by `refuse_changes`."""
        optimizer = self._optimizer
        if optimizer is None or self._real is None:
            return
        if optimizer.state is not self._elsewhere:
            self._changed = f"optimizer.state was replaced: {_INSTEAD}"
        optimizer.state, self._real = self._real, None
        for number, each in enumerate(self._groups):
            shown = each.group["params"]
            if shown is not each.shown or not _same(shown, each.as_shown) or not self._has(number, each.group):
                self._changed = (
                    f"optimizer.param_groups[{number}] has other parameters now; with training.parallel.zero, what is "
                    "trained must be decided before prepare"
                )
                each.shown = list(each.as_shown)
            each.group["params"] = each.real

    def _has(self, number: int, group: dict[str, Any]) -> bool:
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        return number < len(groups) and groups[number] is group

    def refuse_changes(self) -> None:
        """Raises `UsageError` if the script has changed what it must not. Once."""
        changed, self._changed = self._changed, ""
        if changed:
            raise UsageError(changed)


def _same(some: list[nn.Parameter], others: tuple[nn.Parameter, ...]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))
