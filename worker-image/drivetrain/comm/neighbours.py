"""How do tensors travel between the stages of a pipeline, while these compute?

What will be received is known beforehand, though not its size: a thread receives it in that order, some tensors ahead,
each after a header with its type and shape. A second thread waits for what was sent to arrive and lets go of it. So
the thread that computes waits only for what it needs next, abandonably.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import torch

from drivetrain.comm.mailbox import Mailbox
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import FOR_EVER, Transport
from drivetrain.errors import Interrupted, UsageError

_AHEAD: Final = 2
"""Tensors that have been received and not taken yet."""
_DIMENSIONS: Final = 8
_TYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Message(NamedTuple):
    """What tells one tensor from the others between two ranks: unique within a step."""

    peer: int
    tag: int


class _Posted(NamedTuple):
    works: list[Any]
    tensors: list[torch.Tensor]
    """Only to keep them."""


class Neighbours:
    """Sending to and receiving from other ranks of one membership."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._wanted: SimpleQueue[Message | None] = SimpleQueue()
        self._received: Mailbox[torch.Tensor] = Mailbox()
        self._room = threading.Semaphore(_AHEAD)
        self._posted: SimpleQueue[_Posted | None] = SimpleQueue()
        self._under_way = 0
        self._arrived: Mailbox[bool] = Mailbox()
        self._ended = [threading.Event(), threading.Event()]
        transport.at_end(self)
        for number, body in enumerate((self._receive_all, self._outlast_all)):
            threading.Thread(target=self._run, args=(body, number), name="drivetrain-neighbours", daemon=True).start()

    def expect(self, messages: Sequence[Message]) -> None:
        """These will be received, in this order."""
        for each in messages:
            self._wanted.put(each)

    def receive(self) -> torch.Tensor:
        """The next of what is expected, on the CPU. Raises `Interrupted`."""
        tensor = self._received.take(self._transport, "receiving from another stage")
        self._room.release()
        self._transport.count(tensor.nbytes)
        return tensor

    def send(self, tensor: torch.Tensor, message: Message) -> None:
        """Start sending a tensor, which must not change any more. Raises `Interrupted`, or `UsageError` for a type or
        shape that cannot travel."""
        if tensor.dtype not in _TYPES or tensor.dim() > _DIMENSIONS:
            raise UsageError(
                f"training.parallel.pipeline: what a block is given must be a floating-point tensor with at most "
                f"{_DIMENSIONS} dimensions, not {tensor.dtype} with {tensor.dim()}"
            )
        header = torch.zeros(2 + _DIMENSIONS, dtype=torch.int64)
        header[:2] = torch.tensor([_TYPES.index(tensor.dtype), tensor.dim()])
        header[2 : 2 + tensor.dim()] = torch.tensor(tensor.shape)
        payload = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        works = [
            self._transport.start_send(each, message.peer, 2 * message.tag + number)
            for number, each in enumerate((header, payload))
        ]
        self._under_way += 1
        self._posted.put(_Posted(works, [header, payload]))

    def settle(self) -> None:
        """Wait until all that was sent has arrived. Raises `Interrupted`."""
        while self._under_way:
            self._arrived.take(self._transport, "sending to another stage")
            self._under_way -= 1

    # --- the membership's end ---------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Nothing is under way any more."""
        return all(each.is_set() for each in self._ended)

    def abandon(self, quarantine: Quarantine) -> None:
        """End the threads, as soon as what they wait for has ended, well or badly."""
        self._wanted.put(None)
        self._room.release()
        self._posted.put(None)
        for each in self._ended:
            quarantine.hold(each, self._transport.process_group, [], self)

    # --- threads ----------------------------------------------------------------------------------------------------

    def _run(self, body: Any, number: int) -> None:
        try:
            body()
        finally:
            self._ended[number].set()

    def _receive_all(self) -> None:
        while (message := self._wanted.get()) is not None:
            self._room.acquire()
            if self._transport.interrupt.reason is not None:
                return
            try:
                header = torch.zeros(2 + _DIMENSIONS, dtype=torch.int64)
                self._take(header, message.peer, 2 * message.tag)
                kind, dimensions, *shape = header.tolist()
                tensor = torch.empty(shape[:dimensions], dtype=_TYPES[kind])
                self._take(tensor.view(-1).view(torch.uint8), message.peer, 2 * message.tag + 1)
            except (RuntimeError, Interrupted) as error:
                self._received.put(error)
                return
            self._received.put(tensor)

    def _take(self, tensor: torch.Tensor, peer: int, tag: int) -> None:
        self._transport.start_receive(tensor, peer, tag).wait(FOR_EVER)

    def _outlast_all(self) -> None:
        while (posted := self._posted.get()) is not None:
            try:
                for work in posted.works:
                    work.wait(FOR_EVER)
            except RuntimeError as error:
                self._arrived.put(error)
            else:
                self._arrived.put(True)
