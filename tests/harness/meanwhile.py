"""Does everybody else go on meanwhile? Asks again and again while something bad happens, and judges."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from harness.streams import answered

LATENCY: Final = 5.0
"""Seconds that an honest caller may wait, on a machine that is slow and does everything at once; usually 0.04."""
GROWTH: Final = 64 << 20
"""Bytes, of a process that is victim and attacker in one."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Meanwhile:
    """Asks again and again while something goes on, and says how long answers took at most."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self.took: list[float] = []

    async def during(self, work: Awaitable[list[bytes]]) -> list[bytes]:
        asking = asyncio.create_task(self._for_ever())
        try:
            return await work
        finally:
            asking.cancel()
            done = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError), done

    async def _for_ever(self) -> None:
        while True:
            began = time.monotonic()
            await self._ask()
            self.took.append(time.monotonic() - began)
            await asyncio.sleep(0.02)


def judge(name: str, got: list[bytes], watch: Meanwhile, before: int, caplog: pytest.LogCaptureFixture) -> None:
    codes = [code for each in got for code in answered(each)]
    growth, worst = resident() - before, max(watch.took)
    counts = {code: codes.count(code) for code in sorted(set(codes))}
    print(
        f"\n{name}: {len(got)} streams, answers {counts}; honest callers n={len(watch.took)} "
        f"max={worst * 1000:.0f} ms; {growth / 2**20:+.1f} MiB"
    )
    assert 500 not in counts
    assert worst < LATENCY
    assert growth < GROWTH
    assert not [record for record in caplog.records if record.exc_info]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) < 40
    assert len(watch.took) > 5
