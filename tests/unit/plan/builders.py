"""Views with defaults filled in, so that a case shows only what matters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.messages import EpochId, Progress
from drivetrain_api.report import (
    Failure,
    JobState,
    MemberReport,
    Report,
)
from drivetrain_api.resolve import resolve
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Condition, Membership, Resolved, TrainingJobStatus, Workers
from drivetrain_operator.plan import slots
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

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
JOB = "lm"
UID = "11111111-2222-3333-4444-555555555555"
ADDRESS = "10.0.0.7"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def spec(**fields: Any) -> TrainingJobSpec:
    """camelCase fields over the smallest spec of three workers."""
    return TrainingJobSpec.model_validate({"image": "train", "command": ["python", "train.py"], "workers": 3} | fields)


def started(of: TrainingJobSpec | None = None, **fields: Any) -> TrainingJobStatus:
    """Status of a job that runs with all its workers under its first coordinator, for ten minutes."""
    of = of or spec()
    status = TrainingJobStatus(
        start_time=ago(600),
        membership=Membership(term=1, epoch=1, since=ago(600)),
        workers=Workers(target=of.workers, indices=slots.format_(range(of.workers))),
        resolved=Resolved(
            **resolve(of).model_dump() | {"coordinator_address": ADDRESS, "name_suffix": names.suffix(UID)}
        ),
    )
    return status.model_copy(update=fields)


def job(of: TrainingJobSpec | None = None, status: TrainingJobStatus | None = None, **fields: Any) -> JobView:
    base = JobView(
        namespace="ns",
        name=JOB,
        uid=UID,
        resource_version="7",
        generation=1,
        created=ago(900),
        spec=of or spec(),
        status=status if status is not None else TrainingJobStatus(),
    )
    return replace(base, **fields)


def worker(index: int, incarnation: int = 0, **fields: Any) -> PodView:
    """A worker that runs."""
    base = PodView(
        name=names.worker(JOB, names.suffix(UID), index, incarnation),
        uid=f"w-{index}-{incarnation}",
        role=ROLE_WORKER,
        phase=PodPhase.RUNNING,
        created=ago(500),
        index=index,
        incarnation=incarnation,
        node=f"node{index}",
        ready=True,
        started=ago(490),
    )
    return replace(base, **fields)


def pending(index: int, incarnation: int = 0, **fields: Any) -> PodView:
    """A worker whose container does not run yet."""
    defaults: dict[str, Any] = {"phase": PodPhase.PENDING, "node": "", "ready": False, "started": None}
    return worker(index, incarnation, **defaults | fields)


def ended(index: int, exit_code: int, incarnation: int = 0, reason: str = "Error", **fields: Any) -> PodView:
    """A worker whose container has exited."""
    message, finished = fields.pop("tail", ""), fields.pop("finished", ago(1))
    return worker(
        index,
        incarnation,
        phase=PodPhase.SUCCEEDED if exit_code == 0 else PodPhase.FAILED,
        ready=False,
        terminated=Terminated(exit_code, None, reason, message, ago(490), finished),
        **fields,
    )


def coordinator(term: int = 1, **fields: Any) -> PodView:
    """A coordinator that runs."""
    base = PodView(
        name=names.coordinator(JOB, names.suffix(UID), term),
        uid=f"c-{term}",
        role=ROLE_COORDINATOR,
        phase=PodPhase.RUNNING,
        created=ago(500),
        term=term,
        node="node9",
        ready=True,
        started=ago(490),
    )
    return replace(base, **fields)


def service(term: int = 1, address: str = ADDRESS) -> ServiceView:
    selector = {"drivetrain.dev/job": JOB, "drivetrain.dev/job-uid": UID, "drivetrain.dev/role": "coordinator"}
    ours = frozenset({**selector, "drivetrain.dev/term": str(term)}.items())
    ports = (("channel", 7070, "7070", "TCP"),)
    return ServiceView(names.service(JOB, names.suffix(UID)), "s-1", address, term, ours, ports)


def report(age: float = 0.5, **fields: Any) -> ReportView:
    """Three workers train under term 1."""
    members = [
        MemberReport(rank=i, process=f"p{i}", pod_uid=f"w-{i}-0", pid=1, start_ticks=1, step=9) for i in range(3)
    ]
    uids = [m.pod_uid for m in members]
    base = Report(
        job_uid=UID,
        namespace="ns",
        job=JOB,
        term=1,
        seq=5,
        state=JobState.TRAINING,
        epoch=EpochId(1, 1),
        world=3,
        members=members,
        joined=uids,
        ready=uids,
        progress=Progress(step=9, steps=100, loss=2.5, step_seconds=0.5),
    )
    return ReportView(base.model_copy(update=fields), age)


def process_failure(seq: int, incident: int, **fields: Any) -> Failure:
    tail = 'Traceback (most recent call last):\n  File "train.py", line 3\nValueError: bad batch'
    base = Failure(
        seq=seq,
        incident=incident,
        process=f"p{seq}",
        pod_uid="w-1-0",
        pod_name="lm-1-0-11111",
        rank=1,
        exit_code=1,
        log_tail=tail,
    )
    return base.model_copy(update=fields)


def running(of: TrainingJobSpec | None = None, **fields: Any) -> View:
    """A job in which everything is well, already summed up in status."""
    of = of or spec()
    status = fields.pop("status", None) or started(of)
    base = View(
        job=job(of, status),
        now=NOW,
        pods=(*(worker(i) for i in range(of.workers)), coordinator()),
        service=service(),
        budget=BudgetView(names.budget(JOB, UID), "b-1", of.workers - 1, as_rendered=True),
        report=report(),
    )
    return seen(replace(base, **fields))


def replaced(view: View, *pods: PodView, without: tuple[str, ...] = ()) -> View:
    """The view with these pods in place of those of the same name. Of coordinators in `without`, the API server said
    that it does not have them."""
    those = {p.name for p in pods} | set(without)
    found = replace(view, pods=(*(p for p in view.pods if p.name not in those), *pods))
    return seen(replace(found, absent=view.absent | {name for name in without if "-coordinator-" in name}))


def seen(view: View) -> View:
    """The view of an operator that was there when all of this happened, and whose clock is the nodes'."""
    ages: dict[tuple[Sight, str | int], float] = {}
    membership = view.job.status.membership
    if membership.since is not None:
        ages[Sight.TERM, membership.term] = (view.now - membership.since).total_seconds()
    for pod in view.pods:
        if pod.over:
            at = pod.terminated and pod.terminated.finished
            ages[Sight.OVER, pod.uid] = (view.now - (at or pod.created)).total_seconds()
        elif pod.started is not None:
            ages[Sight.STARTED, pod.uid] = (view.now - pod.started).total_seconds()
    return replace(view, seen=ages)


def condition(status: TrainingJobStatus, type_: str) -> Condition:
    return next(c for c in status.conditions if c.type == type_)
