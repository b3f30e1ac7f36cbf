"""What a port answers: one table of paths, and the same few refusals everywhere. Whatever comes in, something goes out.

A handler returns a response or raises `Refused`. Anything else that it raises is a defect of ours: it is counted, told
of once a minute with its traceback, and answered with 500.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from drivetrain_serving.refusals import Refusals
from drivetrain_serving.unsent import unsent

log = logging.getLogger(__name__)

BODY_SECONDS: Final = 10.0
"""For a body to be there as a whole."""
SEND_SECONDS: Final = 10.0
"""For an answer to be taken over by the caller's kernel."""
UNSENT_GAP: Final = 0.01
TOKEN_BYTES: Final = 512

Route = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """This caller is turned away. `reason` counts: a word of ours; `message` is the caller's, and logged."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or _REASONS.get(status, str(status))
        self.headers = dict(headers or {})
        self.close = close


_REASONS: Final = {
    400: "malformed",
    401: "token",
    403: "forbidden",
    404: "unknown",
    405: "method",
    408: "late",
    410: "gone",
    413: "size",
    429: "rate",
    500: "defect",
    503: "elsewhere",
}


def unauthorized(message: str) -> Refused:
    """No token, or not ours: the connection ends, and with it what it cost."""
    return Refused(401, message, headers={"WWW-Authenticate": "Bearer"}, close=True)


def too_often(seconds: float) -> Refused:
    """Ask again after so many seconds."""
    return Refused(429, "too many requests for this token", headers={"Retry-After": str(max(1, math.ceil(seconds)))})


class Answers:
    """A handler for `Listener`."""

    def __init__(self, routes: Mapping[tuple[str, str], Route], refusals: Refusals, *, close: bool = False) -> None:
        """`routes` by method and path. With `close`, one request a connection."""
        self._routes = dict(routes)
        self._paths = {path for _, path in self._routes}
        self._refusals = refusals
        self._close = close

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Never raises but for cancellation."""
        try:
            response = await self._route(request)(request)
        except Refused as refused:
            response = self._refusal(refused)
        except web.HTTPException as error:  # of aiohttp's, such as a handshake that is none
            response = self._refusal(Refused(error.status, error.reason, close=True))
        except ConnectionError:
            response = web.Response(status=499)  # the caller is gone: nobody hears it
        except Exception:  # noqa: BLE001  Said below, and counted.
            self._refusals.refuse("defect", traceback.format_exc(limit=-3))
            response = _json(500, "a defect of this server; its log says more")
            response.force_close()
        if isinstance(response, web.WebSocketResponse):
            return response
        if self._close:
            response.force_close()
        return await sent(request, response)

    def _route(self, request: web.BaseRequest) -> Route:
        found = self._routes.get((request.method, request.path))
        return found if found is not None else self._lost

    async def _lost(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in self._paths:
            allowed = ", ".join(sorted(method for method, path in self._routes if path == request.path))
            raise Refused(405, f"this path takes {allowed}", headers={"Allow": allowed}, close=True)
        raise Refused(404, "nothing is served at this path", close=True)

    def _refusal(self, refused: Refused) -> web.Response:
        self._refusals.refuse(refused.reason, refused.message)
        response = _json(refused.status, refused.message, refused.headers)
        if refused.close:
            response.force_close()
        return response


def bearer(request: web.BaseRequest) -> str:
    """The bearer token of a request, as it came: ASCII without spaces. Raises `Refused` if there is none."""
    given = request.headers.getall("Authorization", [])
    scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("the Authorization header carries no bearer token")
    if len(token) > TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
        raise unauthorized("the Authorization header carries nothing that could be a token of ours")
    return token


async def body(request: web.BaseRequest, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """At most `limit` bytes. Raises `Refused`."""
    told = request.content_length
    if told is not None and told > limit:
        raise Refused(413, f"a body of {told} bytes; here at most {limit}", close=True)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while part := await request.content.readany():
                size += len(part)
                if size > limit:
                    raise Refused(413, f"a body of more than {limit} bytes", close=True)
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body was not there within {seconds:g} s", close=True) from None
    except (web.HTTPException, web.RequestPayloadError, ValueError) as error:
        raise Refused(400, f"the body cannot be read: {error}", close=True) from None
    return b"".join(parts)


async def sent(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """The response, once the caller's kernel has it, or never will."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await response.prepare(request)
            await response.write_eof()
            # What is written may lie in a buffer of ours, for as long as its reader likes.
            while request.transport is not None and unsent(request.transport) > 0:  # noqa: ASYNC110
                await asyncio.sleep(UNSENT_GAP)
    except (TimeoutError, ConnectionError):  # it does not take it, or is gone
        if request.transport is not None:
            request.transport.abort()
    return response


def _json(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=headers)
