"""What node agents say of their nodes, and what they are told: both sides of the talk, in one turn a look.

The leader asks it at every look. Nobody is told anything before all jobs are known: caps of jobs that were not read yet
would end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.capped import Placed, capped
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.told_caps import ToldCaps

PATIENCE_SECONDS: Final = 60.0
"""So long a leader waits for namespaces that cannot be read."""


class Agents:
    """Of one leader."""

    def __init__(
        self,
        reports: Reports,
        told: ToldCaps,
        clock: Clock,
        placed: Callable[[], Iterable[Placed]],
        all_known: Callable[[], bool],
    ) -> None:
        """`placed`: all jobs with their workers; `all_known`: whether all that there are were read."""
        self.reports = reports
        self._told = told
        self._clock = clock
        self._placed = placed
        self._all_known = all_known
        self._began = clock.monotonic()

    async def hear(self) -> None:
        """Read all reports again. Raises nothing."""
        await self.reports.look()

    async def tell(self) -> None:
        """Tell all caps. Raises nothing."""
        if not self._told.enabled:
            return
        if not self._all_known() and self._clock.monotonic() - self._began < PATIENCE_SECONDS:
            return
        await self._told.tell(capped(self._placed(), self.reports.by_node))


__all__ = ["Agents"]
