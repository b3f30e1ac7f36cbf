"""What is known of one job at this moment? Puts together what the caches, the report book and the memory hold.

It does no I/O, so a view costs microseconds and is taken once at the start of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from drivetrain_operator.act.asking import current_names
from drivetrain_operator.act.jobs import JobCache, JobKey
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.patience import Patience
from drivetrain_operator.act.specs import Specs
from drivetrain_operator.clock import Clock
from drivetrain_operator.listening import Listening
from drivetrain_operator.plan.observe import job_view
from drivetrain_operator.plan.view import Family, JobView, Me, PodView, ReportView, Sight, Supply, View
from drivetrain_operator.render import names
from drivetrain_operator.reports.book import Received, ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook


class Views:
    """Builds views. `children(namespace, uid)` answers with the children whose controller has the given uid."""

    def __init__(
        self,
        jobs: JobCache,
        children: Callable[[str, str], Family],
        book: ReportBook,
        memory: JobMemory,
        clock: Clock,
        listening: Listening,
        patience: Patience,
        complaints: ComplaintBook,
        me: Me,
        specs: Specs,
        supply: Callable[[JobView], Supply] = lambda job: Supply(),
    ) -> None:
        self._jobs = jobs
        self._children = children
        self._book = book
        self._memory = memory
        self._clock = clock
        self._listening = listening
        self._patience = patience
        self._complaints = complaints
        self._me = me
        self._specs = specs
        self._supply = supply
        self._serving = False

    def serving(self) -> None:
        """From now on this process leads, its caches are filled, and reports are answered."""
        self._serving = True
        self._listening.begin()

    def view(self, key: JobKey) -> View | None:
        """The view of a job, or None if it does not exist."""
        obj = self._jobs.get(key)
        return self.around(job_view(obj, self._specs.read)) if obj is not None else None

    def around(self, job: JobView, pods: Iterable[PodView] | None = None) -> View:
        """The view of a job that was read already. `pods`, if given, come from a live list."""
        now = self._listening.seconds()
        received = self._book.latest(job.uid)
        family = self._children(job.namespace, job.uid)
        found = tuple(sorted(family.pods if pods is None else pods, key=lambda pod: pod.name))
        seen = self._memory.seen(job.uid, _sights(job, found))
        self._measure(job, found, seen, received)
        leader = names.coordinator(job.name, names.of(job.status), job.status.membership.term)
        return View(
            job=job,
            now=self._clock.now(),
            pods=found,
            service=family.service,
            budget=family.budget,
            network_policies=family.network_policies,
            files=self._memory.files(job.uid),
            report=ReportView(received.report, now - received.at) if received is not None else None,
            refusals=self._memory.refusals(job.uid, job.generation, _names(found, family)),
            me=self._me,
            complaints=self._complaints.recent(job.uid),
            supply=self._supply(job),
            lost=self._memory.lost(job.uid, found, current_names(job) | {leader}),
            seen=seen,
            usual_start_seconds=self._patience.usual_start(job.uid, job.namespace),
            may_give_up=self._patience.may_give_up(job.uid, job.namespace),
            serving_seconds=self._listening.undisturbed() if self._serving else 0.0,
        )

    def _measure(
        self,
        job: JobView,
        pods: Iterable[PodView],
        seen: Mapping[tuple[Sight, str | int], float],
        received: Received | None,
    ) -> None:
        """How long did the coordinator take that we hear? Known only if we saw it start: it is a lower bound else."""
        for pod in pods:
            age = seen.get((Sight.STARTED, pod.uid))
            if pod.term < 0 or age is None or self._patience.knows(job.uid, pod.uid):
                continue
            if received is not None and received.report.term == pod.term:
                heard = self._listening.seconds() - received.first
                self._patience.started(job.uid, job.namespace, pod.uid, max(0.0, age - heard), heard)
            elif pod.live and (received is None or received.report.term < pod.term):
                self._patience.starting(job.uid, job.namespace, age)


def _names(pods: Iterable[PodView], family: Family) -> set[str]:
    others = (each.name for each in (family.service, family.budget) if each is not None)
    return {*(pod.name for pod in pods), *others, *(policy.name for policy in family.network_policies)}


def _sights(job: JobView, pods: Iterable[PodView]) -> list[tuple[Sight, str | int]]:
    found: list[tuple[Sight, str | int]] = [(Sight.TERM, job.status.membership.term)]
    for pod in pods:
        if pod.over:
            found.append((Sight.OVER, pod.uid))
        elif pod.started:
            found.append((Sight.STARTED, pod.uid))
        elif pod.node:
            found.append((Sight.PLACED, pod.uid))
    there = {pod.name for pod in pods}
    for index in job.status.taken_away:
        name = names.worker(job.name, names.of(job.status), index, job.status.incarnations.get(index, 0))
        if name not in there:
            found.append((Sight.MISSING, name))
    return found
