"""A proxy between a storage and its server, which lets one request at a time go wrong, in every way that networks know.

It forwards what it understands as HTTP, byte by byte, so that signatures hold; each request has a connection of its
own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of a request."""

    kind: str
    """`answer`: the server never sees it; `lose`: it does, and its answer is lost; `stall`: nothing moves any more;
    `crawl`: a little a time, for as long as it takes; `cut`: the server sees a part of it."""
    status: int = 503
    body: bytes = b""


class Proxy:
    """`fault(request)` is asked for each; None lets it be."""

    def __init__(self, port: int) -> None:
        """Between its own port and the server's."""
        self._server = port
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.seen: list[Request] = []
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        """Nobody is served any more."""
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, begun = _head(client)
            if not head:
                return
            lines = head.split(b"\r\n")
            method, path, _ = lines[0].decode().split(" ", 2)
            length = next((int(each.split(b":")[1]) for each in lines if each.lower().startswith(b"content-length")), 0)
            request = Request(method, path)
            self.seen.append(request)
            fault = self.fault(request)
            if fault is not None and fault.kind == "stall":
                self._ended.wait(60)
                return
            if fault is not None and fault.kind == "answer":
                _receive(client, length - len(begun))
                status = (
                    f"HTTP/1.1 {fault.status} Told\r\nContent-Length: {len(fault.body)}\r\nConnection: close\r\n\r\n"
                )
                client.sendall(status.encode() + fault.body)
                return
            with socket.create_connection(("127.0.0.1", self._server), 10) as server:
                server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + begun)
                left = length - len(begun)
                if fault is not None and fault.kind == "cut":
                    self._forward(client, server, left // 2)
                    return
                self._forward(client, server, left, pause=0.02 if fault is not None and fault.kind == "crawl" else 0.0)
                if fault is not None and fault.kind == "lose":
                    server.recv(_BLOCK)
                    return
                while data := server.recv(_BLOCK):
                    client.sendall(data)

    def _forward(self, client: socket.socket, server: socket.socket, left: int, pause: float = 0.0) -> None:
        while left > 0:
            data = client.recv(min(_BLOCK, left))
            if not data:
                return
            server.sendall(data)
            left -= len(data)
            if pause:
                self._ended.wait(pause)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(_BLOCK)
        if not more:
            return b"", b""
        data += more
    head, _, begun = data.partition(b"\r\n\r\n")
    return head, begun


def _receive(client: socket.socket, left: int) -> None:
    while left > 0 and (data := client.recv(min(_BLOCK, left))):
        left -= len(data)
