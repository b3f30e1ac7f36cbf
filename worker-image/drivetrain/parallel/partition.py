"""Which part of each parameter and buffer does a rank have? One table, by which all that is shared out is told and put
together again.

A tensor may belong to one stage of a pipeline; of what a stage has, each tensor-parallel rank may have an equal part
along a dimension; and of that, each data-parallel rank may have a range of its elements (ZeRO). Whatever is none of
these every rank has alike. Whether it is trained makes no difference: frozen weights are shared out like others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from drivetrain.parallel.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Where:
    """Of one parameter or buffer: who has what of it."""

    name: str
    shape: torch.Size
    """Of the whole."""
    dim: int | None = None
    """Tensor-parallel ranks have equal parts along it; None: all have the same."""
    chunk: int | None = None
    """Only the stage of this chunk of blocks has it; None: all stages do."""
    ranged: bool = False
    """Data-parallel ranks have a range of the flat elements each; else all have the same."""

    @property
    def is_apart(self) -> bool:
        """Whether some ranks have something else of it than others."""
        return self.dim is not None or self.chunk is not None or self.ranged

    def is_on(self, mesh: Mesh) -> bool:
        """Whether this rank's stage has it."""
        return self.chunk is None or self.chunk % mesh.stages == mesh.stage

    def is_told_by(self, mesh: Mesh, *, by_all: bool) -> bool:
        """Whether this rank's word is needed to put the whole together. `by_all`: the ranks of all replicas are asked,
        so what they have alike the first one tells; else those of any one are."""
        return self.is_apart and self.is_on(mesh) and (self.ranged or mesh.data_rank == 0 or not by_all)

    def counts_on(self, mesh: Mesh) -> bool:
        """Whether what this rank has of it adds to a sum over all elements, so that each counts once."""
        return (
            not mesh.idle
            and self.is_on(mesh)
            and (self.ranged or mesh.data_rank == 0)
            and (self.dim is not None or mesh.tensor_rank == 0)
            and (self.chunk is not None or mesh.stage == mesh.stages - 1)
        )

    def part_of(self, whole: torch.Tensor, mesh: Mesh) -> torch.Tensor:
        """What this rank's tensor-parallel place has of a tensor of that shape, in memory of its own."""
        if self.dim is None:
            return whole
        part = whole.chunk(mesh.tensor_size, self.dim)[mesh.tensor_rank]
        return part.clone(memory_format=torch.contiguous_format)


class Fragment(NamedTuple):
    """What one rank tells of a parameter."""

    tensor: int
    """Its tensor-parallel rank."""
    first: int
    """Of a range, where it begins; else 0."""
    value: torch.Tensor
    """A range is flat."""
    state: Mapping[str, Any]
    """The optimizer's of it."""


def is_like(name: str, value: Any, parameter: torch.Tensor) -> bool:
    """Has this state an entry for each element of the parameter? torch's step count is a scalar, like some of them."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape and (value.dim() > 0 or name != "step")


def unlike(fragments: Iterable[Fragment]) -> frozenset[str]:
    """Names of optimizer state that some fragment shows to have no entry for each element. Of a fragment with a single
    element nobody can tell, so others of the same optimizer decide."""
    return frozenset(
        name for each in fragments for name, value in each.state.items() if not is_like(name, value, each.value)
    )


def joined(where: Where, fragments: Sequence[Fragment], never: frozenset[str]) -> tuple[torch.Tensor, dict[str, Any]]:
    """A whole parameter and its state, from what ranks told of it. `never`: see `unlike`. The result may share memory
    with what was told."""
    by_rank: dict[int, list[Fragment]] = {}
    for each in sorted(fragments, key=lambda each: (each.tensor, each.first)):
        by_rank.setdefault(each.tensor, []).append(each)
    rows = list(by_rank.values()) if where.dim is not None else [next(iter(by_rank.values()))]
    columns = _shape_of_part(where, len(rows))

    def whole(given: list[list[torch.Tensor]]) -> torch.Tensor:
        parts = [torch.cat(row).view(columns) if where.ranged else row[0] for row in given]
        return torch.cat(parts, where.dim) if where.dim is not None else parts[0]

    told = [each for row in rows for each in row]
    alone = unlike(told)
    state: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in told for name in each.state):
        single = all(each.value.numel() == 1 for each in told)
        if name in alone or (single and where.shape.numel() > 1 and name in never):
            state[name] = next(each.state[name] for each in told if name in each.state)
        else:
            state[name] = whole([[each.state[name] for each in row] for row in rows])
    return whole([[each.value for each in row] for row in rows]), state


def _shape_of_part(where: Where, ranks: int) -> tuple[int, ...]:
    shape = list(where.shape)
    if where.dim is not None:
        shape[where.dim] //= ranks
    return tuple(shape)
