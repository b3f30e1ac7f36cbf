"""Processes of this checkout that a measurement starts and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[3]
LINE_BYTES: Final = 1 << 20


class Child:
    """`async with` it: `python -m MODULE arguments`. Its input ends with it; it has five seconds to go then."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        quiet: bool = False,
    ) -> None:
        """Without `log`, its output is told line by line by `last()`, its errors are this process's, if not `quiet`."""
        self._errors = asyncio.subprocess.DEVNULL if quiet else None
        self._command = (sys.executable, "-m", module, *arguments)
        self._env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", **(env or {})}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._last: dict[str, Any] = {}
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the running process. Raises ProcessLookupError if it has ended."""
        assert self._process is not None
        if self._process.returncode is not None:
            raise ProcessLookupError(f"{' '.join(self._command)} ended with {self._process.returncode}")
        return self._process.pid

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        if self._log is not None:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, env=self._env, stdin=pipe, stdout=log, stderr=log
                )
        else:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._env, stdin=pipe, stdout=pipe, stderr=self._errors, limit=LINE_BYTES
            )
            self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.stdin.close()
            if self._log is not None:
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()

    async def tell(self, line: str) -> None:
        """One line on its input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    def last(self) -> dict[str, Any]:
        """The newest JSON line of its output."""
        _ = self.pid
        return self._last

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._last = json.loads(line)
