"""What the versions of torch that Drivetrain runs with do differently: 2.11 to 2.15.

All else is written for the newest of them. Here is what an older one calls by another name or cannot do, found out by
asking for the name or by trying, not by the number: a build may have what its number does not promise. docs/torch.md
says what was run with which version; `make test-torch VERSION=2.11` runs it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch._C import _distributed_c10d as c10d

from drivetrain.errors import UsageError
from drivetrain.supported import NEWEST_TORCH, OLDEST_TORCH, torch_range


def check(version: str = torch.__version__) -> None:
    """Raises `UsageError` for a torch that is older than the oldest; warns of one that is newer than the newest.

    An older one lacks what recovery needs, which would show in the middle of a job. A newer one mostly works, and who
    tries it has a reason: so it is told, and may go on.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    number = (int(found[1]), int(found[2])) if found else NEWEST_TORCH
    if number < OLDEST_TORCH:
        raise UsageError(
            f"torch {version} is installed; drivetrain runs with torch {torch_range()}: install one of these"
        )
    if number > NEWEST_TORCH:
        warnings.warn(
            f"torch {version} is installed; drivetrain was tested with torch {torch_range()} only", stacklevel=2
        )


# --- groups of gloo --------------------------------------------------------------------------------------------------


class _OlderGloo:
    """A gloo group under the names that newer versions have for the same operations."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def all_gather_single(self, output: Any, source: Any, opts: Any) -> Any:
        return self._group._allgather_base(output, source, opts)

    def reduce_scatter_single(self, output: Any, source: Any, opts: Any) -> Any:
        return self._group._reduce_scatter_base(output, source, opts)

    def all_to_all_single(self, output: Any, source: Any, output_splits: Any, source_splits: Any, opts: Any) -> Any:
        return self._group.alltoall_base(output, source, output_splits, source_splits, opts)

    def all_gather_single_coalesced(self, outputs: Any, sources: Any, opts: Any) -> Any:
        return _All([self.all_gather_single(*each, opts) for each in zip(outputs, sources, strict=True)])

    def reduce_scatter_single_coalesced(self, outputs: Any, sources: Any, opts: Any) -> Any:
        return _All([self.reduce_scatter_single(*each, opts) for each in zip(outputs, sources, strict=True)])


class _All:
    """Several operations in flight, waited for like one."""

    def __init__(self, works: Sequence[Any]) -> None:
        self._works = works

    def wait(self, timeout: Any) -> bool:
        return all(work.wait(timeout) for work in self._works)


def gloo_of_today(group: Any) -> Any:
    """A `ProcessGroupGloo` with the newest version's names."""
    return group if hasattr(group, "all_gather_single") else _OlderGloo(group)


# --- backends in Python ----------------------------------------------------------------------------------------------


class _OlderBackend(c10d.ProcessGroup):
    """Where `Backend` cannot be derived from, a whole process group can: torch takes it in the place of its own, and
    calls the same operations by older names. A derived class has today's."""

    _named = ""

    def getGroupName(self) -> str:
        return self._named

    def setGroupName(self, name: str) -> None:
        self._named = name

    def _allgather_base(self, *args: Any) -> Any:
        return self.all_gather_single(*args)

    def _reduce_scatter_base(self, *args: Any) -> Any:
        return self.reduce_scatter_single(*args)

    def alltoall_base(self, *args: Any) -> Any:
        return self.all_to_all_single(*args)

    def allgather_into_tensor_coalesced(self, *args: Any) -> Any:
        return self.all_gather_single_coalesced(*args)

    def reduce_scatter_tensor_coalesced(self, *args: Any) -> Any:
        return self.reduce_scatter_single_coalesced(*args)


if TYPE_CHECKING:
    BackendBase = c10d.Backend
else:
    try:
        c10d.Backend(0, 1)
        BackendBase = c10d.Backend
    except TypeError:  # "No constructor defined!"
        BackendBase = _OlderBackend
"""What a backend that is written in Python derives from."""


# --- a backward pass in two halves -----------------------------------------------------------------------------------


class _Both(torch.autograd.Function):
    """Two outputs of one node, both of a parameter and of an input."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, given: torch.Tensor) -> Any:
        return 2 * weight + 3 * given, 5 * weight + 7 * given

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        first, second = gradients
        return 2 * first + 5 * second, 3 * first + 7 * second


@cache
def splits_backward() -> bool:
    """Whether torch's own split of a backward pass (see parallel/pipeline/split.py) takes an edge of the graph for the
    output, and adds up rightly where one node has several outputs. Tried on two numbers."""
    from torch.autograd.graph import get_gradient_edge
    from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

    weight = torch.nn.Parameter(torch.ones(()))
    given = torch.ones((), requires_grad=True)
    first, second = _Both.apply(weight * 1, given * 1)
    edge = get_gradient_edge(first + 10 * second)
    try:
        _, left = stage_backward_input([edge], [torch.ones(())], [given], iter([weight]))
        stage_backward_weight(iter([weight]), left)
    except (RuntimeError, AttributeError, AssertionError, TypeError):
        return False
    return given.grad is not None and weight.grad is not None and (float(given.grad), float(weight.grad)) == (73, 52)
