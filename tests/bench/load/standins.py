"""Launchers that are small: `python -m bench.load.standins`, told by one JSON line on its input.

They speak the real protocol, with one rank each, which does at once what it is told. They read no more of a message
than they need: four thousand that parsed each form would be busier than what is measured. Each line on the input after
the first is an order (`ready`); each line on the output a count.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from contextlib import suppress
from typing import Any, Final

import aiohttp

from drivetrain_api.constants import COORDINATOR_SERVER_NAME

HEARTBEAT: Final = re.compile(r'"heartbeat_seconds":([0-9.]+)')
EPOCH: Final = re.compile(r'"epoch":\[(\d+),(\d+)\]')
AT_ONCE: Final = 64


class StandIn:
    """One."""

    def __init__(self, number: int, told: dict[str, Any]) -> None:
        self.pod = f"pod-{number}"
        self.number = number
        self.told = told
        self.phase = "starting"
        self.epoch: tuple[int, int] | None = None
        self.tabled: tuple[int, int] | None = None
        self.seq = 0
        self.connected = False
        self.first = True
        self.lost = 0
        self.wake = asyncio.Event()

    @property
    def process(self) -> str:
        """Its rank's id."""
        return f"{self.pod}/b/1"

    def state(self) -> str:
        """What a launcher says."""
        self.seq += 1
        formed = self.tabled is not None and self.tabled == self.epoch
        process = {
            "id": self.process,
            "pid": 7,
            "start_ticks": 9,
            "phase": self.phase,
            "epoch": self.epoch,
            "formed": formed,
            "has_state": formed,
            "step": -1,
        }
        forms: dict[str, list[Any]] = {"forms": []} if self.first else {}
        self.first = False
        return json.dumps({"type": "state", "seq": self.seq, "processes": [process], "tabled": self.tabled, **forms})

    async def run(self, session: aiohttp.ClientSession, tls: ssl.SSLContext, gate: asyncio.Semaphore) -> None:
        """Connect and reconnect for ever."""
        while True:
            with suppress(aiohttp.ClientError, OSError, TimeoutError, ConnectionError):
                await self._connection(session, tls, gate)
            self.lost += self.connected
            self.connected = False
            await asyncio.sleep(0.2)

    async def _connection(self, session: aiohttp.ClientSession, tls: ssl.SSLContext, gate: asyncio.Semaphore) -> None:
        async with gate:
            async with asyncio.timeout(20):
                socket = await session.ws_connect(
                    f"wss://{self.told['host']}:{self.told['port']}/v1/channel",
                    ssl=tls,
                    server_hostname=COORDINATOR_SERVER_NAME,
                    headers={"Authorization": f"Bearer {self.told['token']}"},
                    max_msg_size=0,
                )
        async with socket:
            hello = {"type": "hello", "job_uid": self.told["job"], "pod_uid": self.pod, "pod_name": self.pod}
            await socket.send_str(json.dumps({**hello, "index": self.number, "boot": "b"}))
            welcome = await socket.receive_str()
            found = HEARTBEAT.search(welcome)
            if found is None:
                raise ConnectionError(welcome[:200])
            self.connected, self.first = True, True
            sender = asyncio.create_task(self._send(socket, float(found[1])))
            try:
                async for message in socket:
                    await self._heard(socket, str(message.data))
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, heartbeat: float) -> None:
        while True:
            self.wake.clear()
            await socket.send_str(self.state())
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat):
                    await self.wake.wait()

    async def _heard(self, socket: aiohttp.ClientWebSocketResponse, text: str) -> None:
        head = text[:200]
        found = EPOCH.search(head)
        if found is None:
            return
        epoch = (int(found[1]), int(found[2]))
        if '"type":"form"' in head and epoch != self.epoch:
            self.phase, self.epoch = "member", epoch
            self.wake.set()
            put = {"type": "put", "epoch": epoch, "process": self.process, "key": self.pod, "value": "eA=="}
            await socket.send_str(json.dumps(put))
        elif '"type":"table"' in head and self.tabled != epoch:
            self.tabled = epoch
            self.wake.set()


async def main() -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    told = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    tls = ssl.create_default_context(cafile=told["ca"])
    gate = asyncio.Semaphore(AT_ONCE)
    everybody = [StandIn(number, told) for number in range(told["first"], told["first"] + told["count"])]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(each.run(session, tls, gate)) for each in everybody]
        reporting = asyncio.create_task(_count(everybody))
        while order := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            for each in everybody:
                each.phase = order
                each.wake.set()
        for task in (*tasks, reporting):
            task.cancel()
        await asyncio.gather(*tasks, reporting, return_exceptions=True)


async def _count(everybody: list[StandIn]) -> None:
    while True:
        counts = {
            "at": time.monotonic(),
            "connected": sum(each.connected for each in everybody),
            "lost": sum(each.lost for each in everybody),
            "formed": sum(each.tabled is not None and each.tabled == each.epoch for each in everybody),
        }
        print(json.dumps(counts), flush=True)
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main())
