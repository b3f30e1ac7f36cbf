"""The state of a tensor-parallel model: divided while it trains, whole while members come and go.

Each rank keeps its part of every divided parameter and of its optimizer state; all else it has like the others. With
ZeRO the parts are cut once more, over the data-parallel group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.shards import is_like
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.parallel.zero import Zero

_Local = tuple[torch.Tensor, dict[str, Any]]


class Divided:
    """Parameters and optimizer state of one model (see world/reunion.py)."""

    def __init__(self, tensor: TensorParallel, optimizer: torch.optim.Optimizer, zero: Zero | None) -> None:
        self._tensor = tensor
        self._optimizer = optimizer
        self._zero = zero
        self._mesh: Mesh | None = None
        """None: whole."""
        self._idle = False
        self._parameters = list(tensor.divided)

    @property
    def is_whole(self) -> bool:
        """This rank has everything, or is idle."""
        return self._mesh is None

    def cut(self, mesh: Mesh) -> None:
        """Keep this rank's part. From whole only."""
        if mesh.idle:
            self._idle = True
            return
        self._mesh = mesh
        for parameter, dim in self._tensor.divided.items():
            state = self._optimizer.state.get(parameter, {})
            for name, value in state.items():
                if is_like(name, value, parameter):
                    state[name] = _part(value, mesh, dim)
            parameter.data = _part(parameter.data, mesh, dim)

    @property
    def part(self) -> tuple[int, int]:
        mesh = self._mesh
        if self._idle or (self._zero is not None and self._zero.part == (0, -1)):
            return (0, -1)
        if mesh is None:
            return (0, 0)
        if self._zero is not None and self._zero.part[1]:
            return (mesh.data_rank * mesh.tensor_size + mesh.tensor_rank, mesh.data_size * mesh.tensor_size)
        return (mesh.tensor_rank, mesh.tensor_size)

    def sources(self, world: int) -> range:
        degree = self._tensor.degree
        zero = self._zero is not None and world // degree > 1
        return range(world // degree * degree if zero else degree)

    def receivers(self, world: int) -> range:
        degree = self._tensor.degree
        return range(world // degree * degree)

    def dump(self) -> dict[str, Any]:
        assert self._mesh is not None
        if self._zero is not None and self._zero.part[1]:
            return {"tensor": self._mesh.tensor_rank, "zero": self._zero.dump()}
        local = {number: self._local(parameter) for number, parameter in enumerate(self._parameters)}
        return {"tensor": self._mesh.tensor_rank, "local": local}

    def _local(self, parameter: nn.Parameter) -> _Local:
        return parameter.data, dict(self._optimizer.state.get(parameter, {}))

    def assemble(self, dumps: Iterable[dict[str, Any]]) -> None:
        given = list(dumps)
        by_rank: list[dict[int, _Local]] = []
        for rank in range(self._tensor.degree):
            of_rank = [dump for dump in given if dump["tensor"] == rank]
            if "zero" in of_rank[0]:
                assert self._zero is not None
                self._zero.assemble(dump["zero"] for dump in of_rank)
                by_rank.append({number: _copied(self._local(each)) for number, each in enumerate(self._parameters)})
            else:
                by_rank.append(of_rank[0]["local"])
        for number, (parameter, dim) in enumerate(self._tensor.divided.items()):
            parts = [local[number] for local in by_rank]
            first, state = parts[0]
            for name, value in state.items():
                like = is_like(name, value, first)
                whole = torch.cat([part[1][name] for part in parts], dim) if like else value
                self._optimizer.state[parameter][name] = whole.clone() if torch.is_tensor(whole) else whole
            parameter.data = torch.cat([part[0] for part in parts], dim)
        self._whole()

    def reset(self) -> None:
        if self._zero is not None:
            self._zero.reset()
        if self._mesh is not None:
            for parameter, dim in self._tensor.divided.items():
                shape = list(parameter.shape)
                shape[dim] *= self._tensor.degree
                parameter.data = parameter.data.new_empty(shape)
                self._optimizer.state.pop(parameter, None)
        self._whole()

    def _whole(self) -> None:
        self._mesh = None
        self._idle = False
        self._tensor.whole()

    def spread(self, transport: Transport) -> None:
        if self._zero is not None and self._mesh is not None and self._mesh.data is not None:
            self._zero.spread(self._mesh.data)

    @contextlib.contextmanager
    def assembled(self, dumps: Iterable[dict[str, Any]]) -> Iterator[None]:
        """Be whole for a while, on this rank only."""
        mesh, zero = self._mesh, self._zero
        assert mesh is not None
        was_cut = zero is not None and zero.part[1] > 0
        self.assemble(dumps)
        try:
            yield
        finally:
            self.cut(mesh)
            self._tensor.begin(mesh.tensor)
            self._tensor.abandon()
            if was_cut:
                assert zero is not None
                assert mesh.data is not None
                zero.cut(mesh.data)


def _part(value: torch.Tensor, mesh: Mesh, dim: int) -> torch.Tensor:
    return value.chunk(mesh.tensor_size, dim)[mesh.tensor_rank].clone(memory_format=torch.contiguous_format)


def _copied(local: _Local) -> _Local:
    value, state = local
    return value.clone(), {name: each.clone() if torch.is_tensor(each) else each for name, each in state.items()}
