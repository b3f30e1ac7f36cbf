"""How does a task end another one without losing its own end?

`with suppress(CancelledError): await other` swallows also the cancellation of whoever waits. That one then goes on for
ever, if it comes in the one turn of the loop in which `other` ends: a node that would not stop.
"""

from __future__ import annotations

import asyncio
from typing import Any


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these, and wait until they have ended. Raises what one of them raised, and CancelledError if oneself is
    cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
