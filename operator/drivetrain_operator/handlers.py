"""All that kopf does for us: log in, and watch TrainingJobs. The only module with kopf's decorators.

A handler that raises is never called again for that event, and kopf's higher-level handlers write annotations into
objects. So there is one low-level handler, which passes the event on and returns.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

import aiohttp
import kopf

from drivetrain_api.constants import GROUP, PLURAL, VERSION
from drivetrain_operator.kube.auth import Access
from drivetrain_operator.kube.depth import shallow
from drivetrain_operator.kube.errors import CredentialsError
from drivetrain_operator.kube.resources import Object
from drivetrain_operator.kube.watch import Lines

log = logging.getLogger(__name__)

RELOGIN_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 120
"""So long a watch may last: the next one shows that there is still somebody who watches."""


def registry(
    access: Callable[[Access | None], Awaitable[Access]],
    observe: Callable[[str | None, Object], None],
    trace: Callable[[], aiohttp.TraceConfig],
) -> kopf.OperatorRegistry:
    """Handlers that call `observe(type, object)`; the type is ADDED, MODIFIED, DELETED, or None in the first list.

    `access(stale)` gives credentials, others than those that were refused; `trace()` is told of each request.
    """
    handlers = kopf.OperatorRegistry()
    stale: list[Access] = []

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        """Called at start, and again after each 401."""
        try:
            given = await access(stale[0] if stale else None)
        except CredentialsError as error:
            raise kopf.TemporaryError(str(error), delay=RELOGIN_SECONDS) from error
        stale[:] = [given]
        # kopf closes the session that was refused, so it gets one of its own each time.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=given.tls, limit=0),
            headers={"Authorization": given.authorization} if given.authorization else None,
            proxy=given.proxy,
            trace_configs=[trace()],
            response_class=ShallowResponse,
        )
        return kopf.AiohttpSession(server=given.server, aiohttp_session=session, default_namespace=given.namespace)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def trainingjob(event: kopf.RawEvent, **_: Any) -> None:
        observe(event["type"], dict(event["object"]))

    return handlers


class ShallowResponse(aiohttp.ClientResponse):
    """What kopf reads: nothing in it is nested deeper than its parser, and its copying, can take."""

    async def start(self, connection: Any) -> ShallowResponse:
        await super().start(connection)
        self.content = cast(aiohttp.StreamReader, _ShallowLines(self.content))
        return self

    async def json(self, **given: Any) -> Any:
        self._body = shallow(await self.read())
        return await super().json(**given)


class _ShallowLines:
    """A stream of which kopf asks for chunks, and gets whole lines."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        lines = Lines()
        async for chunk in self._stream.iter_chunked(size):
            for line in lines.feed(chunk):
                yield shallow(line) + b"\n"


def kopf_settings() -> kopf.OperatorSettings:
    """kopf without its peering, events, finalizers and unbounded waits."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = WATCH_SECONDS
    settings.queueing.worker_limit = None
    settings.process.ultimate_exiting_timeout = 10
    settings.persistence.finalizer = f"{GROUP}/kopf-finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}")
    return settings
