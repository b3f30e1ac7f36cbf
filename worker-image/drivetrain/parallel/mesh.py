"""Which ranks share a sample, and which share a model? The ranks of a membership by three coordinates.

Neighbouring ranks form a tensor-parallel group, and neighbouring groups a pipeline; they have the same samples. Ranks
of the same place in such a row form a data-parallel group and have the same part of the model. Ranks that fill no row
are idle until the membership changes: they wait with the others, and compute nothing.
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
    pipe: Transport | None
    """The stages of a pipeline; None for one alone."""
    data_rank: int
    data_size: int
    tensor_rank: int
    tensor_size: int
    stage: int
    stages: int
    idle: bool

    @property
    def row(self) -> int:
        """Ranks that have the same samples, and the whole model between them."""
        return self.tensor_size * self.stages

    @property
    def part(self) -> int:
        """This rank's number among them."""
        return self.stage * self.tensor_size + self.tensor_rank

    @property
    def speaks(self) -> bool:
        """One of those that have the same samples: its numbers count. It has the end of the model."""
        return not self.idle and self.tensor_rank == 0 and self.stage == self.stages - 1


def mesh_of(transport: Transport, tensor: int, stages: int = 1) -> Mesh:
    """The largest mesh with tensor-parallel groups and pipelines of these sizes. All ranks call this. Raises
    `Interrupted`, or `UsageError` if there are too few ranks."""
    size = tensor * stages
    if size == 1:
        return Mesh(transport, transport, None, None, transport.rank, transport.world, 0, 1, 0, 1, idle=False)
    refuse_too_few(transport.world, tensor, stages)
    rows = transport.world // size
    row, place = divmod(transport.rank, size)
    if row == rows:
        for _ in range(3):
            subgroup(transport, [transport.rank])
        return Mesh(transport, None, None, None, 0, rows, 0, tensor, 0, stages, idle=True)
    stage, column = divmod(place, tensor)
    first = row * size
    along = subgroup(transport, range(first + stage * tensor, first + (stage + 1) * tensor), "tensor")
    down = subgroup(transport, range(first + column, first + size, tensor), "pipeline")
    across = subgroup(transport, range(place, rows * size, size), "data")
    return Mesh(transport, across, along, down, row, rows, column, tensor, stage, stages, idle=False)


def refuse_too_few(ranks: int, tensor: int, stages: int) -> None:
    """Raises `UsageError` if so many ranks cannot have the whole model between them."""
    if ranks < tensor * stages:
        fields = {"training.parallel.tensor": tensor, "training.parallel.pipeline.stages": stages}
        given = " and ".join(f"{name} is {value}" for name, value in fields.items() if value > 1)
        raise UsageError(
            f"{given}, but there are only {ranks} ranks: set spec.workers and spec.elastic.minWorkers so that there "
            f"are always at least {tensor * stages}"
        )
