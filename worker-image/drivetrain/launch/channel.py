"""The WebSocket to the job's coordinator: finds it, keeps it, says everything about this pod, and hears what to do.

Losing the connection is no fault: training goes on, and the next `state` says it all again. Only a coordinator of the
highest term ever seen is obeyed, so that an old one that the operator could not stop has nobody to command.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import ValidationError

from drivetrain.launch.deadline import TIME_IS_UP, timeout
from drivetrain.launch.errors import IncompatibleError, RefusedError
from drivetrain.launch.settings import Settings
from drivetrain.launch.witness import Witness
from drivetrain_api.constants import COORDINATOR_SERVER_NAME
from drivetrain_api.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Complete,
    Form,
    Hello,
    Inspect,
    Kill,
    LauncherState,
    Put,
    Reject,
    RejectReason,
    Released,
    Stop,
    Table,
    Welcome,
    to_launcher,
)

log = logging.getLogger(__name__)

Command = Form | Table | Kill | Inspect | Released | Complete | Stop

CONNECT_SECONDS: Final = 3.0
WELCOME_SECONDS: Final = 5.0
REFUSED_SECONDS: Final = 10.0
BACKOFF_SECONDS: Final = 0.05
BACKOFF_LIMIT_SECONDS: Final = 2.0
_SUCCESSOR_SECONDS: Final = 10.0
"""A dead coordinator's successor is expected within this, and looked for more often than later ..."""
_SUCCESSOR_LIMIT_SECONDS: Final = 0.2
_HANDSHAKE_SECONDS: Final = 0.002
"""... unless the job is large: a coordinator shakes hands with about 500 launchers in a second."""
_PING_SECONDS: Final = 3.0
"""A coordinator that vanished without a word is noticed within one and a half times this."""
_CLOSE_SECONDS: Final = 1.0
_CALM_SECONDS: Final = 0.05
"""What only counts on (steps, progress) is sent at most this often; everything else at once."""
_MESSAGE_LIMIT: Final = 64 << 20
_FINAL: Final = (RejectReason.TOKEN, RejectReason.JOB, RejectReason.SLOT)


class Lost(Exception):
    """This connection is over, for the reason told; try again."""


class Channel:
    """Give it what to say, `state(seq, first of this connection)`, and whom to tell; then `run()`."""

    def __init__(
        self,
        settings: Settings,
        *,
        state: Callable[[int, bool], LauncherState],
        deliver: Callable[[Command], None],
        contact: Callable[[], None],
        witness: Witness,
    ) -> None:
        self._settings = settings
        self._state = state
        self._deliver = deliver
        self._contact = contact
        self._witness = witness
        self.highest_term = 0
        self.connected = False
        self._seq = 0
        self._puts: dict[tuple[str, str], Put] = {}
        self._unsent: deque[Put] = deque()
        self._wake = asyncio.Event()
        self._due = 0.0
        self._sent_at = 0.0
        self._heartbeat = 0.5
        self.welcomed: Callable[[Welcome], None] = lambda welcome: None
        """Told of each welcome, which a coordinator repeats when it has more to say."""
        self._refused_since: float | None = None
        self._told: set[str] = set()

    def changed(self, *, urgent: bool) -> None:
        """The state changed: send it at once, or with the next of its kind."""
        self._due = min(self._due, 0.0 if urgent else self._sent_at + _CALM_SECONDS)
        self._wake.set()

    def put(self, put: Put) -> None:
        """Send a rendezvous key, now and after every reconnection while its epoch is the newest."""
        if any(put.epoch < other.epoch for other in self._puts.values()):
            return
        self._puts = {key: other for key, other in self._puts.items() if other.epoch == put.epoch}
        self._puts[put.process, put.key] = put
        self._unsent.append(put)
        self._wake.set()

    async def run(self) -> None:
        """Connect and reconnect for ever. Raises IncompatibleError or RefusedError."""
        wait, searching_since = BACKOFF_SECONDS, time.monotonic()
        self._witness.searching(self.highest_term)
        while True:
            try:
                await self._connection()
            except (Lost, aiohttp.ClientError, OSError, *TIME_IS_UP) as error:
                self._tell(str(error) or type(error).__name__)
            if self.connected:
                self.connected = False
                self._witness.lost(self.highest_term)
                wait, searching_since = BACKOFF_SECONDS, time.monotonic()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(backoff_limit(time.monotonic() - searching_since, self._settings.spec.workers), wait * 2)

    async def _connection(self) -> None:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.credentials / "ca.crt")
        token = (settings.credentials / "token").read_text().strip()
        connector = aiohttp.TCPConnector(resolver=_FixedAddress(settings.address), ssl=context, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with timeout(CONNECT_SECONDS):
                try:
                    ws = await session.ws_connect(
                        f"wss://{COORDINATOR_SERVER_NAME}:{settings.port}/v1/channel",
                        headers={"Authorization": f"Bearer {token}"},
                        heartbeat=_PING_SECONDS,
                        timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                        max_msg_size=_MESSAGE_LIMIT,
                    )
                except aiohttp.WSServerHandshakeError as error:
                    if error.status in (401, 403):
                        self._rejected(Reject(reason=RejectReason.TOKEN, message=f"HTTP {error.status}"))
                    raise Lost(f"the coordinator answered HTTP {error.status}") from error
            async with ws:
                welcome = await self._introduce(ws)
                self._heartbeat = welcome.heartbeat_seconds
                self.welcomed(welcome)
                sender = asyncio.create_task(self._send(ws))
                try:
                    await self._receive(ws)
                finally:
                    sender.cancel()
                    # Its own failure is the connection's, which the receiver reports.
                    with suppress(asyncio.CancelledError, aiohttp.ClientError, OSError):
                        await sender

    async def _introduce(self, ws: aiohttp.ClientWebSocketResponse) -> Welcome:
        hello = Hello(
            job_uid=self._settings.job_uid,
            pod_uid=self._settings.pod_uid,
            pod_name=self._settings.pod_name,
            index=self._settings.index,
            boot=self._settings.boot,
            highest_term=self.highest_term,
            version=_version(),
        )
        async with timeout(WELCOME_SECONDS):
            await ws.send_str(hello.model_dump_json())
            answer = await ws.receive()
        if answer.type is not aiohttp.WSMsgType.TEXT:
            raise Lost("the coordinator closed the connection before its answer")
        try:
            message = to_launcher.validate_json(answer.data)
        except ValidationError as error:
            raise Lost(f"the coordinator answered something unknown: {error}") from error
        if isinstance(message, Reject):
            self._rejected(message)
            raise Lost(f"refused ({message.reason}): {message.message}")
        if not isinstance(message, Welcome):
            raise Lost(f"the coordinator began with {message.type!r}")
        if not PROTOCOL_MIN <= message.protocol <= PROTOCOL_MAX:
            raise IncompatibleError(_mismatch(message.protocol, message.protocol))
        if message.term < self.highest_term:
            raise Lost(f"this coordinator's term {message.term} is over: term {self.highest_term} was seen")
        self.highest_term = message.term
        self.connected = True
        self._witness.found()
        self._refused_since = None
        self._told.clear()
        self._contact()
        log.info("connected to the coordinator", extra={"term": message.term})
        return message

    def _rejected(self, reject: Reject) -> None:
        if reject.reason is RejectReason.PROTOCOL:
            raise IncompatibleError(_mismatch(reject.protocol_min, reject.protocol_max))
        now = time.monotonic()
        if reject.reason not in _FINAL:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since >= REFUSED_SECONDS:
            raise RefusedError(f"the coordinator refuses this pod ({reject.reason}): {reject.message}")

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """First everything, for a coordinator that knows nothing yet; then what changes, and the heartbeat."""
        self._due = 0.0
        self._unsent = deque(self._puts.values())
        first = True
        while True:
            self._wake.clear()
            if time.monotonic() >= self._due:
                self._seq += 1
                self._sent_at = time.monotonic()
                self._due = self._sent_at + self._heartbeat
                await ws.send_str(self._state(self._seq, first).model_dump_json())
                self._contact()
            while self._unsent:
                await ws.send_str(self._unsent.popleft().model_dump_json())
            if first:
                first = False
                continue
            with suppress(*TIME_IS_UP):
                async with timeout(max(0.0, self._due - time.monotonic())):
                    await self._wake.wait()

    async def _receive(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            self._contact()
            try:
                command = to_launcher.validate_json(message.data)
            except ValidationError as error:
                # A newer coordinator may say more than this version knows.
                log.warning("ignored a message of the coordinator", extra={"error": str(error)})
                continue
            if isinstance(command, Reject):
                self._rejected(command)
                raise Lost(f"refused ({command.reason}): {command.message}")
            if isinstance(command, Welcome):
                self._heartbeat = command.heartbeat_seconds  # the job has grown
                self.welcomed(command)
            else:
                self._deliver(command)
        raise Lost(f"the connection closed ({ws.close_code})")

    def _tell(self, reason: str) -> None:
        """Log why there is no connection, once per reason: retries may go on for long."""
        if reason not in self._told:
            self._told.add(reason)
            address = f"{self._settings.address}:{self._settings.port}"
            log.warning("no connection to the coordinator, trying again", extra={"address": address, "reason": reason})


class _FixedAddress(AbstractResolver):
    """Dials the configured address, while TLS verifies the coordinator's fixed server name."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """All addresses of the configured host, which may be an address or a name."""
        found = await asyncio.get_running_loop().getaddrinfo(self._address, port, type=1)
        return [
            ResolveResult(hostname=host, host=str(sockaddr[0]), port=port, family=kind, proto=proto, flags=0)
            for kind, _, proto, _, sockaddr in found
        ]

    async def close(self) -> None:
        """Nothing to close."""


def backoff_limit(searched_seconds: float, workers: int) -> float:
    """The longest pause between two attempts, in seconds, after so long a search by each of so many launchers."""
    if searched_seconds > _SUCCESSOR_SECONDS:
        return BACKOFF_LIMIT_SECONDS
    return min(BACKOFF_LIMIT_SECONDS, max(_SUCCESSOR_LIMIT_SECONDS, workers * _HANDSHAKE_SECONDS))


def _mismatch(theirs_min: int, theirs_max: int) -> str:
    return (
        f"this image's launcher speaks protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, the coordinator {theirs_min} to "
        f"{theirs_max}: rebuild the worker image with a release that matches the operator"
    )


def _version() -> str:
    try:
        return metadata.version("drivetrain")
    except metadata.PackageNotFoundError:
        return "source"
