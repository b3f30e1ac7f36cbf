"""The coordinator process: launchers' channels, the clock and the reports around the membership machine.

Everything runs on one event loop; each event goes through the machine and its orders go out in the same turn, so that
between a proof of death and the next form there is no batching and no timer.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque

from aiohttp import web
from pydantic import BaseModel

from drivetrain_api.messages import (
    PROTOCOL_MAX,
    Hello,
    LauncherState,
    Put,
    Reject,
    RejectReason,
    Welcome,
)
from drivetrain_api.report import Report, Roster
from drivetrain_coordinator.channel import LARGE, Channel, receive
from drivetrain_coordinator.membership import (
    Connected,
    Disconnected,
    Dismiss,
    Event,
    Looked,
    Machine,
    Output,
    PutKey,
    Retire,
    RosterCame,
    Said,
    Send,
    Tick,
    Timings,
)
from drivetrain_coordinator.metrics import JobMetrics
from drivetrain_coordinator.reporter import Reporter
from drivetrain_coordinator.settings import Settings
from drivetrain_serving.answers import Answers, Refused, bearer, unauthorized
from drivetrain_serving.connections import Limits
from drivetrain_serving.listener import Listener
from drivetrain_serving.plain import PlainPort
from drivetrain_serving.refusals import Refusals
from drivetrain_serving.scrape import Scrape

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 8 << 20
HELLO_SECONDS = 10.0
NAMED_PODS = 8
PACE_STEP = 1.5
LOGGED_CALLS = 8
CHANNELS_LIMIT = 8192
"""Twice the launchers that a job may have: all come back at once when their old connections are not seen to end yet."""


class Coordinator:
    """One job's coordinator. `run()` serves until `stop()` or until a higher term exists."""

    def __init__(self, settings: Settings, timings: Timings | None = None) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.machine = Machine(settings.identity, timings, self._loop.time())
        self._worker_token = settings.secret("worker-token").encode()
        self._channels: dict[str, Channel] = {}
        self._payloads: deque[tuple[BaseModel, str | bytes]] = deque(maxlen=4)
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._pace = 0.5
        self._told: object = None
        metrics = JobMetrics(self.machine.state)
        self._scrape = Scrape(metrics.registry, threaded=False)
        refusals = Refusals("channel", self._loop.time, lambda reason: metrics.refused("channel", reason))
        self._listener = Listener(
            Answers({("GET", "/v1/channel"): self._channel}, refusals),
            Limits(pending=512, admitted=CHANNELS_LIMIT, each=CHANNELS_LIMIT),
            refusals,
            settings.server_tls(),
        )
        self._plain = PlainPort(
            "metrics",
            {"/metrics": self._serve_metrics, "/healthz": self._serve_health, "/readyz": self._serve_ready},
            self._loop.time,
            lambda reason: metrics.refused("metrics", reason),
        )
        self._reporter = Reporter(
            settings.reports, settings.secret("token"), settings.client_tls(), self._report, self._roster, self._deleted
        )
        self.port = settings.port
        self.metrics_port = settings.metrics_port
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """End gracefully: training goes on, and launchers look for the next coordinator."""
        self._over.set()

    async def run(self) -> None:
        """Serve."""
        host = self._settings.host
        reports = asyncio.create_task(self._reporter.run())
        try:
            self.port = await self._listener.start(host, self.port)
            self.metrics_port = await self._plain.start(host, self.metrics_port)
            self._apply(Tick())
            self.ready.set()
            logger.info("coordinator serves", extra={"port": self.port, "metrics_port": self.metrics_port})
            over = asyncio.create_task(self._over.wait())
            await asyncio.wait({over, reports}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
        finally:
            await self._shut_down(reports)

    async def _shut_down(self, reports: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        failed = reports.done() and not reports.cancelled() and reports.exception() is not None
        reports.cancel()
        await asyncio.gather(reports, return_exceptions=True)
        for channel in list(self._channels.values()):
            channel.finish()
        await self._reporter.last(1.0)
        await self._listener.stop()
        await self._plain.stop()
        if failed:
            reports.result()

    # --- machine ------------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        now = self._loop.time()
        try:
            self._carry_out(self.machine.step(event, now))
        finally:  # also after a defect: without a clock nobody would be waited for any more
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(max(self.machine.next_tick, now + 0.001), self._apply, Tick())
        told = self._picture()
        if told != self._told:
            self._told = told
            self._reporter.changed()

    def _carry_out(self, outputs: list[Output]) -> None:
        orders: dict[str | bytes, list[Send]] = {}
        for output in outputs:
            match output:
                case Send(pod_uid, message):
                    payload = self._payload(message)
                    channel = self._channels.get(pod_uid)
                    if channel is not None:
                        channel.send(payload)
                    if message.type in ("kill", "form", "complete", "stop", "released"):
                        orders.setdefault(payload, []).append(output)
                case Dismiss(pod_uid, reject):
                    channel = self._channels.get(pod_uid)
                    if channel is not None:
                        channel.send(reject.model_dump_json())
                        channel.finish()
                case Looked():
                    _log_look(output)
                case Retire(reason):
                    logger.warning("this coordinator's time is over", extra={"reason": reason})
                    self._over.set()
        for same in orders.values():
            self._log_order(same[0].message, [each.pod_uid for each in same])

    def _payload(self, message: BaseModel) -> str | bytes:
        """As JSON, in bytes where it is large; of the newest made once: a form of thousands goes to all of them."""
        known = next((payload for each, payload in self._payloads if each is message), None)
        if known is None:
            text = message.model_dump_json()
            known = text.encode() if len(text) > LARGE else text
            self._payloads.append((message, known))
        return known

    def _log_order(self, message: BaseModel, pods: list[str]) -> None:
        """One line, however many hear it."""
        fields = message.model_dump(mode="json", include={"type", "epoch", "reason", "process", "boundary"})
        told = {"pods": len(pods), "pod_uids": pods[:NAMED_PODS]}
        logger.info("order", extra={**told, **{f"order_{key}": value for key, value in fields.items()}})

    def _picture(self) -> object:
        """What the operator should hear of at once, rather than with the next periodic report."""
        m = self.machine.state
        active, pending = m.active, m.pending
        return (
            active and (active.id, active.formed_at),
            pending and pending.id,
            m.end,
            m.message,
            m.told and m.told.message,
            m.failure_count,
            m.recovery.count,
            m.state_lost,
            len(m.released),
            len(m.incompatible),
            sum(launcher.connected for launcher in m.launchers.values()),
        )

    def _report(self, seq: int) -> Report:
        return self.machine.report(seq)

    def _roster(self, roster: Roster) -> None:
        seen = self.machine.state.roster
        if seen is None or roster.revision > seen.revision:
            logger.info(
                "roster", extra={"revision": roster.revision, "target": roster.target, "pods": len(roster.pods)}
            )
            self._apply(RosterCame(roster))
            self._slow_down(anyhow=seen is None)

    def _deleted(self) -> None:
        """There is no job any more that anybody could be told of: launchers need not wait for successors."""
        seen = self.machine.state.roster
        if seen is not None and seen.stop is None:
            gone = {"revision": seen.revision + 1, "stop": "the job was deleted"}
            self._apply(RosterCame(seen.model_copy(update=gone)))

    def _welcome(self, protocol: int = PROTOCOL_MAX) -> str:
        heartbeat = max(self.machine.state.heartbeat, self.machine.state.timings.heartbeat)
        self._pace = max(self._pace, heartbeat)
        welcome = Welcome(
            protocol=protocol,
            term=self._settings.identity.term,
            heartbeat_seconds=heartbeat,
            energy=self.machine.state.energy.asked(self._loop.time()),
        )
        return welcome.model_dump_json()

    def _slow_down(self, *, anyhow: bool) -> None:
        """The job turned out to be larger than launchers were told: they are to speak less often. Older ones go on.
        `anyhow`: there is something else that they are to be told."""
        if anyhow or self.machine.state.heartbeat > PACE_STEP * self._pace:
            welcome = self._welcome()
            for channel in self._channels.values():
                channel.send(welcome)

    # --- launchers ----------------------------------------------------------------------------------------------

    async def _channel(self, request: web.BaseRequest) -> web.StreamResponse:
        if not hmac.compare_digest(bearer(request).encode(), self._worker_token):
            raise unauthorized("wrong worker token")
        if not self._listener.admit(request, "launchers"):
            raise Refused(503, "too many connections", headers={"Retry-After": "1"}, close=True)
        socket = web.WebSocketResponse(max_msg_size=MESSAGE_LIMIT, compress=False, timeout=1.0)
        await socket.prepare(request)
        await self._serve(request, socket)
        return socket

    async def _serve(self, request: web.BaseRequest, socket: web.WebSocketResponse) -> None:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await receive(socket)
        except TimeoutError:
            hello = None
        if not isinstance(hello, Hello):
            await socket.close(code=1002, message=b"expected hello")
            return
        reject = self.machine.admission(hello)
        if reject is not None:
            fields = {"pod": hello.pod_name, "reason": reject.reason, "detail": reject.message}
            logger.info("launcher turned away", extra=fields)
            if reject.reason is RejectReason.PROTOCOL:
                self._reporter.changed()
            await _turn_away(socket, reject)
            return
        await self._talk(request, socket, hello)

    async def _talk(self, request: web.BaseRequest, socket: web.WebSocketResponse, hello: Hello) -> None:
        channel = Channel(socket, request.transport, hello)
        older = self._channels.get(hello.pod_uid)
        if older is not None:  # the same launcher, back before its old connection was seen to end
            older.abort()
        self._channels[hello.pod_uid] = channel
        protocol = min(hello.protocol_max, PROTOCOL_MAX)
        channel.send(self._welcome(protocol))
        writer = asyncio.create_task(channel.write())
        logger.info("launcher connected", extra={"pod": hello.pod_name, "index": hello.index, "boot": hello.boot})
        self._apply(Connected(hello))
        try:
            while (message := await receive(socket)) is not None and self._channels.get(hello.pod_uid) is channel:
                match message:
                    case LauncherState():
                        self._apply(Said(hello.pod_uid, hello.boot, message))
                    case Put():
                        self._apply(PutKey(hello.pod_uid, hello.boot, message))
                    case Hello():
                        break
        finally:
            writer.cancel()
            if self._channels.get(hello.pod_uid) is channel:
                del self._channels[hello.pod_uid]
                logger.info("launcher disconnected", extra={"pod": hello.pod_name})
                if not self._over.is_set():
                    self._apply(Disconnected(hello.pod_uid, hello.boot))

    # --- numbers ------------------------------------------------------------------------------------------------

    async def _serve_metrics(self, request: web.BaseRequest) -> web.Response:
        body, content_type = await self._scrape.numbers(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _serve_health(self, request: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _serve_ready(self, request: web.BaseRequest) -> web.Response:
        """One that has no roster can lead nobody, however well it is."""
        if self.machine.state.roster is None:
            return web.Response(status=503, text="no answer of the operator yet\n")
        return web.Response(text="ok\n")


def _log_look(look: Looked) -> None:
    """With the stack below the line, where people read text."""
    seat, calls = look.seat, look.seen.calls
    fields = {"rank": seat.rank, "pod": seat.pod, "step": seat.step, "at": seat.line, "standstill": look.message}
    fields["collectives"] = [f"{call} of step {call.step}, {call.state}" for call in calls[-LOGGED_CALLS:]]
    logger.warning("a rank that holds the others up", extra={**fields, "exception": look.seen.stack})


async def _turn_away(socket: web.WebSocketResponse, reject: Reject) -> web.WebSocketResponse:
    await socket.send_str(reject.model_dump_json())
    await socket.close()
    return socket
