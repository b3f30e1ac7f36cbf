"""How do tensors travel between the stages of a pipeline, while these compute?

Over connections of their own, whose waits end when the membership does: its end shuts them down. The thread that
computes waits in the system call itself, so that a tensor which has arrived costs no hop between threads; what does not
fit into the connection at once is sent by a thread. Whoever waits for one message puts by the others that come before.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import torch

from drivetrain.comm.links import connect
from drivetrain.comm.pending import WAIT_SECONDS
from drivetrain.comm.quarantine import Quarantine
from drivetrain.comm.transport import Transport
from drivetrain.comm.waiting import Waiting
from drivetrain.errors import CommFault, UsageError

_DIMENSIONS: Final = 8
_TYPES: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HEADER: Final = struct.Struct(f"!QBB{_DIMENSIONS}Q")
"""Tag, type, number of dimensions, shape."""


class Message(NamedTuple):
    """What tells one tensor from the others between two ranks: unique within a step."""

    peer: int
    tag: int


class Neighbours:
    """Sending to and receiving from some other ranks of one membership."""

    def __init__(self, transport: Transport, peers: Iterable[int]) -> None:
        """All ranks of `transport` make one at the same time, each with those that it will exchange tensors with.
        Raises `Interrupted`."""
        self._transport = transport
        self._lines = {peer: _Line(each) for peer, each in connect(transport, peers).items()}
        transport.at_end(self)
        transport.interrupt.on_end(self.hang_up)

    def receive(self, message: Message) -> torch.Tensor:
        """What the peer sends, or has sent, as this message; on the CPU. Raises `Interrupted`."""
        self._transport.pass_gate()
        self._transport.interrupt.check()
        line, calls = self._lines[message.peer], self._transport.calls
        try:
            tensor = line.arrived(message.tag)
            if tensor is None:
                with Waiting(self._transport, calls.begin("receive", 0, "", message.peer)):  # its sender knows its size
                    tensor = line.receive(message.tag)
            else:
                calls.end(calls.begin("receive", tensor.nbytes, tensor.dtype, message.peer))
        except OSError as error:
            self._transport.interrupt.check()
            raise CommFault(f"receiving from stage {message.peer}: {error}") from error
        self._transport.count(tensor.nbytes)
        return tensor

    def send(self, tensor: torch.Tensor, message: Message) -> None:
        """Start sending a tensor as it is now. Raises `Interrupted`, or `UsageError` for a type or shape that cannot
        travel."""
        if tensor.dtype not in _TYPES or tensor.dim() > _DIMENSIONS:
            raise UsageError(
                f"training.parallel.pipeline: what a block is given must be a floating-point tensor with at most "
                f"{_DIMENSIONS} dimensions, not {tensor.dtype} with {tensor.dim()}"
            )
        self._transport.pass_gate()
        self._transport.interrupt.check()
        shape = (*tensor.shape, *[0] * (_DIMENSIONS - tensor.dim()))
        header = _HEADER.pack(message.tag, _TYPES.index(tensor.dtype), tensor.dim(), *shape)
        try:
            self._lines[message.peer].send(header, _bytes_of(tensor.detach().cpu().contiguous()))
            self._transport.calls.end(self._transport.calls.begin("send", tensor.nbytes, tensor.dtype, message.peer))
        except OSError as error:
            self._transport.interrupt.check()
            raise CommFault(f"sending to stage {message.peer}: {error}") from error

    def settle(self) -> None:
        """Wait until all that was sent is on its way. Raises `Interrupted`."""
        for peer, line in self._lines.items():
            if line.is_idle:
                continue
            try:
                with Waiting(self._transport, self._transport.calls.begin("send", 0, "", peer)):
                    line.settle()
            except OSError as error:
                self._transport.interrupt.check()
                raise CommFault(f"sending to stage {peer}: {error}") from error

    def abandon(self, quarantine: Quarantine) -> None:
        """End the connections. Nothing else reads or writes tensors of this thread, so nothing is left over."""
        self.hang_up()

    def hang_up(self) -> None:
        """End the connections, from any thread: whoever waits for one of them, here or at its other end, wakes up."""
        for line in self._lines.values():
            line.hang_up()


class _Line:
    """One connection. Errors come as `OSError`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._header = bytearray(_HEADER.size)
        self._early: defaultdict[int, deque[torch.Tensor]] = defaultdict(deque)
        """By tag: what came before somebody asked for it."""
        self._changed = threading.Condition()
        self._left: deque[bytes] = deque()
        """What the thread has to send."""
        self._error: OSError | None = None
        self._over = False
        threading.Thread(target=self._send_left, name="drivetrain-neighbour", daemon=True).start()

    def hang_up(self) -> None:
        """From any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._over = True
            self._changed.notify_all()

    # --- receiving --------------------------------------------------------------------------------------------------

    def arrived(self, tag: int) -> torch.Tensor | None:
        """A tensor; None if it has not begun to arrive."""
        while not self._early[tag]:
            try:
                self._finish(self._read(memoryview(self._header), socket.MSG_DONTWAIT))
            except BlockingIOError:
                return None
        return self._early[tag].popleft()

    def receive(self, tag: int) -> torch.Tensor:
        """Wait for it."""
        while not self._early[tag]:
            self._finish(0)
        return self._early[tag].popleft()

    def _finish(self, start: int) -> None:
        """Receive a message, of whose header so many bytes are there."""
        self._fill(memoryview(self._header)[start:])
        tag, kind, dimensions, *shape = _HEADER.unpack(self._header)
        if kind >= len(_TYPES) or dimensions > _DIMENSIONS:
            raise OSError("this is no message")
        try:
            tensor = torch.empty(shape[:dimensions], dtype=_TYPES[kind])
        except (RuntimeError, TypeError, OverflowError) as error:
            raise OSError("a message that fits into no memory") from error
        self._fill(_bytes_of(tensor))
        self._early[tag].append(tensor)

    def _fill(self, buffer: memoryview) -> None:
        while len(buffer):
            buffer = buffer[self._read(buffer, socket.MSG_WAITALL) :]

    def _read(self, buffer: memoryview, flags: int) -> int:
        count = self._connection.recv_into(buffer, flags=flags)
        if not count:
            raise ConnectionResetError("it has hung up")
        return count

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, header: bytes, content: memoryview) -> None:
        """Send at once what the connection takes; the thread sends the rest."""
        with self._changed:
            if self._error is not None:
                raise self._error
            sent = 0
            if not self._left:
                with suppress(BlockingIOError):
                    sent = self._connection.sendmsg((header, content), (), socket.MSG_DONTWAIT)
            if sent < len(header):
                self._left.append(header[sent:])
            if (sent := max(0, sent - len(header))) < len(content):
                self._left.append(bytes(content[sent:]))
            if self._left:
                self._changed.notify_all()

    def settle(self) -> None:
        """Wait until nothing is left to send."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left or self._error or self._over, WAIT_SECONDS)
            if self._error is not None:
                raise self._error
            if self._left:
                raise ConnectionAbortedError("not all was sent")

    @property
    def is_idle(self) -> bool:
        """Whether all was sent."""
        return not self._left and self._error is None

    def _send_left(self) -> None:
        with self._connection:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._left or self._over)
                    if self._over:
                        return
                    content = self._left[0]
                try:
                    self._connection.sendall(content)
                except OSError as error:
                    with self._changed:
                        self._error = error
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._over)
                    return
                with self._changed:
                    self._left.popleft()
                    self._changed.notify_all()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous one."""
    return tensor.view(-1).view(torch.uint8).numpy().data
