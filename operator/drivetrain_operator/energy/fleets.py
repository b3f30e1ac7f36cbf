"""Which plans have the jobs of each power domain that has `workers`? Asked every ten seconds, beside the event loop.

Without that bound nothing is shared, and each job is planned alone. So it is, too, where the look at a domain fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from drivetrain_energy.fleet.sharing import Capacity, Ceiling
from drivetrain_energy.settings import EnergySettings, PowerDomain
from drivetrain_operator.clock import Clock
from drivetrain_operator.plan.energy.together import Look, look
from drivetrain_operator.plan.view import JobView, Shared, Supply

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""Between two looks, at least."""
MOST_SECONDS: Final = 60.0
"""Between two looks, at most: they are so rare that they take a tenth of the time."""
NEW_SECONDS: Final = 30.0
"""So long a job waits to be counted with the others; then it is planned alone."""
LOST_SECONDS: Final = 180.0
"""After a look that was so long ago all are planned alone."""
AT_ONCE: Final = 50
"""Jobs that are read until the loop may do something else."""


class _Held:
    def __init__(self) -> None:
        self.found = Look()
        self.at: float | None = None


class Fleets:
    """Of one leader. `sources` gives what holds for the jobs of one look: (its power domain, what it draws from), the
    same objects for all that draw from the same. `moved` is told the uids of jobs that have another plan."""

    def __init__(
        self,
        clock: Clock,
        jobs: Callable[[], Iterable[JobView]],
        sources: Callable[[], Callable[[JobView], tuple[PowerDomain | None, Supply]]],
        moved: Callable[[Iterable[str]], None],
        ceilings: Callable[[PowerDomain, Iterable[JobView]], Iterable[Ceiling]] = lambda domain, jobs: (),
    ) -> None:
        self._clock = clock
        self._jobs = jobs
        self._sources = sources
        self._moved = moved
        self._ceilings = ceilings
        self._held: dict[str, _Held] = {}
        self._began = clock.monotonic()

    def of(self, domain: PowerDomain | None, job: JobView) -> Shared | None:
        """The job's part. None: it is planned alone."""
        if domain is None or domain.workers is None:
            return None
        held = self._held.get(domain.name)
        if held is None or held.at is None:
            return Shared(domain.name) if self._clock.monotonic() - self._began < NEW_SECONDS else None
        if self._clock.monotonic() - held.at > LOST_SECONDS or job.uid in held.found.alone:
            return None
        if job.uid in held.found.members:
            return Shared(domain.name, held.found.grants.get(job.uid))
        age = (self._clock.now() - job.created).total_seconds()
        return Shared(domain.name) if age < NEW_SECONDS else None

    async def run(self, settings: Callable[[], EnergySettings]) -> None:
        """Look, for ever. Raises nothing: a defect in here costs shared plans."""
        while True:
            began = self._clock.monotonic()
            await self.look(settings().power_domains)
            took = self._clock.monotonic() - began
            await self._clock.sleep(min(max(LOOK_SECONDS, 9 * took), MOST_SECONDS))

    async def look(self, domains: Iterable[PowerDomain]) -> None:
        """Once at each domain."""
        shared = {each.name: each for each in domains if each.workers is not None}
        self._held = {name: self._held.get(name, _Held()) for name in shared}
        if not shared:
            return
        of, own = self._sources(), {name: list[tuple[JobView, Supply]]() for name in shared}
        for number, job in enumerate(self._jobs(), 1):
            domain, supply = of(job)
            if domain is not None and domain.name in own:
                own[domain.name].append((job, supply))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        for name, domain in shared.items():
            held = self._held[name]
            try:
                await self._look(domain, own[name], held)
            except Exception:
                log.exception(
                    "jobs cannot be planned together; in a while they are planned alone", extra={"domain": name}
                )

    async def _look(self, domain: PowerDomain, jobs: list[tuple[JobView, Supply]], held: _Held) -> None:
        ceilings = self._ceilings(domain, [job for job, _ in jobs])
        bounds = Capacity(domain.workers or 0, domain.watts, tuple(ceilings))
        now, serving = self._clock.now().replace(microsecond=0), self._clock.monotonic() - self._began
        held.found = await asyncio.to_thread(look, domain.name, bounds, jobs, held.found, now, serving)
        held.at = self._clock.monotonic()
        if held.found.moved:
            log.info("jobs have other plans together", extra={"domain": domain.name, "jobs": len(held.found.moved)})
            self._moved(held.found.moved)


__all__ = ["Fleets"]
