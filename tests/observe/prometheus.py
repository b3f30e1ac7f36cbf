"""A real Prometheus on loopback, which scrapes an operator and the coordinators that it is told of."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import yaml

from harness.ports import reserve_port
from harness.promtool import program

RULES: Final = Path(__file__).parents[2] / "charts" / "drivetrain" / "files" / "rules" / "drivetrain.yaml"


class Prometheus:
    """Scrapes every second. `async with Prometheus(operator="127.0.0.1:1")`."""

    def __init__(self, operator: str) -> None:
        self._operator = operator
        self._folder = tempfile.TemporaryDirectory(prefix="drivetrain-observe-")
        self._targets = Path(self._folder.name) / "coordinators.json"
        self._port = reserve_port()
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        found = program("prometheus")
        if found is None:
            raise SystemExit("observe: install prometheus")
        folder = Path(self._folder.name)
        self.coordinators([])
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(RULES)],
                    "scrape_configs": [
                        {"job_name": "operator", "static_configs": [{"targets": [self._operator]}]},
                        {
                            "job_name": "coordinators",
                            "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "1s"}],
                        },
                    ],
                }
            )
        )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0))
        self._process = await asyncio.create_subprocess_exec(
            found,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port.value}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while not await self._is_ready(self._session):
                await asyncio.sleep(0.2)
        return self

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        """It listens before that, and answers in plain text."""
        try:
            async with session.get(f"http://127.0.0.1:{self._port.value}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
        if self._session is not None:
            await self._session.close()
        self._port.release()
        self._folder.cleanup()

    def coordinators(self, found: list[tuple[str, dict[str, str]]]) -> None:
        """Scrape these from now on: (address, labels)."""
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": [address], "labels": labels} for address, labels in found]))
        new.rename(self._targets)

    async def ask(self, what: str, **parameters: str) -> Any:
        """`query` or `query_range`: the result. Raises ValueError with Prometheus' words."""
        assert self._session is not None
        url = f"http://127.0.0.1:{self._port.value}/api/v1/{what}"
        async with self._session.post(url, data=parameters) as answer:
            said = await answer.json(content_type=None)
        if said.get("status") != "success":
            raise ValueError(said.get("error", said))
        return said["data"]["result"]
