"""Ranks of whole jobs in tests start without torch's compiler, which the first optimizer loads though nobody uses it;
the call that makes algorithms deterministic does, too.

That takes as long as torch itself, and these jobs start hundreds of ranks. This folder is on the path of `LocalJob`, of
the embedded plane and of torchrun in tests, and this file is a part of the script that most tests on a real cluster
run. The first test of `drivetrain run`, and examples and other scripts on a cluster, start as for a user.
"""

import functools
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _as_it_is(function: Any = None, recursive: bool = True) -> Any:
    """Takes the place of the decorator that keeps the compiler away from a function, and loads it for that."""
    return functools.partial(_as_it_is, recursive=recursive) if function is None else function


def _differentiable(step: Any) -> Any:
    """Takes the place of the decorator of every optimizer's step, without telling the compiler."""

    @functools.wraps(step)
    def with_or_without_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return with_or_without_grad


def _deterministic(mode: bool, *, warn_only: bool = False) -> None:
    """Takes the place of `torch.use_deterministic_algorithms`, without telling the compiler."""
    import torch

    torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)


_TAKEN = {
    "torch": ("use_deterministic_algorithms", _deterministic),
    "torch._compile": ("_disable_dynamo", _as_it_is),
    "torch.optim.optimizer": ("_use_grad_for_differentiable", _differentiable),
}


class _Patched(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        setattr(module, *_TAKEN[module.__name__])


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in _TAKEN else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
