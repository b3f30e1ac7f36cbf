"""How long is the gradient of a model of which each rank may have but a part?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drivetrain.comm.transport import InFlight, Transport
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.zero import Zero


def gradient_norm(
    dense: Sequence[tuple[torch.Tensor, bool, bool]],
    sparse: Sequence[torch.Tensor],
    mesh: Mesh | None,
    zero: Zero | None,
) -> float:
    """The 2-norm over all parameters, the same on all ranks. `dense`: gradients, and whether tensor-parallel ranks, or
    the stages of a pipeline, have other ones; `sparse`: the values of those that everybody has. Raises `Interrupted`.
    """
    squares = torch.stack(
        [
            torch.nn.utils.get_total_norm([each for each, *where in dense if where == [divided, staged]]).double() ** 2
            for staged in (False, True)
            for divided in (False, True)
        ]
    ).view(2, 2)
    if zero is not None:
        zero.sum_over_parts(squares)
    if mesh is not None:
        _sum(mesh.tensor, squares[:, 1])
        _sum(mesh.pipe, squares[1])
    everywhere = torch.nn.utils.get_total_norm(sparse).double() ** 2
    return float((squares.sum() + everywhere).sqrt())


def _sum(group: Transport | None, part: torch.Tensor) -> None:
    if group is not None:
        copy = part.clone()
        pending: InFlight = group.all_reduce(copy)
        pending.wait()
        part.copy_(copy)
