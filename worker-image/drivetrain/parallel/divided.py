"""The state of a model of which each rank has a part: divided while it trains, whole while members come and go.

Each rank keeps the blocks of its pipeline stage, of divided layers its tensor-parallel part, the optimizer state of
these, and all else like the others. With ZeRO the parts are cut once more, over the data-parallel group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from drivetrain.comm.transport import Transport
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.shards import is_like
from drivetrain.parallel.stages import Stages
from drivetrain.parallel.tensor import TensorParallel
from drivetrain.parallel.zero import Zero

_Local = tuple[torch.Tensor, dict[str, Any]]
"""A parameter, and its optimizer state."""


class Divided:
    """Parameters, buffers and optimizer state of one model (see world/reunion.py)."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tensor: TensorParallel | None,
        stages: Stages | None,
        zero: Zero | None,
        row: int,
    ) -> None:
        """`row`: ranks that have the whole model between them."""
        self._optimizer = optimizer
        self._tensor = tensor
        self._stages = stages
        self._zero = zero
        self._row = row
        self._mesh: Mesh | None = None
        """None: whole."""
        self._idle = False
        self._parameters = list(model.parameters())
        self._shapes = [each.shape for each in self._parameters]
        self._buffers = list(model.buffers())
        self._dims = tensor.divided if tensor is not None else {}
        """Along which dimension a parameter is divided."""

    def cut(self, mesh: Mesh) -> None:
        """Keep this rank's part. From whole only; stages know their blocks by now."""
        if mesh.idle:
            self._idle = True
            return
        self._mesh = mesh
        for parameter in self._parameters:
            if not self._is_here(parameter):
                self._optimizer.state.pop(parameter, None)
                parameter.data = parameter.data.new_empty(0)
            elif parameter in self._dims:
                state = self._optimizer.state.get(parameter, {})
                for name, value in state.items():
                    if is_like(name, value, parameter):
                        state[name] = _part(value, mesh, self._dims[parameter])
                parameter.data = _part(parameter.data, mesh, self._dims[parameter])

    def _is_here(self, tensor: torch.Tensor) -> bool:
        """Whether it belongs to our stage, or to all."""
        chunk = self._stages.chunk_of(tensor) if self._stages is not None else None
        return chunk is None or (self._mesh is not None and chunk % self._mesh.stages == self._mesh.stage)

    def _is_apart(self, tensor: torch.Tensor) -> bool:
        """Whether some ranks have something else than others."""
        return tensor in self._dims or (self._stages is not None and self._stages.chunk_of(tensor) is not None)

    @property
    def part(self) -> tuple[int, int]:
        mesh = self._mesh
        if self._idle or (self._zero is not None and self._zero.part == (0, -1)):
            return (0, -1)
        if mesh is None:
            return (0, 0)
        if self._zero is not None and self._zero.part[1]:
            return (mesh.data_rank * mesh.row + mesh.part, mesh.data_size * mesh.row)
        return (mesh.part, mesh.row)

    def sources(self, world: int) -> range:
        zero = self._zero is not None and world // self._row > 1
        return range(world // self._row * self._row if zero else self._row)

    def receivers(self, world: int) -> range:
        return range(world // self._row * self._row)

    def dump(self) -> dict[str, Any]:
        assert self._mesh is not None
        if self._zero is not None and self._zero.part[1]:
            return {"tensor": self._mesh.tensor_rank, "zero": self._zero.dump()}
        return {
            "tensor": self._mesh.tensor_rank,
            "local": self._locals(lambda each: self._is_here(each) and self._is_apart(each)),
            "buffers": {
                number: buffer
                for number, buffer in enumerate(self._buffers)
                if self._is_here(buffer) and self._is_apart(buffer)
            },
        }

    def _locals(self, wanted: Callable[[torch.Tensor], bool]) -> dict[int, _Local]:
        return {
            number: (parameter.data, dict(self._optimizer.state.get(parameter, {})))
            for number, parameter in enumerate(self._parameters)
            if wanted(parameter)
        }

    def assemble(self, dumps: Iterable[dict[str, Any]]) -> None:
        given = list(dumps)
        found: dict[int, dict[int, _Local]] = {number: {} for number in range(len(self._parameters))}
        """By parameter and tensor-parallel rank."""
        for rank in sorted({dump["tensor"] for dump in given}):
            for dump in self._without_zero([dump for dump in given if dump["tensor"] == rank]):
                for number, local in dump["local"].items():
                    found[number][rank] = local
                with torch.no_grad():
                    for number, buffer in dump.get("buffers", {}).items():
                        self._buffers[number].copy_(buffer)
        for number, by_rank in found.items():
            parts = [local for _, local in sorted(by_rank.items())]
            if parts:
                self._join(self._parameters[number], parts)
        self._whole()

    def _without_zero(self, dumps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of one tensor-parallel rank; what ZeRO has cut is put together."""
        if "zero" not in dumps[0]:
            return dumps
        assert self._zero is not None
        self._zero.assemble(dump["zero"] for dump in dumps)
        return [{"local": {number: _copied(local) for number, local in self._locals(self._is_apart).items()}}]

    def _join(self, parameter: nn.Parameter, parts: list[_Local]) -> None:
        dim = self._dims.get(parameter)
        first, state = parts[0]
        for name, value in state.items():
            like = is_like(name, value, first)
            whole = torch.cat([part[1][name] for part in parts], dim or 0) if like and dim is not None else value
            whole = whole.to(parameter.device) if like else whole
            self._optimizer.state[parameter][name] = whole.clone() if torch.is_tensor(whole) else whole
        joined = torch.cat([part[0] for part in parts], dim) if dim is not None else first.clone()
        parameter.data = joined.to(parameter.device)

    def reset(self) -> None:
        if self._zero is not None:
            self._zero.reset()
        for parameter, shape in zip(self._parameters, self._shapes, strict=True):
            if parameter.shape != shape:
                parameter.data = parameter.data.new_empty(shape)
                self._optimizer.state.pop(parameter, None)
        self._whole()

    def _whole(self) -> None:
        self._mesh = None
        self._idle = False
        if self._tensor is not None:
            self._tensor.whole()
        if self._stages is not None:
            self._stages.whole()

    def spread(self, transport: Transport) -> None:
        if self._zero is not None and self._mesh is not None and self._mesh.data is not None:
            self._zero.spread(self._mesh.data)

    @contextlib.contextmanager
    def assembled(self, dumps: Iterable[dict[str, Any]]) -> Iterator[None]:
        """Be whole for a while, on this rank only."""
        mesh, zero = self._mesh, self._zero
        bounds = self._stages.bounds if self._stages is not None else []
        assert mesh is not None
        was_cut = zero is not None and zero.part[1] > 0
        self.assemble(dumps)
        try:
            yield
        finally:
            if self._stages is not None:
                self._stages.bounds = bounds
            self.cut(mesh)
            if self._tensor is not None:
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
