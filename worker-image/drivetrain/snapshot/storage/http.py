"""How does a storage speak HTTP, so that no answer, however bad, lasts longer than ten seconds?

What is spoken over it (s3.py, webhdfs.py) has an object's whole life in single requests, so this sends one, and says
what became of it. A limit holds for each step of it (connecting, each block sent, each block that comes), not for
the whole: a slow network may take minutes for 64 MiB, and one that stands still is found out all the same.

What only looks is tried again here, for a moment. What creates is not: see `write_own` and background.py.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions

from drivetrain.snapshot.errors import StorageError
from drivetrain.snapshot.storage import Chunks

_CONNECT_SECONDS: Final = 3.0
"""Also for each block that is sent."""
_READ_SECONDS: Final = 6.0
_BLOCK: Final = 256 << 10
_SLOWEST: Final = _BLOCK / _READ_SECONDS
"""Bytes a second. What comes more slowly has stopped."""
_TRY_AGAIN_SECONDS: Final = 4.0
_TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})


class NoAnswer(StorageError):
    """Nobody knows what became of the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Http:
    """Requests of one storage. Threads may share it."""

    def __init__(self, ca: Path | None, advice: str) -> None:
        """`ca`: PEM file of certificates to trust beside the system's; `advice`: where to put one."""
        self._ca = ca
        self._advice = advice
        self._pools: urllib3.PoolManager | None = None

    def send(self, method: str, url: str, headers: Mapping[str, str], chunks: Chunks = ()) -> Answer:
        """One request. Raises `NoAnswer`."""
        size = sum(len(each) for each in chunks)
        try:
            response = self._connected().request(
                method,
                url,
                headers={**headers, "Content-Length": str(size)} if size or method in ("PUT", "POST") else headers,
                body=_blocks(chunks) if size else None,
                preload_content=False,
                redirect=False,
            )
            try:
                return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, _read(response))
            finally:
                response.release_conn()
        except exceptions.SSLError as error:
            self._pools = None  # the next one reads the certificates again
            raise NoAnswer(
                f"the TLS certificate of {_host(url)} is not trusted ({_cause(error)}): {self._advice}"
            ) from error
        except (exceptions.HTTPError, OSError) as error:
            raise NoAnswer(f"{_host(url)} {_told(error)}") from error

    def look(self, url: str, headers: Mapping[str, str]) -> Answer:
        """One that changes nothing, again if that may help."""
        until, wait = time.monotonic() + _TRY_AGAIN_SECONDS, 0.1
        while True:
            answer: Answer | None = None
            try:
                answer = self.send("GET", url, headers)
                if answer.status not in _TEMPORARY:
                    return answer
            except NoAnswer:
                if time.monotonic() + wait > until:
                    raise
            if answer is not None and time.monotonic() + wait > until:
                return answer
            time.sleep(wait)
            wait = min(1.0, 2 * wait)

    def _connected(self) -> urllib3.PoolManager:
        if self._pools is None:
            context = ssl.create_default_context()
            if self._ca is not None:
                try:
                    context.load_verify_locations(self._ca)
                except (OSError, ssl.SSLError) as error:
                    raise StorageError(f"no certificates can be read from {self._ca}: {error}") from error
            self._pools = urllib3.PoolManager(
                maxsize=4,
                retries=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
                ssl_context=context,
            )
        return self._pools


def _blocks(chunks: Chunks) -> Iterator[Any]:
    """Of a size that has to get away within the limit."""
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        for at in range(0, len(view), _BLOCK):
            yield view[at : at + _BLOCK]


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    began, parts, size = time.monotonic(), [], 0
    while part := response.read1(1 << 20):
        parts.append(part)
        size += len(part)
        if time.monotonic() - began > _READ_SECONDS + size / _SLOWEST:
            with contextlib.suppress(exceptions.HTTPError, OSError):
                response.close()
            raise TimeoutError
    return b"".join(parts)


def _host(url: str) -> str:
    """Nothing else of a URL is told: there may be secrets in it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _told(error: Exception) -> str:
    if isinstance(error, exceptions.NameResolutionError):
        return "is not known to the name service"
    if isinstance(error, exceptions.NewConnectionError):  # a ConnectTimeoutError to urllib3
        return f"cannot be reached: {_cause(error)}"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"cannot be reached: no connection in {_CONNECT_SECONDS:.0f} s"
    if isinstance(error, exceptions.TimeoutError) or isinstance(_innermost(error), TimeoutError):
        return "does not answer: nothing moves any more"
    return f"has cut the connection: {_cause(error)}"


def _cause(error: BaseException) -> str:
    innermost = _innermost(error)
    return str(innermost)[:200] or type(innermost).__name__


def _innermost(error: BaseException) -> BaseException:
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


__all__ = ["Answer", "Http", "NoAnswer"]
