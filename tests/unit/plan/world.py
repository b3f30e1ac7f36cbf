"""A tiny Kubernetes with one job in it, for property tests: an API server, nodes, a coordinator and an operator.

The operator is the real `plan` behind the rules of `effects.py`: status first, by compare-and-swap, then effects, any
of which may be the last before it is killed. Its view of pods may lag. Time moves only when the test says so.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.exit_codes import ExitCode
from drivetrain_api.goodput import Category
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.report import Failure, JobState, Report
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import ConditionType, TrainingJobStatus
from drivetrain_operator.plan.effects import (
    CreateBudget,
    CreateCoordinator,
    CreateSecret,
    CreateService,
    CreateWorker,
    DeleteJob,
    DeletePod,
    Effect,
    PatchBudget,
    PatchService,
    Plan,
)
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.coordinator import LAG_SECONDS
from drivetrain_operator.plan.view import (
    BudgetView,
    JobView,
    PodPhase,
    PodView,
    ReportView,
    ServiceView,
    Sight,
    Terminated,
    View,
)
from drivetrain_operator.render import names
from unit.plan.builders import ADDRESS, JOB, NOW, UID, seen, service


@dataclass
class Times:
    """How the job's time was spent in truth, and how its coordinator tells it of its own term."""

    truth: defaultdict[Category, float] = field(default_factory=lambda: defaultdict(float))
    spent: defaultdict[Category, float] = field(default_factory=lambda: defaultdict(float))
    term: int = 0
    went_on: bool = False
    trained: bool = False
    """Since it was started or resumed."""
    members: frozenset[str] = frozenset()

    def pass_(self, seconds: float, at: Category, leads: int | None) -> None:
        """So many seconds were of this kind; `leads`: under the coordinator of this term."""
        self.truth[at] += seconds
        if leads is None:
            return
        if leads != self.term:
            self.spent, self.term = defaultdict(float), leads
            self.went_on = at is Category.PRODUCTIVE and self.truth[Category.PRODUCTIVE] > seconds
        if at is Category.PRODUCTIVE:
            for part, share in SHARES.items():
                self.spent[part] += share * seconds
        elif at is not Category.SUSPENDED:
            self.spent[at] += seconds

    def told(self, term: int) -> dict[str, float]:
        return {str(each): value for each, value in self.spent.items()} if term == self.term else {}


SHARES: Final = {Category.PRODUCTIVE: 0.7, Category.DATA: 0.2, Category.WAITING: 0.1}
"""Of a membership that trains."""


@dataclass
class World:
    """What is true, beside what the operator sees of it."""

    spec: TrainingJobSpec
    status: TrainingJobStatus = field(default_factory=TrainingJobStatus)
    now: datetime = NOW
    generation: int = 1
    version: int = 1
    deleting: bool = False
    gone: bool = False
    pods: dict[str, PodView] = field(default_factory=dict)
    service: ServiceView | None = None
    secrets: frozenset[str] = frozenset()
    budget: int = -1
    report: Report | None = None
    reported_at: datetime = NOW
    leading_since: datetime = NOW - timedelta(hours=1)
    step: int = -1
    failures: list[Failure] = field(default_factory=list)
    failures_term: int = 0
    incidents: int = 0
    """Ground truth: how many incidents there were that may be charged."""
    history: list[tuple[PodView, ...]] = field(default_factory=lambda: [()])
    terms: list[int] = field(default_factory=list)
    """Every coordinator pod that was ever created, by term."""
    creates_after_end: int = 0
    """By a leader that knew of the end. One whose lease ran out may have planned before it; what it creates goes."""
    missing: dict[str, datetime] = field(default_factory=dict)
    uids: itertools.count[int] = field(default_factory=itertools.count)
    times: Times = field(default_factory=Times)
    skew: timedelta = timedelta()
    """So much is the operator's clock ahead of the API server's."""

    # --- the operator ---------------------------------------------------------------------------------------------

    def view(self, lag: int = 0) -> View:
        """What the operator sees, its pods `lag` changes late."""
        pods = self.history[max(0, len(self.history) - 1 - lag)]
        report = None
        if self.report is not None and self.reported_at >= self.leading_since:
            report = ReportView(self.report, (self.now - self.reported_at).total_seconds())
        found = View(
            job=JobView(
                namespace="ns",
                name=JOB,
                uid=UID,
                resource_version=str(self.version),
                generation=self.generation,
                created=NOW,
                spec=self.spec,
                status=self.status,
                deleting=self.deleting,
            ),
            now=self.now + self.skew,
            pods=pods,
            service=self.service,
            budget=BudgetView("lm-workers-11111", "b", self.budget, as_rendered=True) if self.budget >= 0 else None,
            files=self.secrets,
            report=report,
            absent=frozenset(
                names.coordinator(JOB, names.suffix(UID), term)
                for term in [self.status.membership.term]
                if names.coordinator(JOB, names.suffix(UID), term) not in self.pods and self._asked(term)
            ),
            serving_seconds=(self.now - self.leading_since).total_seconds(),
        )
        found = seen(found)
        ages = dict(found.seen)
        ages |= {(Sight.MISSING, name): (self.now - since).total_seconds() for name, since in self._missing().items()}
        return replace(found, seen=ages)

    def _missing(self) -> dict[str, datetime]:
        """Since when the operator has seen that a slot that lost pod after pod has none."""
        status = self.status
        wanted = {
            names.worker(JOB, names.suffix(UID), index, status.incarnations.get(index, 0))
            for index in status.taken_away
        }
        self.missing = {name: self.missing.get(name, self.now) for name in wanted - self.pods.keys()}
        return self.missing

    def _asked(self, term: int) -> bool:
        """The shell asks the API server for a coordinator that is missing for so long."""
        since = self.status.membership.since
        return since is not None and (self.now - since).total_seconds() >= LAG_SECONDS

    def reconcile(self, lag: int = 0, die_after: int | None = None) -> Plan:
        """One pass; it ends after `die_after` writes as if killed there."""
        view = self.view(lag)
        found = plan(view)
        self.apply(view, found, die_after)
        return found

    def apply(self, view: View, found: Plan, die_after: int | None = None) -> None:
        """Carry a plan out, if its view's resourceVersion still holds."""
        assert not found.status.is_true(ConditionType.REPORT_UNUSABLE), found.status.conditions
        left = die_after if die_after is not None else 10**9
        if found.status != view.job.status:
            if left == 0 or view.job.resource_version != str(self.version):
                return
            # Through JSON and back, as the API server would store it.
            self.status = TrainingJobStatus.model_validate(status_json(found.status))
            self.version += 1
            left -= 1
        ended = found.status.finished or view.job.deleting
        for effect in found.effects[: max(left, 0)]:
            creates = isinstance(effect, CreateWorker | CreateCoordinator | CreateService)
            self.creates_after_end += creates and ended
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case CreateService(name, term, _) if self.service is None:
                self.service = replace(service(term, ADDRESS), uid="s", name=name)
            case PatchService(term=term) if self.service is not None:
                self.service = replace(service(term, ADDRESS), uid="s")
            case CreateBudget(least=least) | PatchBudget(least=least):
                self.budget = least
            case CreateSecret(name=name):
                self.secrets |= {name}
            case CreateWorker(name, index, incarnation, attempt) if name not in self.pods:
                self._add(name, ROLE_WORKER, index=index, incarnation=incarnation, attempt=attempt)
            case CreateCoordinator(name, term) if name not in self.pods:
                self.terms.append(term)
                self._add(name, ROLE_COORDINATOR, term=term)
            case DeletePod(name=name, uid=uid) if name in self.pods and self.pods[name].uid == uid:
                self.delete(name)
            case DeleteJob():
                self.gone = True
            case _:
                pass

    # --- Kubernetes -----------------------------------------------------------------------------------------------

    def _add(
        self, name: str, role: str, index: int = -1, incarnation: int = -1, attempt: int = 0, term: int = -1
    ) -> None:
        pod = PodView(
            name=name,
            uid=f"u{next(self.uids)}",
            role=role,
            phase=PodPhase.PENDING,
            created=self.now,
            index=index,
            incarnation=incarnation,
            attempt=attempt,
            term=term,
        )
        self._put(pod)

    def _put(self, pod: PodView) -> None:
        self.pods[pod.name] = pod
        self.history.append(tuple(self.pods.values()))

    def remove(self, name: str) -> None:
        """Gone from the API server, whatever runs on its node."""
        del self.pods[name]
        self.history.append(tuple(self.pods.values()))

    def start(self, name: str) -> None:
        """Scheduled, pulled, running."""
        pod = self.pods[name]
        if pod.phase is PodPhase.PENDING and not pod.deleting:
            self._put(replace(pod, phase=PodPhase.RUNNING, started=self.now, node="n", ready=True))

    def delete(self, name: str) -> None:
        """Asked to go; a kubelet that is there will let it end."""
        pod = self.pods[name]
        if pod.phase is PodPhase.PENDING or pod.over:
            self.remove(name)
        else:
            self._put(replace(pod, deleting=True))

    def end(self, name: str, exit_code: int, reason: str = "Error", disruption: str = "") -> None:
        """The container exits."""
        pod = self.pods[name]
        if pod.over:
            return
        self._put(
            replace(
                pod,
                phase=PodPhase.FAILED if exit_code else PodPhase.SUCCEEDED,
                ready=False,
                disruption=disruption,
                terminated=Terminated(exit_code, None, reason, "", pod.started, self.now),
            )
        )

    def kubelets(self) -> None:
        """Every node does its work: pods start, pods on their way out are gone."""
        for name, pod in list(self.pods.items()):
            if pod.deleting:
                self.remove(name)
            else:
                self.start(name)

    def tick(self, seconds: float) -> None:
        self.times.pass_(seconds, self._is_at(), self._leads())
        self.now += timedelta(seconds=seconds)

    def _leads(self) -> int | None:
        """Term of the coordinator that runs."""
        term = self.status.membership.term
        return term if any(p.term == term for p in self.running(ROLE_COORDINATOR)) else None

    def _is_at(self) -> Category:
        """What the job is at in truth. Ranks train on without a coordinator, and find nobody new without one."""
        if self.status.is_true(ConditionType.SUSPENDED):
            self.times.trained = False
            return Category.SUSPENDED
        ready = frozenset(p.uid for p in self.running(ROLE_WORKER) if not p.deleting)
        if self._leads() is not None and len(ready) >= self._minimum():
            self.times.members, self.times.trained = ready, True
        trains = bool(self.times.members) and self.times.members <= ready
        if not self.times.trained:
            return Category.STARTING
        return Category.PRODUCTIVE if trains else Category.RECOVERING

    def _minimum(self) -> int:
        elastic = self.spec.elastic
        return elastic.min_workers if elastic is not None else self.spec.workers

    # --- the job's own processes ----------------------------------------------------------------------------------

    def running(self, role: str) -> list[PodView]:
        return [p for p in self.pods.values() if p.role == role and p.started is not None and not p.over]

    def fail_process(self, pod: PodView, again: bool) -> None:
        """A rank of this pod raises; with `again` for the same cause as the one before."""
        term = self.status.membership.term
        if self.failures_term != term:
            self.failures, self.failures_term, again = [], term, False
        last = self.failures[-1] if self.failures else None
        incident = last.incident if last is not None and again else (last.incident + 1 if last is not None else 0)
        self.incidents += last is None or incident != last.incident
        seq = last.seq + 1 if last is not None else 0
        self.failures.append(
            Failure(
                seq=seq, incident=incident, process=f"{term}/{seq}", pod_uid=pod.uid, pod_name=pod.name, exit_code=1
            )
        )

    def coordinate(self, steps: int = 1) -> None:
        """The coordinator that leads, if one runs, reports; training goes on for some steps."""
        term = self.status.membership.term
        if not any(p.term == term for p in self.running(ROLE_COORDINATOR)):
            return
        if self.failures_term != term:
            self.failures, self.failures_term = [], term
        ready = [p.uid for p in self.running(ROLE_WORKER) if not p.deleting]
        trains = len(ready) >= self._minimum()
        total = self.spec.training.steps or 10**9
        self.step = min(self.step + (steps if trains else 0), total - 1)
        complete = self.step == total - 1
        if complete:
            for pod in self.running(ROLE_WORKER):
                self.end(pod.name, ExitCode.COMPLETE, "Completed")
        self.report = Report(
            job_uid=UID,
            namespace="ns",
            job=JOB,
            term=term,
            seq=1 if self.report is None else self.report.seq + 1,
            state=JobState.COMPLETE if complete else JobState.TRAINING if trains else JobState.WAITING,
            epoch=EpochId(term, 1),
            world=len(ready) if trains else 0,
            joined=ready,
            ready=ready,
            progress=Progress(step=self.step, steps=self.spec.training.steps) if self.step >= 0 else None,
            failures=self.failures[-20:],
            spent=self.times.told(term),
            went_on=self.times.went_on,
        )
        self.reported_at = self.now

    def settle(self, rounds: int = 40) -> None:
        """Faults stop; the operator, nodes and coordinator go on for a while."""
        for _ in range(rounds):
            self.reconcile()
            self.kubelets()
            self.coordinate(steps=0)
            self.tick(60 if self._missing() else 2)
