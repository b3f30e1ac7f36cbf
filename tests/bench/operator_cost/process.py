"""One operator process of this checkout, against the cluster that is up: start, end, and what it says of itself."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import aiohttp

from cluster.layout import kubeconfig
from harness.ports import free_port

ROOT: Final = Path(__file__).parents[3]
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
WRITES: Final = ("create", "update", "patch", "delete")


class Operator:
    """Leads at once: it takes no Lease. `async with` it."""

    def __init__(self, namespace: str, log: Path, reports_port: int = 0) -> None:
        self._namespace = namespace
        self._reports_port = reports_port
        self._log = log
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        arguments = [
            *("--kubeconfig", str(kubeconfig()), "--own-namespace", self._namespace, "--namespace", self._namespace),
            *(
                "--no-leader-election",
                "--allow-own-namespace",
                "--reports-url",
                "https://127.0.0.1:1",
                "--reports-host",
                "127.0.0.1",
            ),
            *("--reports-port", str(self._reports_port), "--metrics-host", "127.0.0.1"),
            *("--metrics-port", str(self._port)),
        ]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "drivetrain_operator.main", *arguments),
                env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
                stdout=log,
                stderr=log,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(20):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def metrics(self) -> list[tuple[str, Mapping[str, str], float]]:
        """Name, labels and value of each sample."""
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
            text = await answer.text()
        found: list[tuple[str, Mapping[str, str], float]] = []
        for name, labels, value in _SAMPLE.findall(text):
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
            found.append((name, pairs, float(value)))
        return found

    async def requests(self) -> dict[str, float]:
        """Requests to the API server so far, by `verb resource`, without watches; `writes` and `all` are sums."""
        counted: dict[str, float] = {"writes": 0.0, "all": 0.0}
        for name, labels, value in await self.metrics():
            if name != "drivetrain_api_requests_total" or labels["verb"] == "watch":
                continue
            key = f"{labels['verb']} {labels['resource']}"
            counted[key] = counted.get(key, 0.0) + value
            counted["all"] += value
            counted["writes"] += value if labels["verb"] in WRITES else 0.0
        return counted

    @property
    def url(self) -> str:
        """Where it serves probes and numbers."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_megabytes(self) -> float:
        """Resident memory now, in MB."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    async def answers(self, seconds: float = 60.0) -> float:
        """Seconds until it answers at all."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            try:
                await self.metrics()
                return time.monotonic() - began
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        raise TimeoutError(f"the operator does not answer; its log is {self._log}")
