"""Time, as the operator hands it in: `now` for what sources say, `monotonic` for when to ask again."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The operator's own clock is one."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...


__all__ = ["Clock"]
