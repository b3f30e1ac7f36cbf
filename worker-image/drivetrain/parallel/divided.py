"""The state of a model of which each rank has a part: divided while it trains, whole while members come and go.

Each rank keeps the blocks of its pipeline stage, of divided layers its tensor-parallel part, with ZeRO a range of that,
the optimizer state of these, and all else like the others. What is whose stands in one table (partition.py).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from drivetrain import say
from drivetrain.comm.transport import Transport
from drivetrain.parallel.absent import Absent, Door, Missing
from drivetrain.parallel.mesh import Mesh
from drivetrain.parallel.partition import Fragment, Where, is_like, joined, unlike
from drivetrain.parallel.pipeline.stages import Stages
from drivetrain.parallel.tensor.layers import TensorParallel
from drivetrain.parallel.zero.sharing import Zero
from drivetrain.world.reunion import Holder

_INSTEAD: Final = (
    "only the layer that it belongs to may use it; penalise it by weight_decay of the optimizer, and read it in a file "
    "that run.save has written"
)
_DIVIDED: Final = f"training.parallel.tensor: this rank has a part of it, and no rank all of it: {_INSTEAD}"
_OTHER_STAGE: Final = f"training.parallel.pipeline: another stage has its block: {_INSTEAD}"
_DROPPED: Final = f"training.parallel.zero is 3, so this rank has all of it only while its block runs: {_INSTEAD}"
_NO_GRADIENT: Final = (
    "training.parallel.zero: ranks have shared it out, and after the update it is gone: what needs gradients belongs "
    "in the optimizer, and with training.clipNorm run.step returns their norm"
)
_IN_SEQUENCE: Final = (
    "model.tp_plan: each rank uses it for a part of the sequence, and the gradients are added up, so what is computed "
    "of it elsewhere would count once for each rank: penalise it by weight_decay of the optimizer"
)
_IDLE: Final = (
    "this rank is idle, because there are too few for one more copy of the model, and what it has is old: read it in a "
    "file that run.save has written"
)


_NO_COPY: Final = (
    "no part of the state has a copy, because training.parallel.tensor and pipeline have the model but once on these "
    "ranks: the death of one costs the steps since the last snapshot or run.save; twice as many ranks would have two"
)


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
        replicas: int = 0,
    ) -> None:
        """`row`: ranks that have the whole model between them. `replicas`: copies of each part that there should be."""
        self._tells_of_none = replicas > 0
        self._optimizer = optimizer
        self._tensor = tensor
        self._stages = stages
        self._zero = zero
        self.row = row
        self._mesh: Mesh | None = None
        """None: whole."""
        self._cut_in = 0
        self._idle = False
        self._parameters = dict(model.named_parameters())
        self._model = model
        self._shapes = {name: (each.shape, each.stride()) for name, each in self._parameters.items()}
        """Shape and strides of each parameter, as the script made them."""
        self._table: dict[str, Where] = {}
        """Of all parameters and buffers, while they are divided."""
        stays_whole = row == 1 and not (zero is not None and zero.drops_parameters)
        names: dict[torch.Tensor, str] = {each: name for name, each in self._parameters.items()}
        self.absent = Absent(None if stays_whole else model, optimizer, names)
        if tensor is not None:
            tensor.absent = self.absent
        if stages is not None:
            stages.absent = self.absent
        if zero is not None:
            zero.uses(self.absent)

    # --- who has what -----------------------------------------------------------------------------------------------

    def _where(self, mesh: Mesh) -> dict[str, Where]:
        """The table of this membership; stages know their blocks by now."""
        dims = self._tensor.divided if self._tensor is not None else {}
        chunk_of = self._stages.chunk_of if self._stages is not None else lambda tensor: None
        ranged = self._zero.slots if self._zero is not None and mesh.data is not None else {}
        parameters = {
            name: Where(name, each.shape, dims.get(each), chunk_of(each), id(each) in ranged)
            for name, each in self._parameters.items()
        }
        buffers = {name: Where(name, each.shape, chunk=chunk_of(each)) for name, each in self._buffers.items()}
        return parameters | buffers

    @property
    def _buffers(self) -> dict[str, torch.Tensor]:
        """As they are now: a script may put others in their places."""
        return dict(self._model.named_buffers())

    @property
    def part(self) -> tuple[int, int]:
        mesh = self._mesh
        if self._idle or (self._zero is not None and self._zero.torn):
            return (0, -1)
        if mesh is None:
            return (0, 0)
        if self._zero is not None and mesh.data is not None:
            return (mesh.data_rank * mesh.row + mesh.part, mesh.data_size * mesh.row)
        return (mesh.part, mesh.row)

    @property
    def copied(self) -> int:
        mesh, copies = self._mesh, self._zero.copies if self._zero is not None else None
        if mesh is None or copies is None or copies.of is None:
            return -1
        return copies.of * mesh.row + mesh.part

    @property
    def cut_in(self) -> int:
        return self._cut_in if self._mesh is not None or self._idle else 0

    @property
    def mesh(self) -> Mesh | None:
        """This rank's place, while the state is divided."""
        return self._mesh

    @property
    def idle(self) -> bool:
        """There was no place for this rank: what it has is old."""
        return self._idle

    def range_of(self, name: str) -> tuple[nn.Parameter, int]:
        """This rank's range of a parameter, flat, and where it begins. Only of what is ranged."""
        assert self._zero is not None
        return self._zero.piece_of(self._parameters[name])

    @property
    def is_whole(self) -> bool:
        """This rank has everything, and it counts."""
        return self.part == (0, 0)

    def sources(self, world: int) -> list[Holder]:
        zero = self._zero is not None and world // self.row > 1
        return [Holder(rank) for rank in range(world // self.row * self.row if zero else self.row)]

    def receivers(self, world: int) -> range:
        return range(world // self.row * self.row)

    def where(self, name: str) -> Where:
        """Who has what of a parameter or buffer, now."""
        return self._table.get(name) or Where(name, torch.Size())

    def meet(self, mesh: Mesh) -> None:
        """A membership begins, and the state is whole; all ranks call this. Raises `Interrupted`."""
        if self._zero is not None and self._zero.copies is not None and mesh.data is not None and mesh.data_size > 1:
            self._zero.copies.meet(mesh.data)

    # --- cut --------------------------------------------------------------------------------------------------------

    def cut(self, mesh: Mesh) -> None:
        """Keep this rank's part. From whole only."""
        self._cut_in = _number_of(mesh.world)
        if mesh.idle:
            self._idle = True
            own = self._parameters | self._buffers
            self.absent.set({each: Missing(name, each.shape, _IDLE, in_forward=False) for name, each in own.items()})
            return
        if mesh.row == 1 and mesh.data_size == 1:
            return  # alone, it has everything
        if self._tells_of_none and mesh.data_size == 1 and mesh.world.rank == 0:
            self._tells_of_none = False
            say.note(f"recovery.replicas: {_NO_COPY}", level="warning")
        self._mesh, self._table = mesh, self._where(mesh)
        states = self._optimizer.state
        for name, parameter in self._parameters.items():
            where = self._table[name]
            if not where.is_on(mesh):
                states.pop(parameter, None)
                parameter.data = parameter.data.new_empty(0)
            elif where.dim is not None:
                state = states.get(parameter, {})
                for key, value in state.items():
                    if is_like(key, value, parameter):
                        state[key] = where.part_of(value, mesh)
                parameter.data = where.part_of(parameter.data, mesh)
        if self._zero is not None and mesh.data is not None:
            self._zero.cut(mesh.data)
        self.absent.set(self._missing(mesh), self._owners())

    def _missing(self, mesh: Mesh) -> dict[torch.Tensor, Missing]:
        """What a script must not use here, for this rank has not all of it."""
        found: dict[torch.Tensor, Missing] = {}
        partial = self._tensor.partial if self._tensor is not None else ()
        for name, tensor in (self._parameters | self._buffers).items():
            where = self._table[name]
            dropped = where.ranged and self._zero is not None and self._zero.drops_parameters
            layer = (Door.LAYER,) if where.dim is not None or tensor in partial else ()
            doors = (*layer, Door.BLOCK) if dropped else layer
            gradient = _NO_GRADIENT if where.ranged else ""
            if not where.is_on(mesh):
                found[tensor] = Missing(name, where.shape, _OTHER_STAGE)
            elif where.dim is not None:
                found[tensor] = Missing(name, where.shape, _DIVIDED, doors=doors)
            elif dropped:
                found[tensor] = Missing(name, where.shape, _DROPPED, doors=doors)
            elif tensor in partial:
                missing = Missing(name, where.shape, _IN_SEQUENCE, doors=doors, between=False, may_be_read=True)
                found[tensor] = replace(missing, gradient=gradient, has_others=self._has_gradients)
            elif gradient:
                missing = Missing(name, where.shape, "", in_forward=False, between=False)
                found[tensor] = replace(missing, gradient=gradient, has_others=self._has_gradients)
        return found

    def _has_gradients(self) -> bool:
        """Of parameters whose gradients a step takes away, so what there is a script has computed since."""
        return any(self._table[name].ranged and each.grad is not None for name, each in self._parameters.items())

    def _owners(self) -> dict[nn.Parameter, nn.Parameter]:
        """Parameters, by the pieces that the optimizer has of them."""
        zero, ranged = self._zero, [each for name, each in self._parameters.items() if self._table[name].ranged]
        return {zero.piece_of(each)[0]: each for each in ranged} if zero is not None else {}

    def refuse_changes(self) -> None:
        """Raises `UsageError` if the script has changed of its optimizer what it must not."""
        self.absent.refuse_changes()

    # --- told, and put together -------------------------------------------------------------------------------------

    def dump(self, *, copied: bool = False) -> dict[str, Any]:
        mesh = self._mesh
        assert mesh is not None
        if self._zero is not None:
            self._zero.take_over()
        by_all = self._zero is not None and mesh.data is not None  # see `sources`
        place = mesh
        if copied:  # what replicas have alike, this one has like the other
            assert self._zero is not None
            assert self._zero.copies is not None
            assert self._zero.copies.of is not None
            place = replace(mesh, data_rank=self._zero.copies.of)
        told = {name for name, where in self._table.items() if where.is_told_by(place, by_all=by_all)}
        return {
            "parameters": {name: self._told(name, mesh, copied) for name in self._parameters if name in told},
            "buffers": {name: buffer.detach() for name, buffer in self._buffers.items() if name in told},
        }

    def _told(self, name: str, mesh: Mesh, copied: bool) -> Fragment:
        parameter, first = self._parameters[name], 0
        if self._table[name].ranged:
            assert self._zero is not None
            if copied and self._zero.copies is not None:
                parameter, first, state = self._zero.copies.piece_of(parameter)
                return Fragment(mesh.tensor_rank, first, parameter.detach(), state)
            parameter, first = self._zero.piece_of(parameter)
        state = dict(self._optimizer.state.get(parameter, {}))
        return Fragment(mesh.tensor_rank, first, parameter.detach(), state)

    def assemble(self, dumps: Iterable[dict[str, Any]]) -> None:
        """Become whole, from the parts of all ranks. An error leaves it as it was."""
        found: dict[str, list[Fragment]] = {}
        buffers: dict[str, torch.Tensor] = {}
        for dump in dumps:
            for name, fragment in dump["parameters"].items():
                if fragment.value.numel() > 0 or not self._table[name].ranged:
                    found.setdefault(name, []).append(fragment)
            buffers |= dump["buffers"]
        never = unlike(each for fragments in found.values() for each in fragments)
        whole = {name: joined(self._table[name], fragments, never) for name, fragments in found.items()}
        if self._zero is not None:
            self._zero.reset()
        for name, (value, state) in whole.items():
            self._restore(name, value)
            self._restore_state(self._parameters[name], state)
        own = self._buffers
        with torch.no_grad():
            for name, value in buffers.items():
                own[name].copy_(value)
        self._whole()

    def _restore(self, name: str, value: torch.Tensor) -> None:
        """Give a parameter the memory that it was made with, and this value."""
        shape, strides = self._shapes[name]
        parameter = self._parameters[name]
        empty = torch.empty_strided(shape, strides, dtype=parameter.dtype, device=parameter.device)
        parameter.data = empty.copy_(value)

    def _restore_state(self, parameter: nn.Parameter, state: dict[str, Any]) -> None:
        self._optimizer.state.pop(parameter, None)
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                # Where torch's own optimizers have it, after load_state_dict.
                device = value.device if name == "step" else parameter.device
                value = (
                    torch.empty_like(parameter, dtype=value.dtype).copy_(value)
                    if is_like(name, value, parameter)
                    else value.to(device, copy=True)
                )
            self._optimizer.state[parameter][name] = value

    def reset(self) -> None:
        """Become whole with nothing that counts: before a peer's state is taken over."""
        if self._zero is not None:
            self._zero.reset()
        for name, parameter in self._parameters.items():
            if self._table and self._table[name].is_apart:
                shape, strides = self._shapes[name]
                parameter.data = torch.empty_strided(shape, strides, dtype=parameter.dtype, device=parameter.device)
                self._optimizer.state.pop(parameter, None)
        self._whole()

    def _whole(self) -> None:
        self.absent.clear()
        self._mesh, self._table = None, {}
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
        mesh = self._mesh
        bounds = self._stages.bounds if self._stages is not None else []
        assert mesh is not None
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


def _number_of(transport: Transport) -> int:
    """Tells a membership from others, and is not 0."""
    return int.from_bytes(hashlib.sha256(transport.secret).digest()[:7], "big") + 1
