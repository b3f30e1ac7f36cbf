"""`asyncio.timeout`, also in Python 3.10, which an image of a user's may have."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from types import TracebackType

    class timeout:
        """Ends what is awaited within it after so many seconds, with a TimeoutError."""

        def __init__(self, delay: float) -> None:
            self._delay = delay
            self._over = False

        async def __aenter__(self) -> None:
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, self._delay), self._end)

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None:
            self._timer.cancel()
            if self._over and kind is asyncio.CancelledError:
                raise TimeoutError from error

        def _end(self) -> None:
            self._over = True
            if self._task is not None:
                self._task.cancel()


TIME_IS_UP: Final = (TimeoutError, asyncio.exceptions.TimeoutError)
"""Which are two classes in Python 3.10; aiohttp raises the second."""

__all__ = ["TIME_IS_UP", "timeout"]
