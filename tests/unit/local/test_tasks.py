"""Does a task that ends another one still end itself?"""

from __future__ import annotations

import asyncio

import pytest

from drivetrain_local.tasks import ended


async def test_whoever_is_cancelled_in_that_very_turn_ends_too() -> None:
    went_on = asyncio.Event()

    async def outer() -> None:
        await ended(asyncio.create_task(asyncio.sleep(600)))
        went_on.set()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)  # it has cancelled the other one, and waits for it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on.is_set()


async def test_what_it_raised_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("why")

    failing = asyncio.create_task(fails())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="why"):
        await ended(failing, asyncio.create_task(asyncio.sleep(600)))
    await ended()
