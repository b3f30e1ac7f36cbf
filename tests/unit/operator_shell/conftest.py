"""Shared by the tests of the operator's shell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.patience import patiently

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait (10 s at most) until a condition on the state holds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with patiently(10):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)

    return wait
