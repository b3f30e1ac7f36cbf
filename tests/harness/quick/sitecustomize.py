"""Ranks of whole jobs in tests start without torch's compiler, which the first optimizer loads though nobody uses it;
the call that makes algorithms deterministic does, too.

That takes as long as torch itself, and these jobs start eighty ranks. `LocalJob` puts this folder on their path; jobs
on the embedded plane, under torchrun and on a real cluster start as they do for a user.
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


_TAKEN = {
    "torch._compile": ("_disable_dynamo", _as_it_is),
    "torch.optim.optimizer": ("_use_grad_for_differentiable", _differentiable),
}


_LEFT_OUT = ("torch._inductor", "torch._inductor.config")
"""`torch.use_deterministic_algorithms` tells the latter."""


class _Nothing(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass


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
        if fullname in _LEFT_OUT:
            return ModuleSpec(fullname, _Nothing(), is_package=True)
        spec = PathFinder.find_spec(fullname, path) if fullname in _TAKEN else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
