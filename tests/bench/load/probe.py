"""How is a process from the outside? Its memory, and how soon its event loop answers a stranger's probe."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import aiohttp

GAP: Final = 0.05


def resident_mb(pid: int) -> float:
    """Resident memory now, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb(pid: int) -> float:
    """The most that it ever was, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class LoopDelay:
    """`async with` it: probes `url` all the time, each on a connection of its own, as a kubelet does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.took: list[float] = []
        self.failed = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._probe())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> None:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            while True:
                began = time.monotonic()
                try:
                    async with session.get(self._url) as answer:
                        await answer.read()
                        ok = answer.status < 500
                except (aiohttp.ClientError, TimeoutError, OSError):
                    ok = False
                self.took.append(time.monotonic() - began)
                self.failed += not ok
                await asyncio.sleep(GAP)

    def told(self) -> str:
        """For a person."""
        p50, p99 = (1000 * percentile(self.took, share) for share in (0.5, 0.99))
        return (
            f"probe n={len(self.took)} p50={p50:.0f} ms p99={p99:.0f} ms max={1000 * max(self.took):.0f} ms, "
            f"{self.failed} without an answer"
        )
