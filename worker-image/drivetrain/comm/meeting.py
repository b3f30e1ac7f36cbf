"""How are all connections of a rank made at once, however many strangers call meanwhile?

One thread waits for all of them, and for none alone. A caller has to prove that it is a rank (introduction.py); who
says nothing, or anything else, holds up nobody and is let go.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from contextlib import suppress
from typing import Any, Final, cast

from drivetrain.comm.introduction import Introduction, called, calling
from drivetrain.comm.pending import WAIT_SECONDS

_SECONDS: Final = 30.0
"""For all connections of a rank."""
_INTRODUCTION: Final = 5.0
"""For a caller to prove who it is."""
_STRANGERS: Final = 256
"""Callers that have not: when one more comes, the one that has been here longest goes."""

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Family, and what the system calls an address."""


class _Conversation:
    """With one connection that is not made yet."""

    def __init__(self, connection: socket.socket, introduction: Introduction, until: float, peer: int | None) -> None:
        self.connection = connection
        self.until = until
        self.peer = peer
        """Whom this rank has called; None for a caller."""
        self._introduction = introduction
        self._heard = b""
        self._wanted = 0

    def begin(self) -> None:
        """The connection stands. Raises `OSError`."""
        say, self._wanted = next(self._introduction)
        self.connection.send(say)  # a few bytes, which an empty connection takes

    def go_on(self) -> int | None:
        """Something has come. Returns the rank when it is proven. Raises `OSError` for who is no rank."""
        heard = self.connection.recv(self._wanted - len(self._heard))
        if not heard:
            raise ConnectionResetError("it has hung up")
        self._heard += heard
        if len(self._heard) < self._wanted:
            return None
        heard, self._heard = self._heard, b""
        try:
            say, self._wanted = self._introduction.send(heard)
        except StopIteration as proven:
            if proven.value.say:
                self.connection.send(proven.value.say)
            rank: int = proven.value.rank
            return rank
        self.connection.send(say)
        return None


class Meeting:
    """All connections of one rank, while they are made. Of two ranks, the lower one calls."""

    def __init__(
        self, rank: int, peers: set[int], listener: socket.socket, key: bytes, addresses: list[Address]
    ) -> None:
        self._rank = rank
        self._missing = set(peers)
        self._listener = listener
        self._key = key
        self._addresses = addresses
        self._deadline = time.monotonic() + _SECONDS
        self._made: dict[int, socket.socket] = {}
        self._open: dict[socket.socket, _Conversation] = {}
        """In the order in which they began."""
        self._selector = selectors.DefaultSelector()

    def held(self) -> dict[int, socket.socket]:
        """The connections by peer. Raises `OSError`."""
        try:
            with self._listener, self._selector:
                self._listener.setblocking(False)
                self._selector.register(self._listener, selectors.EVENT_READ)
                for peer in sorted(each for each in self._missing if each > self._rank):
                    self._call(peer)
                while self._missing:
                    self._wait()
        except BaseException:
            for connection in self._made.values():
                connection.close()
            raise
        finally:
            for connection in self._open:
                connection.close()
        for connection in self._made.values():
            connection.setblocking(True)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(WAIT_SECONDS), 0))
        return self._made

    def _call(self, peer: int) -> None:
        family, address = self._addresses[peer]
        connection = socket.socket(family)
        self._open[connection] = _Conversation(connection, calling(self._key, self._rank, peer), self._deadline, peer)
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.connect(address)
        self._selector.register(connection, selectors.EVENT_WRITE)

    def _wait(self) -> None:
        now = time.monotonic()
        if now >= self._deadline:
            raise TimeoutError(f"not connected to {sorted(self._missing)[:3]} after {_SECONDS:.0f} s")
        for late in [each for each in self._open.values() if each.until <= now]:
            self._close(late)
        until = min([self._deadline, *(each.until for each in self._open.values())])
        for ready, _ in self._selector.select(max(0.0, until - now)):
            if ready.fileobj is self._listener:
                self._accept()
            elif (conversation := self._open.get(cast(socket.socket, ready.fileobj))) is not None:
                self._hear(conversation, ready.events == selectors.EVENT_WRITE)

    def _accept(self) -> None:
        with suppress(OSError):  # it has hung up meanwhile
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(strangers := [each for each in self._open.values() if each.peer is None]) >= _STRANGERS + len(
                self._missing
            ):
                self._close(strangers[0])
            until = time.monotonic() + _INTRODUCTION
            conversation = _Conversation(connection, called(self._key, self._rank), until, None)
            conversation.begin()
            self._open[connection] = conversation
            self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, conversation: _Conversation, connected: bool) -> None:
        connection = conversation.connection
        try:
            if connected:
                if error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                self._selector.modify(connection, selectors.EVENT_READ)
                conversation.begin()
                return
            rank = conversation.go_on()
        except BlockingIOError:
            return
        except OSError:
            self._close(conversation)
            if conversation.peer is not None:
                raise
            return
        if rank is None:
            return
        del self._open[connection]
        self._selector.unregister(connection)
        if rank in self._missing:
            self._missing.remove(rank)
            self._made[rank] = connection
        else:
            connection.close()

    def _close(self, conversation: _Conversation) -> None:
        del self._open[conversation.connection]
        self._selector.unregister(conversation.connection)
        conversation.connection.close()
