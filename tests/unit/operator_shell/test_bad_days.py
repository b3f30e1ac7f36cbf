"""Five hundred jobs on bad days: the operator stops for a while, or nothing that is said reaches it. Who lives stays.

Everything that hears, remembers and judges is real; time is virtual. Coordinators report as `reporter.py` does. At the
end of a pause passes run first, before anything that arrived meanwhile was read.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import pytest

from drivetrain_api.report import JobState, Report
from drivetrain_api.status import ReplacedFor
from drivetrain_operator.act.jobs import JobCache, Watcher
from drivetrain_operator.act.memory import JobMemory
from drivetrain_operator.act.patience import GIVEN_UP, GIVEN_UP_SECONDS, GIVEN_UP_SHARE, LONGEST_START, Patience
from drivetrain_operator.act.specs import Specs
from drivetrain_operator.act.views import Views
from drivetrain_operator.listening import BEAT, Listening
from drivetrain_operator.plan.policies.coordinator import (
    BUDGET_SECONDS,
    LAG_SECONDS,
    SILENCE_SECONDS,
    START_FACTOR,
    START_SECONDS,
    coordinator,
)
from drivetrain_operator.plan.view import Complaint, Family, JobView, Me, PodView
from drivetrain_operator.reports.book import ReportBook
from drivetrain_operator.reports.complaints import ComplaintBook
from unit.operator.virtual_clock import VirtualClock
from unit.plan import builders

JOBS = 500
STEP = 2 * BEAT
REPORT_TIMEOUT, BACKOFF = 5.0, 5.0
PROBES, PINGS = 4.0, 5.5
"""So long until a kubelet says that a pod does not answer, and until a launcher says that it lost it."""


class Fate(Enum):
    LIVES = auto()
    CUT_OFF = auto()
    """With its node: Kubernetes does not know yet."""
    HANGS = auto()


@dataclass
class Simulated:
    """One job, and the truth about its coordinator."""

    view: JobView
    pods: tuple[PodView, ...]
    next_report: float
    fate: Fate = Fate.LIVES
    died: float = 0.0
    mute_until: float = 0.0
    """What it says does not arrive."""
    trying_since: float | None = None
    seq: int = 0
    replaced: list[tuple[float, ReplacedFor]] = field(default_factory=list)


class Cluster:
    """All jobs, and the parts of an operator that judge them."""

    def __init__(self, seed: int, jobs: int = JOBS) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.listening = Listening(self.clock)
        self.book = ReportBook(self.listening, lambda _: None)
        self.complaints = ComplaintBook(self.listening, lambda _: None)
        self.memory = JobMemory(self.clock, self.listening)
        self.patience = Patience(self.listening, lambda: [job.view.namespace for job in self.jobs.values()])
        self.jobs = {f"{number:08d}": self._job(f"{number:08d}") for number in range(jobs)}
        self.views = Views(
            JobCache(Watcher(lambda *_: None, lambda *_: None)),
            lambda _, uid: Family(self.jobs[uid].pods, builders.service(self.jobs[uid].view.status.membership.term)),
            self.book,
            self.memory,
            self.clock,
            self.listening,
            self.patience,
            self.complaints,
            Me(),
            Specs(),
        )
        self.views.serving()

    def _job(self, uid: str) -> Simulated:
        pods = tuple(replace(pod, uid=f"{uid}/{pod.name}") for pod in (builders.worker(0), builders.coordinator()))
        of = builders.spec(workers=1)
        start = self.clock.time + self.rng.random()
        return Simulated(builders.job(of, builders.started(of), uid=uid), pods, start)

    def arrive(self, number: int, slowest: float, namespace: str = "ns") -> None:
        """So many more jobs, whose coordinators run and take their time until they report and are ready."""
        for each in range(number):
            uid = f"{namespace}-late-{each:04d}"
            job = self.jobs[uid] = self._job(uid)
            job.view = replace(job.view, namespace=namespace)
            job.pods = (job.pods[0], replace(job.pods[1], ready=False))
            job.next_report = self.clock.time + self.rng.uniform(slowest / 2, slowest)

    def kill(self, job: Simulated, fate: Fate) -> None:
        job.fate, job.died = fate, self.clock.time

    async def run(self, seconds: float) -> None:
        """Turn the loop for so long."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.judge()
            for _ in range(2):
                await self.clock.advance(STEP)
                self.speak()

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT."""
        self.clock.time += seconds
        self.judge()
        await self.clock.advance(0.0)
        self.speak()

    def speak(self) -> None:
        """What coordinators, kubelets and launchers have said by now arrives."""
        now = self.clock.time
        for uid, job in self.jobs.items():
            since = now - job.died
            if job.fate is Fate.LIVES:
                self._report(uid, job, now)
            elif job.fate is Fate.HANGS and since > PROBES:
                job.pods = (job.pods[0], replace(job.pods[1], ready=False))
            elif job.fate is Fate.CUT_OFF and since > PINGS:
                self.complaints.store(uid, Complaint(job.pods[0].uid, job.view.status.membership.term))

    def _report(self, uid: str, job: Simulated, now: float) -> None:
        if now < job.next_report:
            return
        if now < job.mute_until:
            job.trying_since = job.trying_since or now
            job.next_report = min(now + REPORT_TIMEOUT + self.rng.uniform(0.0, BACKOFF), job.mute_until + BACKOFF)
            return
        if now - job.next_report > REPORT_TIMEOUT and job.trying_since is None:
            # Its requests timed out while nobody answered, and it waits before the next.
            job.trying_since, job.next_report = now, now + self.rng.uniform(0.0, BACKOFF)
            return
        if job.seq == 0:
            job.pods = (job.pods[0], replace(job.pods[1], ready=True))
        job.seq, job.trying_since, job.next_report = job.seq + 1, None, now + self.rng.uniform(0.9, 1.1)
        term = job.view.status.membership.term
        self.book.store(
            Report(job_uid=uid, namespace="ns", job="lm", term=term, seq=job.seq, state=JobState.TRAINING, world=1)
        )

    def judge(self) -> None:
        """A pass over every job."""
        for job in self.jobs.values():
            view = self.views.around(replace(job.view))
            status = coordinator(view, view.job.status).status
            if status.membership.term > job.view.status.membership.term:
                job.replaced.append((self.clock.time, status.membership.replaced_for))
                self.patience.gave_up(job.view.uid, job.view.namespace)
                job.view = replace(job.view, status=status)
                job.fate, job.next_report = Fate.LIVES, self.clock.time + 2.0
                successor = builders.coordinator(status.membership.term, uid=f"{job.view.uid}/{status.membership.term}")
                job.pods = (job.pods[0], successor)


def killed_alive(cluster: Cluster, doomed: set[str]) -> Counter[str]:
    """Replacements of coordinators that lived."""
    found: Counter[str] = Counter()
    for uid, job in cluster.jobs.items():
        for _, reason in job.replaced[1 if uid in doomed else 0 :]:
            found[reason] += 1
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_pauses_of_the_operator_replace_nobody(seed: int) -> None:
    """Not even where kubelets, as busy as everybody, call every other pod not ready."""
    cluster = Cluster(seed)
    for job in list(cluster.jobs.values())[::2]:
        job.pods = (job.pods[0], replace(job.pods[1], ready=False))
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    for _ in range(6):
        await cluster.pause(cluster.rng.uniform(1.0, 30.0))
        await cluster.run(cluster.rng.choice([0.4, 3.0, 12.0]))
    await cluster.run(20.0)
    beating.cancel()
    assert killed_alive(cluster, set()) == {}


@pytest.mark.parametrize(("share", "jobs"), [(0.1, 100), (1.0, JOBS)])
async def test_paths_that_drop_for_a_minute_replace_nobody(share: float, jobs: int) -> None:
    cluster = Cluster(7, jobs)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    for job in cluster.jobs.values():
        if cluster.rng.random() < share:
            job.mute_until = cluster.clock.time + cluster.rng.uniform(55.0, 65.0)
    await cluster.run(90.0)
    beating.cancel()
    assert killed_alive(cluster, set()) == {}


@pytest.mark.parametrize("before", [0, 20, JOBS])
async def test_a_crowd_that_starts_slowly_replaces_nobody(before: int) -> None:
    """However fast coordinators started in the quiet before: the first of the crowd is judged by the crowd."""
    cluster = Cluster(11, before)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(90.0)
    cluster.arrive(20, slowest=40.0)
    await cluster.run(60.0)
    beating.cancel()
    assert killed_alive(cluster, set()) == {}


async def test_those_of_a_crowd_that_never_report_are_replaced() -> None:
    """Also if that is all of them: a few at a time."""
    cluster = Cluster(12, 20)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    cluster.arrive(12, slowest=600.0)
    await cluster.run(LONGEST_START + GIVEN_UP_SECONDS)
    beating.cancel()
    assert sum(bool(job.replaced) for job in cluster.jobs.values()) >= GIVEN_UP


async def test_a_tenants_coordinators_that_never_report_hold_up_nobody_elses() -> None:
    """However many they are: neither by what may be given up, nor by what a start is said to take."""
    cluster = Cluster(13, 20)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    cluster.arrive(120, slowest=1e6, namespace="hostile")
    waited = []
    for number in range(8):
        await cluster.run(25.0)
        assert cluster.patience.usual_start("x", "ns") < START_SECONDS / START_FACTOR
        job = cluster.jobs[f"{number:08d}"]
        at = cluster.clock.time
        cluster.kill(job, Fate.HANGS)
        await cluster.run(25.0)
        waited.append(job.replaced[0][0] - at if job.replaced else float("inf"))
    beating.cancel()
    assert max(waited) <= PROBES + SILENCE_SECONDS + BUDGET_SECONDS
    assert sum(len(job.replaced) for job in cluster.jobs.values() if job.view.namespace == "hostile") >= 8


async def test_those_that_are_dead_are_replaced_also_on_a_bad_day() -> None:
    cluster = Cluster(3)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    doomed = set(cluster.rng.sample(sorted(cluster.jobs), 12))
    for number, uid in enumerate(sorted(doomed)):
        cluster.kill(cluster.jobs[uid], Fate.HANGS if number % 2 else Fate.CUT_OFF)
    await cluster.run(2.0)
    await cluster.pause(8.0)
    await cluster.run(START_SECONDS + PINGS + LAG_SECONDS)
    beating.cancel()
    assert {uid for uid, job in cluster.jobs.items() if job.replaced} == doomed
    assert killed_alive(cluster, doomed) == {}


@pytest.mark.parametrize("every", [4.0, 8.0, 14.0])
async def test_an_operator_that_pauses_again_and_again_finds_the_dead_all_the_same(every: float) -> None:
    cluster = Cluster(5, 20)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    hanging = cluster.jobs[min(cluster.jobs)]
    cluster.kill(hanging, Fate.HANGS)
    for _ in range(5):
        await cluster.run(every)
        await cluster.pause(1.6)
    beating.cancel()
    assert len(hanging.replaced) == 1
    assert sum(len(job.replaced) for job in cluster.jobs.values()) == 1


async def test_who_never_reports_does_not_use_up_what_others_need() -> None:
    cluster = Cluster(6, 20)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    *hostile, victim = list(cluster.jobs.values())[:11]
    for job in hostile:
        cluster.kill(job, Fate.HANGS)
    for _ in range(18):
        await cluster.run(20.0)
        for job in hostile:
            job.fate = Fate.HANGS  # whatever is done
    cluster.kill(victim, Fate.HANGS)
    await cluster.run(PROBES + GIVEN_UP_SECONDS + 10.0)
    beating.cancel()
    assert victim.replaced


async def test_of_many_that_hang_at_once_a_few_are_given_up_at_a_time() -> None:
    jobs = 100
    cluster = Cluster(4, jobs)
    beating = asyncio.create_task(cluster.listening.run())
    await cluster.run(5.0)
    hanging = sorted(cluster.jobs)[:15]
    for uid in hanging:
        cluster.kill(cluster.jobs[uid], Fate.HANGS)
    await cluster.run(GIVEN_UP_SECONDS)
    assert sum(len(job.replaced) for job in cluster.jobs.values()) == GIVEN_UP_SHARE * jobs
    await cluster.run(2.5 * GIVEN_UP_SECONDS)
    beating.cancel()
    assert all(cluster.jobs[uid].replaced for uid in hanging)
