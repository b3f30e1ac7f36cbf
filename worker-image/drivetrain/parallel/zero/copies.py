"""Another rank's part, kept here as well: how does the copy stay what the part is?

Rank r has a copy of the part of a data-parallel rank before it, which lives in another pod if it can be. Both make the
same update of the same bits: the other sends what its part of the gradients adds up to, and the optimizer, which is
given the copy in the place of its own pieces for the time of a step, does with it what it does there. State is never
sent: a membership begins from the whole, of which the copy is cut like the part (shards.py). A part and its copy are of
one step, whatever is interrupted, because no rank updates anything before all have what they need (readied.py).
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from drivetrain import say
from drivetrain.comm.transport import InFlight, Transport
from drivetrain.parallel.zero.shards import Part, Piece
from drivetrain_api.constants import ENV_POD_UID


class Copies:
    """Of one other rank's part."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._part: Part | None = None
        self._by_parameter: dict[int, Piece] = {}
        self._groups: list[list[nn.Parameter]] = []
        """As the optimizer's, with a parameter without elements in the place of what is not copied."""
        self._state: dict[Any, Any] = {}
        """The optimizer's of the copy."""
        self._sent = 0
        """Buckets of this step, as far as their sums were sent on."""
        self._pending: list[InFlight] = []
        self._told = False
        self.distance = 1
        """From a rank to the one that has its copy."""

    # --- a membership -------------------------------------------------------------------------------------------------

    def meet(self, transport: Transport) -> None:
        """A membership begins, of these ranks; all of them call this. Raises `Interrupted`."""
        lives_in = os.environ.get(ENV_POD_UID, "")
        own = torch.tensor([int.from_bytes(hashlib.sha256(lives_in.encode()).digest()[:7], "big")])
        self.distance = distance([int(each) for each in transport.all_gather(own)])

    def take(
        self, part: Part, state: dict[nn.Parameter, dict[str, Any]], given: Sequence[Sequence[nn.Parameter]]
    ) -> None:
        """From now on this part is copied. `given`: the model's parameters, as the optimizer has them while whole."""
        self._part, self._by_parameter = part, part.by_parameter
        self._state = defaultdict(dict, state)
        self._groups = [
            [
                self._by_parameter[id(each)].parameter if id(each) in self._by_parameter else _nothing_of(each)
                for each in group
            ]
            for group in given
        ]
        self.abandon()

    def forget(self) -> None:
        """There is no copy any more."""
        self._part, self._by_parameter, self._state, self._groups = None, {}, {}, []

    @property
    def of(self) -> int | None:
        """The data-parallel rank whose part is here; None: nobody's."""
        return None if self._part is None else self._part.rank

    def piece_of(self, parameter: nn.Parameter) -> tuple[nn.Parameter, int, dict[str, Any]]:
        """That rank's range of a parameter, flat, where it begins, and the optimizer's state of it."""
        piece = self._by_parameter[id(parameter)]
        return piece.parameter, piece.first, dict(self._state.get(piece.parameter, {}))

    # --- a step -------------------------------------------------------------------------------------------------------

    def send(self, transport: Transport, sums: Sequence[torch.Tensor], up_to: int) -> None:
        """Send on this rank's part of the sums of these buckets, which all ranks call in the same order, and receive
        the copied one's. Returns at once."""
        assert self._part is not None
        world, before = transport.world, self._part.rank
        after = (transport.rank + self.distance) % world
        while self._sent < up_to:
            mine, other = sums[self._sent], self._part.gradients[self._sent]
            self._sent += 1
            if mine.numel():
                there, here = [0] * world, [0] * world
                there[after], here[before] = mine.numel(), mine.numel()
                self._pending.append(transport.all_to_all(other, mine, here, there))

    def arrive(self, used: Sequence[bool]) -> None:
        """Wait until all of it is here. `used`, by slot: whether any rank has a gradient."""
        assert self._part is not None
        for each in self._pending:
            each.wait()
        self._pending, self._sent = [], 0
        self._part.point(used)

    def abandon(self) -> None:
        """The step came to nothing."""
        self._pending, self._sent = [], 0

    @property
    def gradients(self) -> list[torch.Tensor | None]:
        """Of the copied pieces, in the optimizer's order."""
        return [each.grad for group in self._groups for each in group]

    @contextmanager
    def updating(self) -> Iterator[None]:
        """The optimizer has the copy meanwhile, and keeps nothing of what it notes of itself."""
        optimizer = self._optimizer
        own = dict(vars(optimizer))
        beside = {
            key: copy.deepcopy(each) for key, each in optimizer.state.items() if not isinstance(key, torch.Tensor)
        }
        self._state |= beside
        groups = [
            {**group, **_copies(group), "params": params}
            for group, params in zip(optimizer.param_groups, self._groups, strict=True)
        ]
        vars(optimizer).update(_copies(own), param_groups=groups, state=self._state)
        try:
            yield
        finally:
            vars(optimizer).clear()
            vars(optimizer).update(own)
        if not self._told:
            self._tell()

    def _tell(self) -> None:
        """In the rank's log, once: what this costs."""
        assert self._part is not None
        self._told = True
        states = (value for state in self._state.values() if isinstance(state, dict) for value in state.values())
        gradients = sum(each.nbytes for each in self._part.gradients)
        kept = sum(each.nbytes for each in states if isinstance(each, torch.Tensor))
        kept += gradients + sum(each.nbytes for each in self._part.values)
        say.note(
            f"recovery.replicas: a copy of rank {self._part.rank}'s part of the state is kept here: "
            f"{kept / 1e6:.1f} MB, and {gradients / 1e6:.1f} MB more to send in each step"
        )


def _copies(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the tensors in there, which may be changed in place."""
    return {name: value.clone() for name, value in values.items() if isinstance(value, torch.Tensor)}


def distance(pods: Sequence[int]) -> int:
    """The smallest between a rank and its copy at which most of them live in different pods. `pods` by rank."""
    world = len(pods)
    apart = {each: sum(pods[rank] != pods[(rank + each) % world] for rank in range(world)) for each in range(1, world)}
    return max(apart, key=lambda each: (apart[each], -each))


def _nothing_of(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.data.new_empty(0), requires_grad=False)
