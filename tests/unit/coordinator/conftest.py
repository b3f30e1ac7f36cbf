"""A real coordinator on a real socket, told its roster by a real HTTPS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivetrain_coordinator.membership import Identity
from drivetrain_coordinator.server import Coordinator
from drivetrain_coordinator.settings import Settings
from harness.static_operator import Credentials, StaticOperator, make_credentials


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return make_credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture
async def operator(credentials: Credentials) -> AsyncIterator[StaticOperator]:
    async with StaticOperator.serve(credentials) as serving:
        yield serving


def settings(folder: Path, url: str, term: int = 1, processes_per_worker: int = 1) -> Settings:
    identity = Identity("job-uid", "default", "charlm", term, processes_per_worker)
    return Settings(identity, url, folder, host="127.0.0.1", port=0, metrics_port=0)


@pytest.fixture
async def coordinator(operator: StaticOperator) -> AsyncIterator[Coordinator]:
    serving = Coordinator(settings(operator.credentials.coordinator, operator.url))
    task = asyncio.create_task(serving.run())
    await serving.ready.wait()
    yield serving
    serving.stop()
    await task
