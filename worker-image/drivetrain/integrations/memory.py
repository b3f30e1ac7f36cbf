"""Three lines by which a plain DDP loop that runs as under torchrun loses no step when a rank or a worker dies:

    memory = Memory(model=model, optimizer=optimizer)
    for step in range(memory.restore(), steps):
        …                                            # the loop's body as it was
        memory.keep(step + 1)

All ranks still start again at a death (ADR 0045); what they start from is no file, but the state that the others kept
in memory of the processes that forked their scripts, which go on (ADR 0050). Whoever is new gets it through the
process group.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import sys
from typing import Any, Final, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from drivetrain import say
from drivetrain.errors import UsageError
from drivetrain.torchrun.kept import ENV_KEPT, Kept

_KEEPERS: Final = 2
"""So many ranks of each worker keep the state: it is the same on all, and one may die."""
_NONE: Final = -1


class Stateful(Protocol):
    """A model, an optimizer, a scheduler, or anything else with these."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, text, and dicts and lists of them."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take it over."""
        ...


class Memory:
    """What a loop needs to go on, kept after each step. All ranks have the same of it: replicas, as DDP has them.

    `parts`: by name. `seed`: each step's random numbers, from its first forward on, are those of (seed, step, rank), so
    that a step made again is the same step; None leaves them alone, which is exact where forward draws none.
    `every`: steps between two copies.
    """

    def __init__(self, *, seed: int | None = 0, every: int = 1, **parts: Stateful) -> None:
        """Raises UsageError for what not every rank has whole."""
        if not parts:
            raise UsageError("Memory() keeps nothing: give it model and optimizer by name, as in Memory(model=model)")
        if every < 1:
            raise UsageError(f"Memory(every={every}) must be at least 1")
        for name, part in parts.items():
            _check(name, part)
        self._parts = parts
        self._seed = seed
        self._every = every
        self._step = 0
        self._drawn = False
        """Forward has begun to draw this step's random numbers."""
        for part in parts.values():
            if isinstance(part, nn.Module) and seed is not None:
                part.register_forward_pre_hook(self._before_forward)
        self._kept = Kept.from_environment(os.environ)
        if self._kept is None and os.environ.get(ENV_KEPT):
            _say(
                "Memory keeps nothing: it works in the process of spec.command's script, and not in one that it starts"
            )

    def restore(self, step: int = 0) -> int:
        """Called by all ranks before the loop, with the steps of the checkpoint that it has loaded itself (0: none).
        Takes over what any rank has kept of a later step. Returns the steps that are done."""
        own = self._kept.newest() if self._kept is not None else None
        told = _gather([_NONE if own is None else own.step, step])
        if len({theirs for _, theirs in told}) > 1:
            raise UsageError(f"Memory.restore: ranks have loaded checkpoints of other steps: {[s for _, s in told]}")
        best = max(kept for kept, _ in told)
        if best > step:
            holder = next(rank for rank, (kept, _) in enumerate(told) if kept == best)
            payload = _broadcast(own.payload if own is not None and _rank() == holder else None, holder)
            self._load(payload)
            if self._kept is not None and (own is None or own.step < best) and self._is_keeper():
                self._kept.put(best, payload)
            if _rank() == 0:
                _say(f"goes on after step {best}, which rank {holder} had kept in memory")
            step = best
        self._at(step)
        return step

    def keep(self, step: int) -> None:
        """Called by all ranks after each step, with the number of steps that are done."""
        for part in self._parts.values():
            if isinstance(part, nn.Module):
                _share_buffers(part)
        if self._kept is not None and step % self._every == 0 and self._is_keeper():
            file = io.BytesIO()
            torch.save({name: part.state_dict() for name, part in self._parts.items()}, file)
            self._kept.put(step, file.getbuffer())
        self._at(step)

    def _load(self, payload: bytes) -> None:
        states = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if states.keys() != self._parts.keys():
            raise UsageError(f"Memory has {sorted(self._parts)}, but what was kept is of {sorted(states)}")
        for name, part in self._parts.items():
            part.load_state_dict(states[name])

    def _is_keeper(self) -> bool:
        return int(os.environ.get("LOCAL_RANK", "0")) < _KEEPERS

    def _at(self, step: int) -> None:
        self._step, self._drawn = step, False
        self._reseed()

    def _before_forward(self, module: nn.Module, inputs: Any) -> None:
        """Making a DataLoader's iterator draws one, too, and a loop that begins in the middle does so elsewhere."""
        if module.training and not self._drawn:
            self._drawn = True
            self._reseed()

    def _reseed(self) -> None:
        if self._seed is None:
            return
        digest = hashlib.sha256(f"{self._seed}/{self._step}/{_rank()}".encode()).digest()
        seed = int.from_bytes(digest[:8]) >> 1
        torch.manual_seed(seed)
        random.seed(seed)
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed(seed & 0xFFFFFFFF)


def _check(name: str, part: Stateful) -> None:
    if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
        raise UsageError(f"Memory({name}=…): a {type(part).__name__} has no state_dict and load_state_dict")
    groups = getattr(part, "param_groups", None)
    tensors = part.parameters() if isinstance(part, nn.Module) else (p for g in groups or () for p in g["params"])
    if any(isinstance(tensor, DTensor) for tensor in tensors):
        raise UsageError(
            f"Memory({name}=…) has parameters that are shared out: it keeps what every rank has whole, as under DDP. "
            "Save parts with torch.distributed.checkpoint, or use run.step with spec.training.parallel.zero"
        )


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _device() -> torch.device:
    """Where the process group reduces."""
    if dist.is_initialized() and "gloo" not in dist.get_backend_config():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _gather(numbers: list[int]) -> list[tuple[int, ...]]:
    """These of all ranks."""
    if _world() == 1:
        return [tuple(numbers)]
    mine = torch.tensor(numbers, dtype=torch.int64, device=_device())
    found = [torch.empty_like(mine) for _ in range(_world())]
    dist.all_gather(found, mine)
    return [tuple(each.tolist()) for each in found]


def _broadcast(payload: bytes | None, holder: int) -> bytes:
    """What one rank has, on all."""
    size = _gather([0 if payload is None else len(payload)])[holder][0]
    if _world() == 1:
        assert payload is not None
        return payload
    tensor = torch.empty(size, dtype=torch.uint8)
    if payload is not None:
        tensor = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
    tensor = tensor.to(_device())
    dist.broadcast(tensor, holder)
    return tensor.cpu().numpy().tobytes()


def _share_buffers(model: nn.Module) -> None:
    """As DDP does before each forward: those of rank 0 count. Else it would depend on who died which ones go on."""
    if _world() == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer.detach(), 0)


def _say(text: str) -> None:
    say.note(text)
