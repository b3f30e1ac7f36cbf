"""One request, one bounded answer. Everything that feeds fetch goes through `Http`; tests and the operator bring one.

Redirects are not followed: credentials go where the settings say, and nowhere else.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from drivetrain_energy.feeds.errors import Limited, Refused, Slow, TooLarge, Unavailable, Unreadable, Unset

MAX_BODY: Final = 4 << 20
"""A week of a zone in steps of five minutes is 200 kB."""
MAX_CONTEXTS: Final = 32
_CA: Final = "is caFile who signed it, and has it the name in baseURL?"
LONGEST_WAIT: Final = 86400.0
"""More than that nobody is told to wait."""


@dataclass(frozen=True, slots=True)
class Request:
    """GET, or POST of a form."""

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """They may be credentials."""
    form: Mapping[str, str] | None = None
    ca: str | None = field(default=None, repr=False)
    """Certificates in PEM of who may sign the server's; None: those of the image."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever it is."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Http(Protocol):
    """Sends a request within its limits of time and size. Raises Unavailable and Unreadable, and no other error."""

    async def send(self, request: Request) -> Answer: ...


class Folder(Protocol):
    """Files of a mounted Secret or ConfigMap. Raises Unset."""

    def read(self, name: str) -> bytes: ...


class ConfigMaps(Protocol):
    """ConfigMaps of the cluster. A namespace that is empty is the operator's own. Raises Unset and Unavailable."""

    async def config_map(self, namespace: str, name: str) -> Mapping[str, bytes]: ...


def environment_proxy(url: str) -> str | None:
    """HTTPS_PROXY, HTTP_PROXY and NO_PROXY. No session of ours has `trust_env` for that: it would read ~/.netrc, too,
    send what stands there to sources, and fail where a source has a credential of its own."""
    parts, proxies = urlsplit(url), getproxies()
    if not proxies or parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    return proxies.get(parts.scheme)


class AiohttpHttp:
    """On a session of aiohttp's, which is closed by whoever made it. `seconds`: for one request, as a whole; settings
    may want less."""

    def __init__(self, session: aiohttp.ClientSession, *, seconds: float = 60.0, max_body: int = MAX_BODY) -> None:
        if session.trust_env:
            raise ValueError("session: trust_env reads ~/.netrc; proxies of the environment are used without it")
        self._session = session
        self._seconds = seconds
        self._max_body = max_body
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def send(self, request: Request) -> Answer:
        context = await self._context(request.ca) if request.ca is not None else True
        timeout = aiohttp.ClientTimeout(total=self._seconds, connect=min(5.0, self._seconds))
        try:
            async with self._session.request(
                "GET" if request.form is None else "POST",
                request.url,
                params=dict(request.params),
                headers=dict(request.headers),
                data=None if request.form is None else dict(request.form),
                allow_redirects=False,
                proxy=environment_proxy(request.url),
                timeout=timeout,
                ssl=context,
            ) as answer:
                body = bytearray()
                async for part in answer.content.iter_chunked(65536):
                    body += part
                    if len(body) > self._max_body:
                        raise TooLarge(f"the answer has more than {self._max_body} bytes")
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, bytes(body))
        except aiohttp.ConnectionTimeoutError:
            raise Unavailable(f"not reached within {timeout.connect:g} s", answered=False) from None
        except TimeoutError:
            raise Slow(f"no whole answer within {self._seconds:g} s") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise Unavailable(f"not believed: {_of_tls(error)}; {_CA}", answered=False) from None
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"not reached: {type(error).__name__}", answered=False) from None

    async def _context(self, ca: str) -> ssl.SSLContext:
        """One for all requests by the same certificates, or connections would not be used again."""
        known = self._contexts.get(ca)
        if known is None:
            try:
                known = await asyncio.to_thread(ssl.create_default_context, cadata=ca)
            except (ssl.SSLError, ValueError) as error:
                raise Unset(f"caFile cannot be used: {error}") from None
            if len(self._contexts) >= MAX_CONTEXTS:  # of files that were renewed
                self._contexts.clear()
            self._contexts[ca] = known
        return known


def _of_tls(error: aiohttp.ClientError) -> str:
    """Why, in OpenSSL's words."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is {cause.verify_message}"
    return type(cause if cause is not None else error).__name__


class MountedFolder:
    """Files below a path. They may change at any time: each is read when it is needed."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, name: str) -> bytes:
        try:
            with open(f"{self._path}/{name}", "rb") as file:
                found = file.read(MAX_BODY + 1)
        except OSError as error:
            raise Unset(f"file {name}: {error.strerror}") from None
        if len(found) > MAX_BODY:
            raise Unset(f"file {name} has more than {MAX_BODY} bytes")
        return found


def secret(folder: Folder, name: str) -> str:
    """A credential, as a line. Raises Unset."""
    found = folder.read(name)
    try:
        text = found.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not is_line(text):
        raise Unset(f"file {name} is empty, or no line of ASCII")
    return text


def is_line(found: object) -> TypeGuard[str]:
    """Text that can be a header's."""
    return isinstance(found, str) and found.isascii() and found.isprintable() and 0 < len(found) <= 8192


def checked(answer: Answer, now: float) -> Answer:
    """The answer, if it is one to read. Raises FeedError."""
    status = answer.status
    if status == 200:
        return answer
    if status in (401, 403):
        raise Refused(f"refused ({status}): credentials, or what the plan includes")
    if status == 429:
        raise Limited("too many requests (429)", retry_after(answer, now))
    if 300 <= status < 400:
        raise Unavailable(f"redirects ({status}), which is not followed: mend baseURL")
    if status >= 500:
        raise Unavailable(f"fails ({status})", retry_after=retry_after(answer, now))
    raise Unavailable(f"answered {status}")


def retry_after(answer: Answer, now: float) -> float | None:
    """Seconds to wait, as the header says: a number, or a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_WAIT, float(text[:9]))
    try:
        return min(LONGEST_WAIT, max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now))
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def skew(answer: Answer, now: float) -> float:
    """By how many seconds the server's clock is ahead of ours; 0 where it says nothing. A cache on the way keeps the
    date, and tells the age."""
    age = answer.headers.get("age", "").strip()
    held = float(age[:9]) if age.isascii() and age.isdigit() else 0.0
    try:
        return email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp() + held - now
    except (KeyError, ValueError, TypeError, OverflowError, IndexError, OSError):
        return 0.0


def document(body: bytes, *, secret: bool = False) -> Any:
    """What JSON it is. Raises Unreadable, which shows how it begins unless there may be a credential in it."""
    if not body.strip():
        raise Unreadable("the answer is empty")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON" if secret else f"no JSON: {body[:60]!r}…") from None


__all__ = [
    "AiohttpHttp",
    "Answer",
    "ConfigMaps",
    "Folder",
    "Http",
    "MountedFolder",
    "Request",
    "checked",
    "document",
    "environment_proxy",
    "is_line",
    "retry_after",
    "secret",
    "skew",
]
