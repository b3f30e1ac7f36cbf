"""Which ranks share a sample, and which share a model? The ranks of a membership as rows and columns.

Neighbouring ranks form a tensor-parallel group and have the same samples; ranks of the same place in such a group form
a data-parallel group and have the same part of the model. Ranks that fill no group are idle until the membership
changes: they wait with the others, and compute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain.comm.subgroup import subgroup
from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class Mesh:
    """This rank's place in a membership."""

    world: Transport
    data: Transport | None
    """The data-parallel group; None for one alone."""
    tensor: Transport | None
    """The tensor-parallel group; None for one alone."""
    data_rank: int
    data_size: int
    tensor_rank: int
    tensor_size: int
    idle: bool

    @property
    def speaks(self) -> bool:
        """One of those that have the same samples: its numbers count."""
        return not self.idle and self.tensor_rank == 0


def mesh_of(transport: Transport, tensor: int) -> Mesh:
    """The largest mesh with tensor-parallel groups of this size. All ranks call this. Raises `Interrupted`, or
    `UsageError` if there are too few ranks."""
    if tensor == 1:
        return Mesh(transport, transport, None, transport.rank, transport.world, 0, 1, idle=False)
    rows = transport.world // tensor
    if rows == 0:
        raise UsageError(
            f"training.parallel.tensor is {tensor}, but there are only {transport.world} ranks: set spec.workers and "
            "spec.elastic.minWorkers so that there are always as many"
        )
    row, column = divmod(transport.rank, tensor)
    if row == rows:
        for _ in range(2):
            subgroup(transport, [transport.rank])
        return Mesh(transport, None, None, 0, rows, 0, tensor, idle=True)
    along = subgroup(transport, range(row * tensor, (row + 1) * tensor))
    across = subgroup(transport, range(column, rows * tensor, tensor))
    return Mesh(transport, across, along, row, rows, column, tensor, idle=False)
