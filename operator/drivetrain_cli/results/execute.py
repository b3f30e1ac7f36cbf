"""How is a command run in a container, and its output read? Over a WebSocket, as kubectl does it since 1.30.

A log would not do: kubelets cut logs, and bytes are no lines. The first byte of each frame says which stream it is of;
the last frame is a Status with the exit code. Without it the stream was cut, and nothing is concluded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from drivetrain_cli.errors import CliError
from drivetrain_cli.results.source import Cut
from drivetrain_operator.kube.client import KubeClient
from drivetrain_operator.kube.resources import PODS, Object

_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _ERROR = 1, 2, 3
_CONNECT_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 120.0
"""A storage that gives nothing for so long has stalled."""
_MOST_SAID: Final = 1 << 20
"""Of stderr, whose end is kept."""
_FRAME: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended."""

    code: int
    stderr: str


async def execute(
    client: KubeClient, pod: Object, container: str, command: Sequence[str], stdout: Callable[[bytes], None]
) -> Ended:
    """Run it to its end; `stdout` gets what it prints, as it comes. Raises CliError, and `Cut` where the way broke."""
    access = await client.access()
    meta = pod["metadata"]
    path = PODS.path(meta["namespace"], meta["name"], "exec")
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("command", part) for part in command]
    headers = {"Authorization": access.authorization} if access.authorization else {}
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, trust_env=access.proxy is None) as session,
            session.ws_connect(
                access.server + path,
                params=query,
                headers=headers,
                protocols=_PROTOCOLS,
                ssl=access.tls,
                server_hostname=access.server_name,
                proxy=access.proxy,
                max_msg_size=_FRAME,
            ) as socket,
        ):
            return await _to_its_end(socket, stdout)
    except aiohttp.WSServerHandshakeError as error:
        raise _refused(error, meta["name"]) from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
        raise Cut(f"pod {meta['name']}: {error or type(error).__name__}") from error


async def _to_its_end(socket: aiohttp.ClientWebSocketResponse, stdout: Callable[[bytes], None]) -> Ended:
    said = b""
    while True:
        message = await socket.receive(timeout=_SILENT_SECONDS)
        if message.type is aiohttp.WSMsgType.BINARY and message.data:
            stream, data = message.data[0], message.data[1:]
            if stream == _STDOUT and data:
                stdout(data)
            elif stream == _STDERR:
                said = (said + data)[-_MOST_SAID:]
            elif stream == _ERROR:
                return Ended(_exit_code(data), said.decode(errors="replace"))
        elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            raise Cut("the connection ended before the command did")
        elif message.type is aiohttp.WSMsgType.ERROR:
            raise Cut(f"the connection broke: {socket.exception()}")


def _exit_code(data: bytes) -> int:
    """Of the Status that ends it. Raises CliError for one that is about no command."""
    try:
        status = json.loads(data)
    except ValueError as error:
        raise Cut("the connection ended with what is no Status") from error
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message", 1))
    raise CliError(f"the command could not be run there: {status.get('message') or status}")


def _refused(error: aiohttp.WSServerHandshakeError, pod: str) -> CliError:
    if error.status in (401, 403):
        return CliError(
            f"you may not run commands in pods here (pods/exec), which `kubectl cp` needs, too: {error.message}"
        )
    if error.status in (429, 500, 502, 503, 504):
        return Cut(f"pod {pod}: {error.status} {error.message}")
    return CliError(f"pod {pod}: the API server refuses to run a command there: {error.status} {error.message}")
