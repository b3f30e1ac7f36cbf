"""Jobs of thousands: what is said to all of them at once, and how often all rules are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web

from drivetrain_api.messages import (
    MAX_FORMS,
    Boundary,
    EpochId,
    Form,
    Hello,
    LauncherState,
    ProcessPhase,
    ProcessState,
)
from drivetrain_api.report import Incompatible
from drivetrain_coordinator.channel import FRAGMENT, LARGE, Channel, send_in_fragments
from drivetrain_coordinator.membership import Connected, Identity, Machine, RosterCame, Said, Send, Tick, Timings
from drivetrain_coordinator.membership.facts import heard
from drivetrain_coordinator.membership.state import Launcher
from harness.static_operator import roster


@pytest.mark.parametrize("size", [1, 125, 126, FRAGMENT, FRAGMENT + 1, LARGE + 1, 1_000_000])
async def test_fragments_are_one_message_also_with_pings_between_them(size: int) -> None:
    text = "".join(random.Random(size).choices('aé🚂{}"', k=size))

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None

        async def ping() -> None:
            while True:
                await socket.ping()
                await asyncio.sleep(0)

        pinging = asyncio.create_task(ping())
        await send_in_fragments(request.transport, text.encode())
        pinging.cancel()
        await socket.send_str("after")
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=0) as ws,
    ):
        async with asyncio.timeout(20):
            assert await ws.receive_str() == text
            assert await ws.receive_str() == "after"
    await runner.cleanup()


async def test_a_launcher_that_takes_no_large_message_loses_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("drivetrain_coordinator.channel.SEND_SECONDS", 0.3)
    ended: list[bool] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        hello = Hello(job_uid="j", pod_uid="p", pod_name="p", index=0, boot="b")
        channel = Channel(socket, request.transport, hello)
        channel.send(b"x" * 50_000_000)
        async with asyncio.timeout(10):
            await channel.write()
        ended.append(request.transport is None or request.transport.is_closing())
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{upgrade}dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    async with asyncio.timeout(10):
        while not ended:
            await asyncio.sleep(0.02)
    assert ended == [True]
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await runner.cleanup()


class Crowd:
    """So many launchers with one rank each, and a machine that hears them."""

    def __init__(self, count: int) -> None:
        self.pods = [f"p{number}" for number in range(count)]
        self.machine = Machine(Identity("job", "default", "lm", 1, 1), Timings(), 0.0)
        self.now = 0.0
        self._seq = dict.fromkeys(self.pods, 0)
        self.machine.step(RosterCame(roster(self.pods).model_copy(update={"revision": 1})), 0.0)

    def joins(self, pod: str) -> None:
        hello = Hello(job_uid="job", pod_uid=pod, pod_name=pod, index=self.pods.index(pod), boot="b")
        self.machine.step(Connected(hello), self.now)
        self.says(pod, ProcessPhase.STARTING)

    def says(self, pod: str, phase: ProcessPhase) -> list[str]:
        """Kinds of orders that follow at once."""
        self._seq[pod] += 1
        process = ProcessState(id=f"{pod}/b/1", pid=1, start_ticks=1, phase=phase)
        first: list[Form] | None = [] if self._seq[pod] == 1 else None
        state = LauncherState(seq=self._seq[pod], forms=first, processes=[process])
        return self._kinds(self.machine.step(Said(pod, "b", state), self.now))

    def ticks(self) -> list[str]:
        """At the next moment that the machine asks for."""
        self.now = max(self.now, self.machine.next_tick)
        return self._kinds(self.machine.step(Tick(), self.now))

    @staticmethod
    def _kinds(outputs: Sequence[object]) -> list[str]:
        return [each.message.type for each in outputs if isinstance(each, Send)]


def test_two_thousand_become_ready_in_a_moment() -> None:
    """It was the cube of their number: two minutes for 512 of them, and their silence over by then."""
    began = time.process_time()
    crowd = Crowd(2000)
    for pod in crowd.pods:
        crowd.joins(pod)
    for pod in crowd.pods:
        crowd.now += 1e-5
        crowd.says(pod, ProcessPhase.READY)
    orders: list[str] = []
    while not orders and crowd.now < 3:
        orders = crowd.ticks()
    assert orders == ["form"] * 2000
    assert time.process_time() - began < 20  # it takes one or two


@pytest.mark.parametrize(("count", "at_once"), [(3, True), (256, True), (257, False)])
def test_only_a_crowd_waits_for_the_next_look(count: int, at_once: bool) -> None:
    crowd = Crowd(count)
    for pod in crowd.pods:
        crowd.joins(pod)
    crowd.now += 10
    crowd.ticks()
    for pod in crowd.pods[:-1]:
        crowd.says(pod, ProcessPhase.READY)
    orders = crowd.says(crowd.pods[-1], ProcessPhase.READY)
    assert (orders != []) is at_once
    if not at_once:
        last = crowd.now
        assert crowd.ticks() == ["form"] * count
        assert crowd.now - last <= 0.02


def test_thousands_speak_less_often_and_are_waited_for_longer() -> None:
    small, large = Crowd(3).machine.state, Crowd(4096).machine.state
    assert (small.heartbeat, small.silence) == (0.5, 3.0)
    assert (large.heartbeat, large.silence) == (2.0, 6.0)


def test_silence_is_counted_by_the_longest_heartbeat_that_anybody_was_told() -> None:
    """The roster shrinks, and launchers still speak every two seconds."""
    crowd = Crowd(4096)
    for pod in crowd.pods[:3]:
        crowd.joins(pod)
    crowd.machine.step(RosterCame(roster(crowd.pods[:3]).model_copy(update={"revision": 2})), crowd.now)
    assert heard(crowd.machine.state, "p0", crowd.now + 5.0)


def test_pods_that_are_gone_do_not_slow_a_small_job_down_nor_fill_its_reports() -> None:
    """A job of four that lives on spot machines for months."""
    crowd = Crowd(4)
    state = crowd.machine.state
    for number in range(9000):
        gone = f"gone-{number}"
        state.launchers[gone] = Launcher(gone, gone, 0, "b", connected=False, heard_at=0.0)
        state.released.add(gone)
        state.incompatible[gone] = Incompatible(pod_name=gone, protocol_min=7, protocol_max=7)
    for pod in crowd.pods:
        crowd.joins(pod)
    orders = [order for pod in crowd.pods for order in crowd.says(pod, ProcessPhase.READY)]
    assert orders == ["form"] * 4
    told = crowd.machine.report(1)
    assert (told.released, len(told.incompatible)) == ([], 64)


def test_a_step_of_days_and_a_loss_still_form_a_membership() -> None:
    """Thrice the usual step is waited for a member; as a bound of one day stood on that, no form could be made."""
    crowd = Crowd(3)
    crowd.machine.state.step_interval = 9 * 3600.0
    for pod in crowd.pods:
        crowd.joins(pod)
    assert [order for pod in crowd.pods for order in crowd.says(pod, ProcessPhase.READY)] == ["form"] * 3


def test_more_forms_than_are_told_are_cut_to_what_tells_most() -> None:
    forms = [Form(epoch=EpochId(1, n), members=[], boundary=Boundary.NOW) for n in range(1, 400)]
    told = LauncherState(seq=1, processes=[], forms=forms).forms
    assert told is not None
    assert len(told) == MAX_FORMS
    assert (told[0].epoch, told[-1].epoch) == (EpochId(1, 1), EpochId(1, 399))
