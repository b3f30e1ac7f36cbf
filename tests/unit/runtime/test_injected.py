"""Somebody puts bytes into the connections of ranks: they are a fault of communication, and nothing of them is run."""

from __future__ import annotations

import pickle
import struct
from typing import Any, Final, cast

import pytest
import torch

from drivetrain.comm.subgroup import tell_all
from drivetrain.comm.transport import Transport
from drivetrain.errors import CommFault
from drivetrain.position import Position
from drivetrain.state import TrainingState
from drivetrain.tree import Place
from drivetrain.wire import dump
from drivetrain.world.heal import take
from drivetrain.world.reunion import broadcast_tree

RAN: Final[list[str]] = []


def run() -> None:
    """What whoever injects wants."""
    RAN.append("ran")


class Evil:
    """To pickle."""

    def __reduce__(self) -> Any:
        return run, ()


class Injected:
    """A transport over which somebody else says what is received: numbers as headers, bytes as content."""

    rank, world = 1, 2

    def __init__(self, *said: int | bytes) -> None:
        self._said = list(said)

    def receive(self, tensors: list[torch.Tensor], peer: int, arrived: Any = None) -> None:
        for tensor in tensors:
            said = self._said.pop(0)
            data = struct.pack("<q", said) if isinstance(said, int) else said
            tensor.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def broadcast(self, tensor: torch.Tensor, root: int) -> None:
        self.receive([tensor[each : each + 1] for each in range(2)] if tensor.dtype is torch.int64 else [tensor], root)

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        said = cast(bytes, self._said[0])
        return [torch.frombuffer(bytearray(said.ljust(tensor.numel(), b"\0")), dtype=torch.uint8), tensor]


PICKLE: Final = pickle.dumps(Evil())
NO_STATE: Final = dump({"state": {}, "position": [], "later": {}})
TOO_FEW: Final = dump(Place(0, (8,), torch.uint8, (8,)))


@pytest.mark.parametrize("said", [(-1,), (1 << 62,), (len(PICKLE), PICKLE), (len(NO_STATE), NO_STATE)])
def test_a_newcomer_takes_nothing_but_state(said: tuple[int | bytes, ...]) -> None:
    RAN.clear()
    training, position = TrainingState(), Position()
    with pytest.raises(CommFault):
        take(cast(Transport, Injected(*said)), position, training, 0, None)
    assert RAN == []


@pytest.mark.parametrize(
    "said",
    [
        (-1, 0),
        (1, 1 << 62),
        (len(PICKLE), 0, PICKLE),
        (len(TOO_FEW), 4, TOO_FEW, b"1234"),
        (len(TOO_FEW), 0, TOO_FEW),
    ],
)
def test_a_part_of_the_state_is_nothing_else(said: tuple[int | bytes, ...]) -> None:
    RAN.clear()
    with pytest.raises(CommFault):
        broadcast_tree(cast(Transport, Injected(*said)), None, 0)
    assert RAN == []


@pytest.mark.parametrize("said", [PICKLE, b"\0\1N", b"\xff\xff" + b"N" * 4000, b"\0\1" + b"NN"])
def test_an_address_is_nothing_else(said: bytes) -> None:
    RAN.clear()
    if said in (b"\0\1N", b"\0\1NN"):  # what is behind the length counts for nothing
        assert tell_all(cast(Transport, Injected(said)), (1, "a"))[0] is None
    else:
        with pytest.raises(CommFault):
            tell_all(cast(Transport, Injected(said)), (1, "a"))
    assert RAN == []


def test_pickle_would_have_run_it() -> None:
    RAN.clear()
    pickle.loads(PICKLE)
    assert RAN == ["ran"]
