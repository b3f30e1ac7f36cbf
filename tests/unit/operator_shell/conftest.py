"""Shared by the tests of the operator's shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from drivetrain_local.apiserver import ApiServer
from harness.patience import patiently
from unit.operator_shell.world import JumpClock, World, crds

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


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A cluster around one operator, on an API server of its own."""
    async with ApiServer(crds=crds()) as api, api.session() as http:
        world = World(api, http, JumpClock())
        yield world
        for close in world.closing:
            await close()
