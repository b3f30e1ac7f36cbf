"""How are gradients of large tables summed when a step touches few of their rows?

`nn.Embedding(sparse=True)` makes gradients that hold only the rows of the tokens that occurred. Every rank sends those
rows to all others, so that bytes follow the rows touched and not the table; each then adds up all rows in the same
order. A rank that is ahead waits only for the counts. There is no overlap with the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.errors import UsageError


def sparse_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The tables whose gradients are sparse, in the order of registration. Raises `UsageError` for one that a module
    with dense gradients has too."""
    tables: set[int] = set()
    elsewhere: set[int] = set()
    for module in model.modules():
        sparse = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse
        found = {id(each) for each in module.parameters(recurse=False) if each.requires_grad}
        (tables if sparse else elsewhere).update(found)
    if tables & elsewhere:
        raise UsageError("prepare(model=...): an embedding with sparse=True shares its weight with another module")
    return [parameter for parameter in model.parameters() if id(parameter) in tables]


class SparseSum:
    """Sums the sparse gradients of some parameters over the ranks of a transport.

    A gradient is collected in parts, whose order is that of the ranks; so the sum is the same bit by bit in every world
    if the parts are virtual shards.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._parts: list[list[torch.Tensor]] = []

    def begin(self) -> None:
        """Start a step with nothing collected."""
        self._parts = [[] for _ in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None

    def collect(self) -> None:
        """Take over all `.grad` as the next part."""
        for parameter, parts in zip(self._parameters, self._parts, strict=True):
            if parameter.grad is not None:
                if not parameter.grad.is_sparse:
                    raise UsageError(
                        f"forward: the weight, shape {tuple(parameter.shape)}, of an embedding with sparse=True got a "
                        "dense gradient, because it is used elsewhere too; make the embedding sparse=False"
                    )
                parts.append(parameter.grad.coalesce())
                parameter.grad = None

    def finish(self, transport: Transport | None) -> None:
        """Exchange and add: points `.grad` at the coalesced sums, None where no rank touched a row."""
        if not self._parameters:
            return
        mine = [self._rows(parameter, parts) for parameter, parts in zip(self._parameters, self._parts, strict=True)]
        self._parts = [[] for _ in self._parameters]
        if transport is not None:
            counts = torch.stack(transport.all_gather(torch.tensor([len(rows) for rows, _ in mine])))
            mine = [
                (_gathered(transport, rows, by_rank), _gathered(transport, values, by_rank))
                for (rows, values), by_rank in zip(mine, counts.T.tolist(), strict=True)
            ]
        for parameter, (rows, values) in zip(self._parameters, mine, strict=True):
            parameter.grad = (
                torch.sparse_coo_tensor(rows[None], values, parameter.shape, check_invariants=False).coalesce()
                if len(rows)
                else None
            )

    def abandon(self) -> None:
        """The epoch ended in the middle of a step."""
        self.begin()

    @staticmethod
    def _rows(parameter: nn.Parameter, parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers, int64 of shape (k,), and values, shape (k, width), of the rows of all parts."""
        rows = [part.indices()[0] for part in parts]
        values = [part.values() for part in parts]
        nothing = torch.empty(0, dtype=torch.int64, device=parameter.device)
        return torch.cat([nothing, *rows]), torch.cat([parameter.new_empty(0, *parameter.shape[1:]), *values])


def _gathered(transport: Transport, mine: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """All ranks' tensors, one after the other; they differ in their first dimension, which is `counts`."""
    width = mine.shape[1:].numel()
    result = mine.new_empty(sum(counts), *mine.shape[1:])
    # An all-gather of unequal parts: an all-to-all in which everybody gets the same.
    transport.all_to_all(
        result.view(-1),
        mine.reshape(-1).repeat(transport.world),
        [count * width for count in counts],
        [len(mine) * width] * transport.world,
    ).wait()
    return result
