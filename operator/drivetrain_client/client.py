"""`Client`: `AsyncClient` for code without an event loop, also in a notebook, which has one of its own that is taken.

No call is written twice: each is made of AsyncClient's by `blocking`, with its parameters and its types. They run in a
loop in a thread that the client has; Ctrl-C, or leaving a `for` over logs, cancels there what runs.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from drivetrain_client.asynchronous import AsyncClient

_P = ParamSpec("_P")
_T = TypeVar("_T")
_CLOSE_SECONDS: Final = 10.0


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="drivetrain-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Its result. Whatever ends the wait here ends the work there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end(self) -> None:
        """Stop the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


def _ended(loop: _Loop, client: AsyncClient) -> None:
    """When a client is forgotten, or the program ends."""
    try:
        loop.run(asyncio.wait_for(client.close(), _CLOSE_SECONDS))
    finally:
        loop.end()


def blocking(
    method: Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Client, _P], _T]:
    """A method of AsyncClient, as one that comes back with its result."""

    def call(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._loop.run(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def iterating(
    method: Callable[Concatenate[AsyncClient, _P], AsyncGenerator[_T]],
) -> Callable[Concatenate[Client, _P], Iterator[_T]]:
    """A generator of AsyncClient, as an iterator that waits for what comes next."""

    def call(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        items = method(self._client, *args, **kwargs)
        try:
            while True:
                item = self._loop.run(_next(items))
                if isinstance(item, _Over):
                    return
                yield item
        finally:
            self._loop.run(items.aclose())

    functools.update_wrapper(call, method)
    return call


class _Over:
    """In place of an item: there are no more."""


async def _next(items: AsyncGenerator[_T]) -> _T | _Over:
    return await anext(items, _Over())


class Client:
    """Talks to the API server that kubectl would talk to, else to the embedded plane of this machine.

    client = Client()
    job = client.submit("train.py", workers=3)
    for line in client.logs(job):
        print(line)
    client.wait(job)
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        embedded: bool = False,
        state: Path | None = None,
        start: bool = False,
    ) -> None:
        """As AsyncClient."""
        self._loop = _Loop()
        self._client = AsyncClient(
            namespace=namespace, kubeconfig=kubeconfig, context=context, embedded=embedded, state=state, start=start
        )
        self._end = weakref.finalize(self, _ended, self._loop, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, for good."""
        self._end()

    submit = blocking(AsyncClient.submit)
    get = blocking(AsyncClient.get)
    list = blocking(AsyncClient.list)
    describe = blocking(AsyncClient.describe)
    why = blocking(AsyncClient.why)
    wait = blocking(AsyncClient.wait)
    logs = iterating(AsyncClient.logs)
    events = blocking(AsyncClient.events)
    results = blocking(AsyncClient.results)
    fetch = blocking(AsyncClient.fetch)
    scale = blocking(AsyncClient.scale)
    suspend = blocking(AsyncClient.suspend)
    resume = blocking(AsyncClient.resume)
    delete = blocking(AsyncClient.delete)
