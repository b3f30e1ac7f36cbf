"""A launcher that speaks the real protocol over a real WebSocket, with ranks that do at once what they are told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from drivetrain_api.constants import COORDINATOR_SERVER_NAME
from drivetrain_api.messages import (
    Boundary,
    Complete,
    EpochId,
    Form,
    Hello,
    Kill,
    LauncherState,
    ProcessPhase,
    ProcessState,
    Progress,
    Put,
    Reject,
    Released,
    Stop,
    Table,
    Welcome,
    to_launcher,
)
from harness.patience import patiently
from harness.static_operator import WORKER_TOKEN, Credentials


class FakeLauncher:
    """Use `async with FakeLauncher.connect(...) as launcher`."""

    def __init__(self, pod: str, index: int, boot: str = "b", ranks: int = 1) -> None:
        self.pod, self.index, self.boot = pod, index, boot
        self.processes: dict[str, ProcessState] = {}
        self.leaving = False
        self.tabled: EpochId | None = None
        self.forms: list[Form] = []
        self.received: list[Any] = []
        self.reject: Reject | None = None
        self.term = 0
        self._tell_forms = True
        self._seq = itertools.count(1)
        self._counter = itertools.count(1)
        self._news = asyncio.Condition()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        for _ in range(ranks):
            self.spawn()

    def spawn(self) -> str:
        """Another READY process; its id."""
        number = next(self._counter)
        process = ProcessState(
            id=f"{self.pod}/{self.boot}/{number}", pid=number, start_ticks=number, phase=ProcessPhase.READY
        )
        self.processes[process.id] = process
        return process.id

    @contextlib.asynccontextmanager
    async def connect(
        self, credentials: Credentials, port: int, *, token: str = WORKER_TOKEN, **hello: Any
    ) -> AsyncIterator[FakeLauncher]:
        """Stay connected for the block."""
        tls = ssl.create_default_context(cafile=str(credentials.worker / "ca.crt"))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"wss://127.0.0.1:{port}/v1/channel",
                ssl=tls,
                server_hostname=COORDINATOR_SERVER_NAME,
                headers={"Authorization": f"Bearer {token}"},
            ) as socket,
        ):
            self._socket = socket
            fields: dict[str, Any] = {
                "job_uid": "job-uid",
                "pod_uid": self.pod,
                "pod_name": self.pod,
                "index": self.index,
                "boot": self.boot,
                "highest_term": self.term,
            }
            self._tell_forms = True
            await socket.send_str(Hello(**(fields | hello)).model_dump_json())
            reader = asyncio.create_task(self._read(socket))
            try:
                yield self
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                self._socket = None

    async def tell(self, *processes: ProcessState, progress: Progress | None = None) -> None:
        """Change processes, and send the whole state."""
        for process in processes:
            self.processes[process.id] = process
        forms, self._tell_forms = (self.forms if self._tell_forms else None), False
        state = LauncherState(
            seq=next(self._seq),
            processes=list(self.processes.values()),
            leaving=self.leaving,
            tabled=self.tabled,
            forms=forms,
            progress=progress,
            counters={"joins": 1.0},
        )
        assert self._socket is not None
        await self._socket.send_str(state.model_dump_json())

    async def update(self, **changes: Any) -> None:
        """Change all living processes."""
        living = [process for process in self.processes.values() if process.phase is not ProcessPhase.DEAD]
        await self.tell(*(process.model_copy(update=changes) for process in living))

    async def die(self, process: str, signal: int = 9) -> None:
        """Report a process as reaped."""
        dead = self.processes[process].model_copy(update={"phase": ProcessPhase.DEAD, "signal": signal})
        await self.tell(dead)

    async def wait_for(self, wanted: Callable[[Any], bool], seconds: float = 10.0) -> Any:
        """The first message, past ones included, that satisfies `wanted`."""
        async with patiently(seconds), self._news:
            await self._news.wait_for(lambda: any(wanted(message) for message in self.received))
        return next(message for message in self.received if wanted(message))

    async def formed(self, world: int, after: EpochId | None = None) -> Form:
        """The form of an epoch that stands here with `world` members."""

        def stands(message: Any) -> bool:
            return (
                isinstance(message, Form)
                and len(message.members) == world
                and (after is None or message.epoch > after)
                and any(p.epoch == message.epoch and p.formed for p in self.processes.values())
            )

        found: Form = await self.wait_for(stands)
        return found

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for raw in socket:
            message = to_launcher.validate_json(raw.data)
            await self._obey(message)
            async with self._news:
                self.received.append(message)
                self._news.notify_all()

    async def _obey(self, message: Any) -> None:
        match message:
            case Welcome():
                self.term = message.term
                await self.tell()
            case Reject():
                self.reject = message
            case Form():
                self.forms.append(message)
                await self._enter(message)
            case Table():
                self.tabled = message.epoch
                self.forms = [form for form in self.forms if form.epoch >= message.epoch]
                await self.tell(
                    *(
                        process.model_copy(update={"formed": True, "has_state": True})
                        for process in self.processes.values()
                        if process.epoch == message.epoch and process.phase is not ProcessPhase.DEAD
                    )
                )
            case Kill():
                await self.die(message.process)
            case Released() | Complete() | Stop():
                pass

    async def _enter(self, form: Form) -> None:
        assert form.boundary in Boundary
        entered = []
        for member in form.members:
            process = self.processes.get(member.process)
            if process is None or process.phase is ProcessPhase.DEAD:
                continue
            phase = ProcessPhase.DONE if process.phase is ProcessPhase.DONE else ProcessPhase.MEMBER
            change = {"phase": phase, "epoch": form.epoch, "formed": False, "fault": None}
            if member.new:
                change["has_state"] = False
            entered.append(process.model_copy(update=change))
        named = {process.id for process in entered}
        left_out = [
            process.model_copy(update={"phase": ProcessPhase.READY})
            for process in self.processes.values()
            if process.phase is ProcessPhase.MEMBER and process.id not in named
        ]
        await self.tell(*entered, *left_out)
        for process in entered:
            value = base64.b64encode(process.id.encode()).decode()
            put = Put(epoch=form.epoch, process=process.id, key=f"address/{process.id}", value=value)
            assert self._socket is not None
            await self._socket.send_str(put.model_dump_json())
