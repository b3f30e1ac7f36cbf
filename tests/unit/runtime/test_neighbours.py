"""Tensors between the stages of a pipeline: whatever their shapes, however far ahead, and when a membership ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch

from drivetrain.comm.neighbours import Message, Neighbours
from drivetrain.comm.quarantine import Quarantine
from drivetrain.errors import Interrupted, UsageError
from unit.runtime.test_backend import connected
from unit.runtime.together import Pipe, Ranks, together

SHAPES: list[tuple[int, ...]] = [(3, 4), (3, 4), (3, 4), (5,), (3, 4), (3, 4), (3, 4), (), (2, 0, 3), (1,) * 8, (3, 4)]
TYPES = [torch.float32] * 6 + [torch.bfloat16, torch.float64, torch.float32, torch.float16, torch.float32]


def tensors() -> list[torch.Tensor]:
    """Of many kinds; most are like the one before."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).to(dtype) for shape, dtype in zip(SHAPES, TYPES, strict=True)]


def both_ways(pipe: Pipe, steps: int) -> int:
    """Two messages a step in each direction, with other tensors in every step."""
    neighbours = Neighbours(connected(pipe))
    peer, given = 1 - pipe.rank, tensors()
    for step in range(steps):
        neighbours.expect([Message(peer, 0), Message(peer, 1)])
        for tag in (0, 1):
            neighbours.send(given[(step + tag) % len(given)] + pipe.rank, Message(peer, tag))
        for tag in (0, 1):
            found = neighbours.receive()
            expected = given[(step + tag) % len(given)] + peer
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert torch.equal(found, expected)
        neighbours.settle()
    return neighbours._transport.payload_bytes


def test_any_tensor_arrives_as_it_was() -> None:
    assert all(together(both_ways, 2, 40))


def many(pipe: Pipe, count: int) -> int:
    """One sends far ahead of the other."""
    neighbours = Neighbours(connected(pipe))
    if pipe.rank == 0:
        for number in range(count):
            neighbours.send(torch.full((1000,), float(number)), Message(1, number))
        neighbours.settle()
        return len(neighbours._sent)
    neighbours.expect([Message(0, number) for number in range(count)])
    for number in range(count):
        assert torch.equal(neighbours.receive(), torch.full((1000,), float(number)))
    return 0


def test_a_stage_may_be_far_ahead() -> None:
    assert together(many, 2, 200) == [0, 0]


def wrong(pipe: Pipe) -> list[str]:
    """What is said about tensors that cannot travel."""
    neighbours = Neighbours(connected(pipe))
    told = []
    for tensor in (torch.arange(3), torch.zeros((1,) * 9)):
        try:
            neighbours.send(tensor, Message(1 - pipe.rank, 0))
        except UsageError as error:
            told.append(str(error))
    return told


def test_what_cannot_travel_is_refused() -> None:
    for told in together(wrong, 2):
        assert "must be a floating-point tensor with at most 8 dimensions, not torch.int64 with 1" in told[0]
        assert "not torch.float32 with 9" in told[1]


def interrupted(pipe: Pipe, ending: str) -> tuple[str, int]:
    """Wait for what never comes, until the membership ends; what is left in quarantine some time after that."""
    transport = connected(pipe)
    neighbours = Neighbours(transport)
    if pipe.rank == 1:
        pipe.tell("ready")
        time.sleep(30)
    neighbours.expect([Message(1, 0)])
    neighbours.send(torch.zeros(1 << 20), Message(1, 1))  # nobody receives it
    pipe.tell("ready")
    if ending == "told":
        assert pipe.hear() == "end"
        transport.interrupt.end("another membership")
    raised = ""
    try:
        neighbours.receive()
    except Interrupted as error:
        raised = type(error).__name__
    quarantine = Quarantine()
    transport.abandon(quarantine)
    pipe.tell("abandoned")
    pipe.hear()
    deadline = time.monotonic() + 10
    while quarantine.sweep() and time.monotonic() < deadline:
        time.sleep(0.05)
    return raised, quarantine.sweep()


@pytest.mark.parametrize(("ending", "raised"), [("told", "MembershipOver"), ("killed", "CommFault")])
def test_waiting_ends_with_the_membership(ending: str, raised: str) -> None:
    with Ranks(interrupted, 2, ending) as ranks:
        assert [ranks.hear(rank) for rank in range(2)] == ["ready"] * 2
        if ending == "told":
            ranks.tell(0, "end")
        else:
            os.kill(ranks.pids[1], signal.SIGKILL)
        assert ranks.hear(0) == "abandoned"
        if ending == "told":
            os.kill(ranks.pids[1], signal.SIGKILL)
        ranks.tell(0, "go on")
        found: Any = ranks.hear(0)
        assert found == (raised, 0), "all that was abandoned ends with the peer"
