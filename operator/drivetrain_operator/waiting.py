"""How is something waited for that may never come?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def at_most(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Returns when `work` has ended, or was cut off after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        pass


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `stop` was set first; then `work` is cancelled."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, stopped):
            one.cancel()
        await asyncio.wait({task, stopped})


__all__ = ["at_most", "unless"]
