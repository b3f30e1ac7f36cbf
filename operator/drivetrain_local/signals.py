"""How does a background process of the plane end? In order, on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal


async def until_told_to_stop() -> None:
    """Return at the first SIGTERM or SIGINT."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, told.set)
    await told.wait()
