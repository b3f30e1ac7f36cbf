"""Connections of strangers: `python -m bench.load.hostile HOST PORT COUNT`, until its input ends.

A third says nothing at all, a third shakes hands and says nothing then, a third sends a header in slow bytes. Whoever
is closed comes back at once.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress
from typing import Final

SLOW_SECONDS: Final = 0.5


async def one(host: str, port: int, kind: int, tls: ssl.SSLContext) -> None:
    """For ever."""
    while True:
        with suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls if kind else None)
            try:
                slow = asyncio.create_task(_slowly(writer)) if kind == 2 else None
                await reader.read()
                if slow is not None:
                    slow.cancel()
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.05)


async def _slowly(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        for byte in b"POST /v1/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 400:
            writer.write(bytes([byte]))
            await asyncio.sleep(SLOW_SECONDS)


async def main(host: str, port: int, count: int) -> None:
    """All of them."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tasks = [asyncio.create_task(one(host, port, number % 3, tls)) for number in range(count)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
