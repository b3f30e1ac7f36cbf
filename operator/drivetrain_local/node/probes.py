"""Is a container ready? httpGet, tcpSocket and exec, asked at intervals.

Only readiness is probed; liveness and startup probes are left to `make cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp

from drivetrain_local.objects import Obj, dig


async def readiness(
    container: Obj, pod_ip: str, env: dict[str, str], cwd: Path, report: Callable[[bool], None]
) -> None:
    """Report each change until cancelled. Without a probe a running container is ready at once."""
    probe = container.get("readinessProbe")
    if probe is None:
        report(True)
        return
    ready, streak, last = False, 0, False
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
    while True:
        result = await _ask(probe, container, pod_ip, env, cwd)
        streak = streak + 1 if result is last else 1
        last = result
        needed = probe.get("successThreshold") or 1 if result else probe.get("failureThreshold") or 3
        if result is not ready and streak >= needed:
            ready = result
            report(ready)
        await asyncio.sleep(probe.get("periodSeconds") or 10)


async def _ask(probe: Obj, container: Obj, pod_ip: str, env: dict[str, str], cwd: Path) -> bool:
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds") or 1):
            if http := probe.get("httpGet"):
                return await _http(http, container, pod_ip)
            if tcp := probe.get("tcpSocket"):
                _, writer = await asyncio.open_connection(tcp.get("host") or pod_ip, _port(tcp["port"], container))
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return True
            return await _exec(dig(probe, "exec", "command", default=[]), env, cwd)
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False


async def _http(http: Obj, container: Obj, pod_ip: str) -> bool:
    scheme = str(http.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{http.get('host') or pod_ip}:{_port(http['port'], container)}{http.get('path') or '/'}"
    headers = {header["name"]: header["value"] for header in http.get("httpHeaders") or []}
    # As a kubelet does: certificates are not verified by probes.
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=False) as answer:
        return 200 <= answer.status < 400


async def _exec(command: list[str], env: dict[str, str], cwd: Path) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**env, "PATH": env.get("PATH", os.defpath)},
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _port(port: int | str, container: Obj) -> int:
    """A number, or the name of one of the container's ports."""
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    return int(port)
