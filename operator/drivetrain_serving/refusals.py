"""Whoever is turned away is counted, and told of in the log: at first, then less and less."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

SECONDS: Final = 60.0
"""One line a reason in this time, which says how many there were."""
DETAIL: Final = 200


class Refusals:
    """Of one port. Reasons are few and ours: they label a metric."""

    def __init__(
        self, port: str, clock: Callable[[], float], count: Callable[[str], None] = lambda reason: None
    ) -> None:
        """`count(reason)` is called for each; `clock` is in seconds."""
        self._port = port
        self._clock = clock
        self._count = count
        self._untold: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self.total: Counter[str] = Counter()

    def refuse(self, reason: str, detail: str) -> None:
        """Somebody was refused."""
        self._count(reason)
        self.total[reason] += 1
        self._untold[reason] += 1
        now = self._clock()
        if now - self._told.get(reason, float("-inf")) < SECONDS:
            return
        self._told[reason] = now
        told = self._untold.pop(reason)
        log.warning(
            "callers refused",
            extra={"port": self._port, "reason": reason, "count": told, "latest": _printable(detail)},
        )


def _printable(text: str) -> str:
    return text[:DETAIL].encode("ascii", "backslashreplace").decode()
