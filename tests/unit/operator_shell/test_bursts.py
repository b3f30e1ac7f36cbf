"""Two hundred jobs at once on nodes that are far too small for them: everybody is slow, and nobody is replaced for it.

Processors are shared out evenly among all that want them. What a coordinator or a worker needs until it speaks is
measured on this project's machines. Everything that hears, remembers and judges is real; time is virtual.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from drivetrain_api.report import JobState, Report
from drivetrain_operator.plan.policies.coordinator import coordinator
from drivetrain_operator.plan.view import Complaint
from unit.operator_shell.test_bad_days import PINGS, STEP, Cluster, Simulated
from unit.plan import builders

COORDINATOR_CPU, WORKER_CPU = 0.6, 5.0
"""Seconds of a processor from the start of the container to the first word."""


class Starved(Cluster):
    """A burst: every job's pods were placed in this moment."""

    def __init__(self, jobs: int, cores: float) -> None:
        super().__init__(11, jobs)
        self.cores = cores
        self.next_pass = 0.0
        self.leader_needs = dict.fromkeys(self.jobs, COORDINATOR_CPU)
        self.worker_needs = dict.fromkeys(self.jobs, WORKER_CPU)
        self.trains_since: dict[str, float] = {}
        for job in self.jobs.values():
            job.pods = (job.pods[0], replace(job.pods[1], ready=False))

    def speak(self) -> None:
        self._work()
        now = self.clock.time
        for uid, job in self.jobs.items():
            if self.leader_needs[uid] <= 0:
                job.pods = (job.pods[0], replace(job.pods[1], ready=True))
                self._says(uid, job)
                if self.worker_needs[uid] <= 0:
                    self.trains_since.setdefault(uid, now)
            elif self.worker_needs[uid] <= 0 and now > PINGS:
                self.complaints.store(uid, Complaint(job.pods[0].uid, 0))

    def _work(self) -> None:
        """One step of time, divided among all that want a processor."""
        wanting = [(needs, uid) for needs in (self.leader_needs, self.worker_needs) for uid in needs if needs[uid] > 0]
        share = min(1.0, self.cores / max(1, len(wanting))) * STEP
        for needs, uid in wanting:
            needs[uid] -= share

    def _says(self, uid: str, job: Simulated) -> None:
        job.seq += 1
        term = job.view.status.membership.term
        state = JobState.TRAINING if uid in self.trains_since else JobState.WAITING
        self.book.store(Report(job_uid=uid, namespace="ns", job="lm", term=term, seq=job.seq, state=state))

    def judge(self) -> None:
        """A pass over every job, once in two seconds: nobody says more."""
        if self.clock.time < self.next_pass:
            return
        self.next_pass = self.clock.time + 2.0
        for uid, job in self.jobs.items():
            view = self.views.around(job.view)
            status = coordinator(view, view.job.status).status
            if status.membership.term > job.view.status.membership.term:
                job.replaced.append((self.clock.time, status.membership.replaced_for))
                self.patience.gave_up(uid, job.view.namespace)
                job.view = replace(job.view, status=status)
                successor = builders.coordinator(status.membership.term, uid=f"{uid}/{status.membership.term}")
                job.pods = (job.pods[0], replace(successor, ready=False))
                self.leader_needs[uid] = COORDINATOR_CPU  # all that its predecessor did was in vain


@pytest.mark.parametrize("cores", [2.0, 8.0, 64.0])
async def test_a_burst_converges(cores: float) -> None:
    jobs = 200
    cluster = Starved(jobs, cores)
    ideal = jobs * (COORDINATOR_CPU + WORKER_CPU) / cores
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(1.15 * ideal + 10.0)
    beating.cancel()
    assert len(cluster.trains_since) == jobs
    replaced = sum(len(job.replaced) for job in cluster.jobs.values())
    assert replaced <= 0.1 * jobs, "their successors needed what they lacked"
