"""What node agents say of their nodes, and what they are told: both sides of the talk, in one turn a look.

The leader asks it at every look. Nobody is told anything before all jobs are known: caps of jobs that were not read yet
would end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from drivetrain_energy.settings import PowerDomain
from drivetrain_operator.clock import Clock
from drivetrain_operator.energy.capped import Placed, capped
from drivetrain_operator.energy.cards import Cards, cards, drawn
from drivetrain_operator.energy.hot import HotNodes, allowed
from drivetrain_operator.energy.reports import Reports
from drivetrain_operator.energy.told_caps import ToldCaps
from drivetrain_operator.plan.view import JobView

DomainOf = Callable[[JobView], PowerDomain | None]
PATIENCE_SECONDS: Final = 60.0
"""So long a leader waits for namespaces that cannot be read."""
_EVER: Final = datetime.min.replace(tzinfo=UTC)


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
        self._jobs: Mapping[str, Placed] = {}
        self.cards: Mapping[str, Cards] = {}
        """By the job's uid, of those that can be capped."""
        self.hot = HotNodes()

    async def hear(self) -> None:
        """Read all reports again. Raises nothing."""
        await self.reports.look()
        reports = self.reports.by_node
        self._jobs = {job.uid: job for job in self._placed()} if reports else {}
        found = {uid: cards(job, reports) for uid, job in self._jobs.items()}
        self.cards = {uid: known for uid, known in found.items() if known is not None}

    def sets_caps(self, job: JobView) -> bool:
        """Whether caps of this job come into force. Of one without workers: whether those of any node would. A leader
        that has not looked yet says what its predecessor thought."""
        if job.spec is None or not job.spec.gpus_per_worker:
            return False
        if not self.reports.looked:
            return _counts_on_caps(job)
        known = self._jobs.get(job.uid)
        if known is not None and known.pods:
            return job.uid in self.cards
        return any(report.devices for report in self.reports.by_node.values())

    def drawn(self, jobs: Iterable[JobView], since: float) -> float | None:
        """Watts of all nodes that these jobs are on, if all of them were heard after `since`."""
        known = (self._jobs.get(job.uid) for job in jobs)
        nodes = {pod.node for job in known if job is not None for pod in job.pods}
        return drawn(nodes, self.reports.since(since))

    async def tell(self) -> None:
        """Tell all caps. Raises nothing."""
        if not self._told.enabled:
            return
        if not self._all_known() and self._clock.monotonic() - self._began < PATIENCE_SECONDS:
            return
        await self._told.tell(capped(self._placed(), self.reports.by_node, self.hot.caps))

    def feel(
        self,
        domains: Iterable[PowerDomain],
        jobs: Iterable[JobView],
        domain_of: DomainOf,
        degrees_of: Callable[[str], float | None] = lambda node: None,
    ) -> bool:
        """How hot are nodes? `jobs` is read only where one may be too hot. Whether that is news for jobs."""
        limits = frozenset(each.max_temperature_c for each in domains if each.max_temperature_c is not None)
        self.hot.keep(limits)
        reports = self.reports.by_node if limits else {}
        suspects = self.hot.suspects(reports, min(limits, default=None))
        degrees = allowed(suspects, self._jobs, jobs, domain_of, degrees_of) if suspects else {}
        return self.hot.look(reports, degrees, self._clock.monotonic(), self._newest() if suspects else _EVER)

    def _newest(self) -> datetime:
        """When the last pod came. Our own clock may be ahead of the API server's, whose pods' times are: all that come
        later would be older than now, and leave again."""
        return max((pod.created for job in self._jobs.values() for pod in job.pods), default=_EVER)


def _counts_on_caps(job: JobView) -> bool:
    known = job.status.energy
    order, plan = (known.order, known.plan) if known is not None else (None, None)
    slots = plan.slots if plan is not None else []
    return any(each is not None and each.cap_watts is not None for each in (order, *slots))


__all__ = ["Agents"]
