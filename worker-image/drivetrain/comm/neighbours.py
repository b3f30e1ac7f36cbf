"""How do tensors travel between the stages of a pipeline, while these compute?

What will be received is known beforehand, but for its shape. A thread receives it in that order, some tensors ahead, so
that the thread that computes waits only for what it needs next, abandonably.

A tensor is one message as long as it has the shape that it had the last two times: a header, then numbers. Both sides
know that shape. If it has another one, the message's header says so, and the tensor follows in a second message.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import torch

from drivetrain.comm.mailbox import Mailbox
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import FOR_EVER, WAIT_SECONDS, Transport
from drivetrain.errors import UsageError

_AHEAD: Final = 2
"""Tensors that have been received and not taken yet."""
_KEPT: Final = 32
"""Messages that are on their way, or may have arrived: then the older half is waited for."""
_DIMENSIONS: Final = 8
_TYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HEADER: Final = 8 * (2 + _DIMENSIONS)
"""Bytes: type, number of dimensions, shape."""


class Message(NamedTuple):
    """What tells one tensor from the others between two ranks: unique within a step."""

    peer: int
    tag: int


_Form = tuple[int, ...]
"""What a header says."""


class _Expectations:
    """The form of the next tensor of each message, as far as both sides expect the same."""

    def __init__(self) -> None:
        self._last: dict[Message, _Form] = {}
        self._same: set[Message] = set()

    def of(self, message: Message) -> _Form | None:
        return self._last[message] if message in self._same else None

    def note(self, message: Message, form: _Form) -> None:
        if self._last.get(message) == form:
            self._same.add(message)
        else:
            self._same.discard(message)
        self._last[message] = form


class Neighbours:
    """Sending to and receiving from other ranks of one membership."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._outgoing = _Expectations()
        self._sent: deque[tuple[Any, torch.Tensor]] = deque()
        """What gloo may still read."""
        self._incoming = _Expectations()
        self._wanted: SimpleQueue[Message | None] = SimpleQueue()
        self._received: Mailbox[torch.Tensor] = Mailbox()
        self._room = threading.Semaphore(_AHEAD)
        self._ended = threading.Event()
        transport.at_end(self)
        threading.Thread(target=self._receive_all, name="drivetrain-neighbours", daemon=True).start()

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
        """Start sending a copy of a tensor. Raises `Interrupted`, or `UsageError` for a type or shape that cannot
        travel."""
        if tensor.dtype not in _TYPES or tensor.dim() > _DIMENSIONS:
            raise UsageError(
                f"training.parallel.pipeline: what a block is given must be a floating-point tensor with at most "
                f"{_DIMENSIONS} dimensions, not {tensor.dtype} with {tensor.dim()}"
            )
        form = (_TYPES.index(tensor.dtype), tensor.dim(), *tensor.shape, *[0] * (_DIMENSIONS - tensor.dim()))
        expected = self._outgoing.of(message)
        packet = torch.empty(_HEADER + (_bytes_of(expected) if expected is not None else 0), dtype=torch.uint8)
        packet[:_HEADER] = _header(form)
        if form == expected:
            packet[_HEADER:].view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
        self._post(packet, message.peer, 2 * message.tag)
        if form != expected:
            numbers = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
            self._post(numbers.view(-1).view(torch.uint8), message.peer, 2 * message.tag + 1)
        self._outgoing.note(message, form)

    def _post(self, packet: torch.Tensor, peer: int, tag: int) -> None:
        if len(self._sent) >= _KEPT:
            self._wait_for(_KEPT // 2)
        self._sent.append((self._transport.start_send(packet, peer, tag), packet))

    def settle(self) -> None:
        """Wait until all that was sent has arrived. Raises `Interrupted`."""
        if self._sent:
            self._wait_for(len(self._sent))

    def _wait_for(self, count: int) -> None:
        """That the oldest have arrived."""
        works = [work for work, _ in list(self._sent)[:count]]

        def body() -> None:
            for work in works:
                work.wait(FOR_EVER)

        self._transport.blocked(True)
        try:
            self._transport.interrupt.call(body, WAIT_SECONDS, "sending to another stage")
        finally:
            self._transport.blocked(False)
        for _ in range(count):
            self._sent.popleft()

    # --- the membership's end ---------------------------------------------------------------------------------------

    def abandon(self, quarantine: Quarantine) -> None:
        """End the thread, as soon as what it waits for has ended, well or badly."""
        self._wanted.put(None)
        self._room.release()
        quarantine.hold(self._ended, self._transport.process_group, [], self)
        if self._sent:
            self._transport.outlast([work for work, _ in self._sent], [packet for _, packet in self._sent], quarantine)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _receive_all(self) -> None:
        try:
            while (message := self._wanted.get()) is not None:
                self._room.acquire()
                self._received.put(self._take(message))
        except Exception as error:  # noqa: BLE001  Whatever it is: who waits for the tensor must not wait on.
            self._received.put(error)
        finally:
            self._ended.set()

    def _take(self, message: Message) -> torch.Tensor:
        expected = self._incoming.of(message)
        size = _bytes_of(expected) if expected is not None else 0
        packet = torch.empty(_HEADER + size, dtype=torch.uint8)
        self._transport.start_receive(packet, message.peer, 2 * message.tag).wait(FOR_EVER)
        form = tuple(packet[:_HEADER].view(torch.int64).tolist())
        numbers = packet[_HEADER:]
        if form != expected:
            numbers = torch.empty(_bytes_of(form), dtype=torch.uint8)
            self._transport.start_receive(numbers, message.peer, 2 * message.tag + 1).wait(FOR_EVER)
        self._incoming.note(message, form)
        kind, dimensions, *shape = form
        return numbers.view(_TYPES[kind]).view(shape[:dimensions])


@lru_cache(maxsize=64)
def _header(form: _Form) -> torch.Tensor:
    return torch.tensor(form).view(torch.uint8)


def _bytes_of(form: _Form) -> int:
    """Of the numbers."""
    kind, dimensions, *shape = form
    count = 1
    for each in shape[:dimensions]:
        count *= each
    return count * _TYPES[kind].itemsize
