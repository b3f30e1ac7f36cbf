"""Tensors between the stages of a pipeline: whatever their shapes, however far ahead, and when a membership ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest
import torch

from drivetrain.comm import links, meeting
from drivetrain.comm.neighbours import _HEADER, Message, Neighbours
from drivetrain.comm.quarantine import Quarantine
from drivetrain.errors import CommFault, Interrupted, UsageError
from harness.activity import Stillness
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
    neighbours = Neighbours(connected(pipe), [1 - pipe.rank])
    peer, given = 1 - pipe.rank, tensors()
    for step in range(steps):
        for tag in (0, 1):
            neighbours.send(given[(step + tag) % len(given)] + pipe.rank, Message(peer, tag))
        for tag in (0, 1) if step % 3 else (1, 0):
            found = neighbours.receive(Message(peer, tag))
            expected = given[(step + tag) % len(given)] + peer
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert torch.equal(found, expected)
        neighbours.settle()
    return neighbours._transport.payload_bytes


def test_any_tensor_arrives_as_it_was() -> None:
    assert all(together(both_ways, 2, 40))


def at_another_operation(pipe: Pipe) -> tuple[bool, str]:
    """Whether `check` had seen everybody's message before the first tensor left; and what it raised."""
    transport = connected(pipe)
    neighbours = Neighbours(transport, [1 - pipe.rank])
    seen: list[list[bytes]] = []

    def check(messages: list[bytes]) -> None:
        seen.append(messages)
        if len(set(messages)) > 1:
            raise UsageError("apart")

    transport.enter(b"same", check)

    def use() -> None:
        if pipe.rank == 0:
            neighbours.send(torch.zeros(3), Message(1, 0))
        else:
            neighbours.receive(Message(0, 0))

    use()
    compared = seen == [[b"same", b"same"]]
    transport.enter(b"own%d" % pipe.rank, check)
    try:
        use()
    except UsageError as error:
        return compared, str(error)
    return compared, ""


def test_nothing_travels_between_ranks_at_different_operations() -> None:
    assert together(at_another_operation, 2) == [(True, "apart")] * 2


def many(pipe: Pipe, count: int) -> None:
    """One sends far ahead of the other, which wants the last one first."""
    neighbours = Neighbours(connected(pipe), [1 - pipe.rank])
    if pipe.rank == 0:
        for number in range(count):
            neighbours.send(torch.full((100_000,), float(number)), Message(1, number))
        neighbours.settle()
        return
    time.sleep(0.5)
    for number in reversed(range(count)):
        found = neighbours.receive(Message(0, number))
        assert torch.equal(found, torch.full((100_000,), float(number)))


def test_a_stage_may_be_far_ahead() -> None:
    together(many, 2, 200)


def wrong(pipe: Pipe) -> list[str]:
    """What is said about tensors that cannot travel."""
    neighbours = Neighbours(connected(pipe), [1 - pipe.rank])
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


def garbled(pipe: Pipe, said: bytes) -> str:
    """What is said when a peer sends what is no message."""
    neighbours = Neighbours(connected(pipe), [1 - pipe.rank])
    if pipe.rank == 0:
        neighbours._lines[1].send(said, memoryview(b""))
        return ""
    with pytest.raises(CommFault) as caught:
        neighbours.receive(Message(0, 0))
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"9" * 200, "this is no message"),
        (_HEADER.pack(0, 0, 1, 1 << 60, *[0] * 7), "a message that fits into no memory"),
        (_HEADER.pack(0, 0, 2, *[(1 << 64) - 1] * 8), "a message that fits into no memory"),
    ],
)
def test_what_is_no_message_is_seen(said: bytes, told: str) -> None:
    assert together(garbled, 2, said)[1] == f"receiving from stage 0: {told}"


def called(pipe: Pipe) -> bool:
    """While the ranks connect, strangers call one of them."""
    strangers = []
    listen = links._listen

    def with_strangers() -> socket.socket:
        listener = listen()
        for said, stays in (*[(b"", True)] * 50, (b"", False), (b"short", True), (b"short", False), (b"0" * 99, True)):
            stranger = socket.create_connection(listener.getsockname())
            stranger.sendall(said)
            if not stays:
                stranger.shutdown(socket.SHUT_WR)
            strangers.append(stranger)
        return listener

    links._listen = with_strangers
    transport, began = connected(pipe), Stillness()
    neighbours = Neighbours(transport, [1 - pipe.rank])
    assert began.seconds() < meeting._INTRODUCTION  # none of them was waited for
    neighbours.send(torch.ones(3), Message(1 - pipe.rank, 0))
    return torch.equal(neighbours.receive(Message(1 - pipe.rank, 0)), torch.ones(3))


def test_strangers_are_turned_away() -> None:
    assert all(together(called, 2))


def interrupted(pipe: Pipe, waits: str, ending: str) -> tuple[str, float]:
    """Wait for what never comes, until the membership ends: how that came out, and seconds after its end."""
    transport = connected(pipe)
    neighbours = Neighbours(transport, [1 - pipe.rank])
    if pipe.rank == 1:
        pipe.tell("ready")
        time.sleep(30)
    neighbours.send(torch.zeros(1 << 24), Message(1, 1))  # nobody receives it
    ended: list[Stillness] = []

    def link() -> None:
        pipe.tell("ready")
        pipe.hear()
        ended.append(Stillness())
        if ending == "told":
            transport.interrupt.end("another membership")

    threading.Thread(target=link).start()
    raised = ""
    try:
        if waits == "receiving":
            neighbours.receive(Message(1, 0))
        else:
            neighbours.settle()
    except Interrupted as error:
        raised = type(error).__name__
    took = ended[0].seconds()
    transport.abandon(Quarantine())
    for each in threading.enumerate():
        if each.name == "drivetrain-neighbour":
            each.join(60)
            assert not each.is_alive()
    return raised, took


@pytest.mark.parametrize("waits", ["receiving", "sending"])
@pytest.mark.parametrize(("ending", "raised"), [("told", "MembershipOver"), ("killed", "CommFault")])
def test_waiting_ends_with_the_membership(waits: str, ending: str, raised: str) -> None:
    with Ranks(interrupted, 2, waits, ending) as ranks:
        assert [ranks.hear(rank) for rank in range(2)] == ["ready"] * 2
        time.sleep(0.2)
        ranks.tell(0, "over")
        if ending == "killed":
            time.sleep(0.2)
            os.kill(ranks.pids[1], signal.SIGKILL)
        found, took = ranks.hear(0)
        assert found == raised
        assert took < 5
