"""A coordinator that says what a test tells it to, over the real protocol: TLS, WebSocket, hello, welcome."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import BaseModel

from drivetrain_api.constants import COORDINATOR_SERVER_NAME
from drivetrain_api.messages import (
    Boundary,
    EpochId,
    Form,
    Hello,
    LauncherState,
    Member,
    ProcessPhase,
    ProcessState,
    Put,
    Reject,
    Table,
    Welcome,
    from_launcher,
)
from harness.patience import patiently, until_true

TOKEN = "a-worker-token"


def write_credentials(folder: Path, server_name: str = COORDINATOR_SERVER_NAME) -> None:
    """A self-signed certificate for the coordinator, which is its own CA, and the workers' token."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.crt").write_bytes(pem)
    (folder / "tls.crt").write_bytes(pem)
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "token").write_text(TOKEN)


class StubCoordinator:
    """One coordinator's life. `answer` decides about each hello; states and puts are kept by pod uid."""

    def __init__(self, credentials: Path, *, term: int = 1) -> None:
        self.term = term
        self.answer: Callable[[Hello], BaseModel] = lambda hello: Welcome(protocol=1, term=self.term)
        self.hellos: list[Hello] = []
        self.first_states: list[LauncherState] = []
        self.states: dict[str, LauncherState] = {}
        self.puts: dict[EpochId, dict[str, str]] = {}
        self.tokens: list[str] = []
        self.port = 0
        self._credentials = credentials
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one."""
        app = web.Application()
        app.router.add_get("/v1/channel", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._credentials / "tls.crt", self._credentials / "tls.key")
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: connections close."""
        for ws in list(self._sockets.values()):
            await ws.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def send(self, pod_uid: str, message: BaseModel) -> None:
        """Tell one launcher."""
        await self._sockets[pod_uid].send_str(message.model_dump_json())

    async def until(self, what: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until `what` holds; checked on every message."""
        async with patiently(seconds), self._changed:
            await self._changed.wait_for(what)

    def processes(self, pod_uid: str, *phases: ProcessPhase) -> list[ProcessState]:
        """The pod's processes, as told last, that are in one of `phases` (any, if none is named)."""
        state = self.states.get(pod_uid)
        return [process for process in (state.processes if state else []) if not phases or process.phase in phases]

    def process(self, pod_uid: str, process_id: str) -> ProcessState:
        """One of them."""
        return next(process for process in self.processes(pod_uid) if process.id == process_id)

    async def form(self, epoch: EpochId, seats: list[tuple[str, str]]) -> None:
        """Form `epoch` from (pod uid, process id), and wait until all of them say that it stands."""
        members = [Member(process=process, pod_uid=pod, new=True) for pod, process in seats]
        form = Form(epoch=epoch, members=members, boundary=Boundary.NOW, fresh=True)
        pods = {pod for pod, _ in seats}
        for pod in pods:
            await self.send(pod, form)
        await self.until(lambda: len(self.puts.get(epoch, {})) == len(seats))
        for pod in pods:
            await self.send(pod, Table(epoch=epoch, entries=self.puts[epoch]))
        await self.until(
            lambda: all(
                (process := self.process(pod, process_id)).formed and process.epoch == epoch
                for pod, process_id in seats
            )
        )

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.tokens.append(request.headers.get("Authorization", ""))
        hello = from_launcher.validate_json(await ws.receive_str())
        assert isinstance(hello, Hello)
        answer = self.answer(hello)
        await ws.send_str(answer.model_dump_json())
        await self._note(lambda: self.hellos.append(hello))
        if isinstance(answer, Reject):
            await ws.close()
            return ws
        self._sockets[hello.pod_uid] = ws
        first = True
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                break
            content = from_launcher.validate_json(message.data)
            if isinstance(content, LauncherState):
                if first:
                    self.first_states.append(content)
                    first = False
                self.states[hello.pod_uid] = content
            elif isinstance(content, Put):
                self.puts.setdefault(content.epoch, {})[content.key] = content.value
            await self._note(lambda: None)
        if self._sockets.get(hello.pod_uid) is ws:
            del self._sockets[hello.pod_uid]
            await self._note(lambda: None)
        return ws

    async def _note(self, change: Callable[[], None]) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()


async def eventually(what: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait for something that no message tells."""
    await until_true(what, "what no message tells", seconds, every=0.01)
