"""The endpoint on a real port, and what a script has to tell with: `drivetrain.integrations.report`."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivetrain import integrations
from drivetrain.integrations import progress as integration
from drivetrain.torchrun import contract
from drivetrain.torchrun import endpoint as endpoint_module
from drivetrain.torchrun.endpoint import Endpoint
from drivetrain_api.messages import EpochId, Progress
from unit.torchrun.test_told import body

FIRST = "pod/boot/1"


@dataclass
class Served:
    """An endpoint, and what came through."""

    environment: dict[str, str]
    first: tuple[str, EpochId] | None = (FIRST, EpochId(1, 1))
    heard: list[tuple[str, Progress]] = field(default_factory=list)

    async def post(self, data: bytes, *, process: str = FIRST, token: str = "secret") -> int:
        """From another thread, as another process would."""
        url = contract.progress(process, self.environment)["KUBEFLOW_TRAINER_SERVER_URL"]
        request = urllib.request.Request(url, data=data, headers={"Authorization": f"Bearer {token}"})

        def send() -> int:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                error.close()
                return error.code

        return await asyncio.to_thread(send)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    (folder / "token").write_text("secret\n")
    endpoint = Endpoint(folder / "token")
    found = Served(dict(endpoint.environment))
    await endpoint.serve(lambda: found.first, lambda process, told: found.heard.append((process, told)))
    try:
        yield found
    finally:
        await endpoint.close()


async def test_what_the_first_rank_says_is_passed_on(tmp_path: Path) -> None:
    async with served(tmp_path) as found:
        assert await found.post(body(10, loss=2.5, current_step=6, total_steps=60)) == 200
        assert [(process, told.step, told.steps, told.loss) for process, told in found.heard] == [(FIRST, 5, 60, 2.5)]


async def test_others_are_not_listened_to(tmp_path: Path) -> None:
    said = body(10, current_step=6)
    async with served(tmp_path) as found:
        assert await found.post(said, process="pod/boot/2") == 200
        assert await found.post(said, token="guessed") == 401
        assert await found.post(said, token="\xff\xfe") == 401
        found.first = None
        assert await found.post(said) == 200
        assert found.heard == []


async def test_what_is_wrong_in_it_is_said(tmp_path: Path) -> None:
    async with served(tmp_path) as found:
        assert await found.post(b"{}") == 400
        assert await found.post(b" " * (1 << 18)) == 413
        assert found.heard == []


async def test_another_membership_begins_to_count_anew(tmp_path: Path) -> None:
    async with served(tmp_path) as found:
        await found.post(body(90, current_step=54, total_steps=60))
        found.first = (FIRST, EpochId(1, 2))
        await found.post(body(0, total_steps=60))
        assert [told.step for _, told in found.heard] == [53]
        await found.post(body(1, current_step=51, total_steps=60))
        assert [told.step for _, told in found.heard] == [53, 50]


async def test_a_loop_of_ones_own_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_TELLER", integration._Teller())
    async with served(tmp_path) as found:
        for name, value in contract.progress(FIRST, found.environment).items():
            monkeypatch.setenv(name, value)
        for step in range(1, 4):
            await asyncio.to_thread(integrations.report, step, 3, loss=1.0 / step, accuracy=0.25)
    # At most one a second, and always the last.
    assert [(told.step, told.steps, told.loss, told.metrics) for _, told in found.heard] == [
        (0, 3, 1.0, {"accuracy": 0.25}),
        (2, 3, 1.0 / 3, {"accuracy": 0.25}),
    ]


def test_training_goes_on_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    integrations.report(1, 3, loss=1.0)  # outside of a job: no word
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(integration, "_TELLER", integration._Teller())
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    (tmp_path / "token").write_text("secret")
    integrations.report(1, 3, loss=1.0)
    integrations.report(2, 3, loss=1.0)
    assert capsys.readouterr().err.count("drivetrain: progress is not told for 2 s: ") == 1


async def test_a_body_that_never_comes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_READ_SECONDS", 0.2)
    async with served(tmp_path) as found:
        url = urllib.parse.urlsplit(contract.progress(FIRST, found.environment)["KUBEFLOW_TRAINER_SERVER_URL"])
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode())
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
