"""How a job begins, rests, resumes and ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.messages import Progress
from drivetrain_api.report import JobState
from drivetrain_api.status import TrainingJobStatus, Workers
from drivetrain_api.wishes import Wishes
from drivetrain_operator.plan.effects import (
    CreateCoordinator,
    CreateSecret,
    CreateService,
    CreateWorker,
    DeleteJob,
    DeletePod,
    RecordEvent,
    SecretKind,
)
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import Me, PodPhase, Sight, View
from unit.plan.builders import (
    NOW,
    ago,
    coordinator,
    ended,
    job,
    pending,
    replaced,
    report,
    running,
    spec,
    started,
)
from unit.plan.tables import Case, check, conditions, gone

WORKER_SECRET = CreateSecret("lm-worker-11111111", SecretKind.WORKER, 0)
OVER = "the job is over"


UNUSABLE = (
    "spec.training: breaks a rule of this release. What runs goes on, and nothing is created until that is mended"
)


def refused(**fields: Any) -> View:
    """A job that runs, whose spec a newer rule refuses; `wishes` stand in it all the same."""
    wishes = fields.pop("wishes", {})
    view = running(**fields)
    why = ("spec.training: breaks a rule of this release",)
    return replace(view, job=replace(view.job, spec=None, invalid=why, stays_wished=Wishes(**wishes)))


LIFE = [
    Case(
        "a new job starts: defaults frozen, a term raised, coordinator and Service made; workers wait for its address",
        replace(running(status=TrainingJobStatus()), pods=(), service=None, report=None),
        {
            "start_time": NOW,
            "resolved.processes_per_worker": 1,
            "membership.term": 1,
            "workers.target": 3,
            "workers.indices": "0-2",
            "phase": "Pending",
            "observed_generation": 1,
        },
        (
            CreateService("lm-coordinator-11111", 1),
            CreateCoordinator("lm-coordinator-1-11111", 1, "lm-coordinator-1-11111111"),
        ),
    ),
    Case(
        "the Service has an address: it is kept for life, and workers are made with it",
        replace(
            running(status=started(resolved=started().resolved.model_copy(update={"coordinator_address": None}))),  # type: ignore[union-attr]
            pods=(coordinator(started=ago(1)),),
            report=None,
        ),
        {"resolved.coordinator_address": "10.0.0.7"},
        (WORKER_SECRET, *(CreateWorker(f"lm-{i}-0-11111", i, 0, 0) for i in range(3))),
    ),
    Case(
        "a job in which all is well needs nothing",
        running(),
        {"phase": "Running", "conditions.Running": "True Training", "conditions.Ready": "True AllWorkersReady"},
    ),
    Case(
        "a job that is being deleted is left to the garbage collector",
        replace(running(), job=job(deleting=True), pods=()),
    ),
    Case(
        "of a spec that cannot be used nothing is created",
        replace(refused(status=TrainingJobStatus()), pods=(), service=None, report=None),
        {"conditions.Ready": "False InvalidSpec", "message": UNUSABLE, "start_time": None, "phase": "Pending"},
    ),
    Case(
        "one worker that exited 0 is proof of success",
        replaced(running(), ended(0, 0)),
        {"phase": "Succeeded", "conditions.Complete": "True Completed", "completion_time": NOW, "restarts": 0},
    ),
    Case(
        "so is the coordinator's word; the last numbers are written, the rest is deleted when it does not end",
        running(report=report(state=JobState.COMPLETE)),
        {"phase": "Succeeded", "progress.percent": 100, "progress.step": 100},
    ),
    Case(
        "a job past its deadline fails",
        running(spec(activeDeadlineSeconds=500)),
        {"conditions.Failed": "True DeadlineExceeded", "phase": "Failed", "workers.ready": 0},
    ),
]

SUSPENSION = [
    Case(
        "suspending deletes every pod and uses up their names",
        running(spec(suspend=True)),
        {
            "phase": "Suspended",
            "start_time": None,
            "workers": Workers(summary="0/0"),
            "incarnations": {0: 1, 1: 1, 2: 1},
            "conditions.Suspended": "True JobSuspended",
        },
        (
            *(gone(f"lm-{i}-0-11111", f"w-{i}-0", "the job is suspended") for i in range(3)),
            gone("lm-coordinator-1-11111", "c-1", "the job is suspended"),
        ),
    ),
    Case(
        "a job created suspended makes nothing",
        replace(running(spec(suspend=True), status=TrainingJobStatus()), pods=(), service=None, report=None),
        {"phase": "Suspended", "membership.term": 0, "start_time": None},
    ),
]


REFUSED = [
    Case(
        "it trains on",
        refused(),
        {"phase": "Running", "conditions.Running": "True Training", "conditions.Ready": "False InvalidSpec"},
    ),
    Case(
        "what it loses is charged and not replaced",
        replaced(refused(), ended(1, 70), without=("lm-2-0-11111",)),
        {"restarts": 1, "incarnations": {1: 1}, "conditions.Ready": "False InvalidSpec", "membership.term": 1},
    ),
    Case(
        "its coordinator is not replaced either",
        replaced(refused(), without=("lm-coordinator-1-11111",)),
        {"membership.term": 1},
    ),
    Case(
        "it succeeds", replaced(refused(), ended(0, 0)), {"phase": "Succeeded", "conditions.Complete": "True Completed"}
    ),
    Case(
        "it fails beyond its budget",
        replaced(refused(wishes={"max_restarts": 0}), ended(1, 70)),
        {"conditions.Failed": "True LauncherCrashed"},
    ),
    Case(
        "it ends in time",
        refused(wishes={"active_deadline_seconds": 500}),
        {"conditions.Failed": "True DeadlineExceeded"},
    ),
    Case(
        "it rests",
        refused(wishes={"suspend": True}),
        {"phase": "Suspended", "incarnations": {0: 1, 1: 1, 2: 1}},
        (
            *(gone(f"lm-{i}-0-11111", f"w-{i}-0", "the job is suspended") for i in range(3)),
            gone("lm-coordinator-1-11111", "c-1", "the job is suspended"),
        ),
    ),
]


@pytest.mark.parametrize("case", [*LIFE, *SUSPENSION, *REFUSED], ids=lambda c: c.name)
def test_life(case: Case) -> None:
    check(case)


def test_the_coordinator_of_a_job_that_a_newer_rule_refuses_is_told_what_holds() -> None:
    """Without its minimum an elastic job that goes on with fewer workers would wait for all."""
    view = refused(wishes={"min_workers": 2, "no_progress_seconds": 60})
    assert (roster(view).target, roster(view).minimum, roster(view).no_progress_seconds) == (3, 2, 60)
    assert (roster(replace(view, job=replace(view.job, deleting=True))).stop or "").endswith("deleted")


def over(succeeded: bool, seconds_ago: float, **fields: Any) -> TrainingJobStatus:
    first = plan(replaced(running(), ended(0, 0)) if succeeded else running(spec(activeDeadlineSeconds=1))).status
    return first.model_copy(update={"completion_time": ago(seconds_ago)} | fields)


AFTERWARDS = [
    Case("after success workers end by themselves", running(status=over(True, 30))),
    Case(
        "but are not waited for too long",
        running(status=over(True, 61)),
        {},
        (*(gone(f"lm-{i}-0-11111", f"w-{i}-0", OVER) for i in range(3)), gone("lm-coordinator-1-11111", "c-1", OVER)),
    ),
    Case(
        "but while they may still copy results to a URL",
        running(spec(storage={"url": "s3://bucket"}), status=over(True, 659)),
    ),
    Case(
        "and that has an end, too",
        running(spec(storage={"url": "s3://bucket"}), status=over(True, 661)),
        {},
        (*(gone(f"lm-{i}-0-11111", f"w-{i}-0", OVER) for i in range(3)), gone("lm-coordinator-1-11111", "c-1", OVER)),
    ),
    Case(
        "after failure even less",
        running(status=over(False, 16)),
        {},
        (*(gone(f"lm-{i}-0-11111", f"w-{i}-0", OVER) for i in range(3)), gone("lm-coordinator-1-11111", "c-1", OVER)),
    ),
    Case(
        "pods that never ran go at once",
        replaced(running(status=over(True, 1)), pending(1)),
        {},
        (gone("lm-1-0-11111", "w-1-0", OVER),),
    ),
    Case(
        "but not those whose launcher was heard before the kubelet told that they run: they save and print",
        replaced(running(status=over(True, 1)), pending(1, node="node1")),
    ),
    Case(
        "and one of them is enough for the coordinator to stay",
        replace(running(status=over(True, 1)), pods=(pending(0, node="node0"), coordinator())),
    ),
    Case(
        "even if it had been let go already",
        replaced(
            running(status=over(True, 1), report=report(joined=[], ready=[], members=[], released=["w-1-0"])),
            pending(1, node="node1"),
        ),
    ),
    Case(
        "without workers the coordinator goes; what ended stays for its log",
        replace(running(status=over(True, 1)), pods=(ended(0, 0), coordinator())),
        {},
        (gone("lm-coordinator-1-11111", "c-1", OVER),),
    ),
    Case(
        "nothing is created or counted any more",
        replace(running(status=over(True, 1)), pods=(ended(0, 0), ended(1, 70)), service=None),
        {"restarts": 0},
    ),
    Case(
        "a job whose spec a newer rule refuses is deleted in its time, too",
        replace(refused(wishes={"ttl_seconds_after_finished": 60}, status=over(True, 60)), pods=()),
        {},
        (DeleteJob("11111111-2222-3333-4444-555555555555"),),
    ),
    Case("the time to live runs", replace(running(spec(ttlSecondsAfterFinished=60), status=over(True, 59)), pods=())),
    Case(
        "and ends",
        replace(running(spec(ttlSecondsAfterFinished=60), status=over(True, 60)), pods=()),
        {},
        (DeleteJob("11111111-2222-3333-4444-555555555555"),),
    ),
]


@pytest.mark.parametrize("case", AFTERWARDS, ids=lambda c: c.name)
def test_afterwards(case: Case) -> None:
    check(case)
    assert plan(case.view).status == case.view.job.status


def test_a_job_that_rests_says_how_far_it_was() -> None:
    """The last step told, even if it was not written yet; and nothing that sounds as if it went on."""
    before = plan(running()).status
    assert before.progress is not None
    told = report(progress=Progress(step=40, steps=100, step_seconds=0.5, samples_per_second=9.0))
    found = plan(running(spec(suspend=True), status=before, report=told)).status
    assert found.progress is not None
    shown = found.progress
    assert (shown.step, shown.summary, shown.eta, shown.samples_per_second) == (41, "41%", "", None)
    assert "it was at step 41 of 100" in found.message
    later = running(spec(suspend=True), status=found, report=report(progress=Progress(step=60, steps=100)))
    assert plan(replace(later, now=NOW + timedelta(minutes=5))).status == found
    resumed = plan(replace(running(status=found), pods=(), report=None)).status
    assert resumed.progress is None
    slow = report(term=2, progress=Progress(step=0, steps=100))
    again = plan(
        replaced(running(status=resumed, report=slow), coordinator(2), without=("lm-coordinator-1-11111",))
    ).status
    assert (again.attempt, again.progress and again.progress.step) == (1, 1)  # from step 0, which is no setback


def test_a_job_that_rests_before_its_first_step_says_nothing_of_steps() -> None:
    found = plan(running(spec(suspend=True), report=report(progress=None))).status
    assert (found.progress, found.message) == (None, "spec.suspend is true")


def test_a_suspended_job_says_which_image_its_runtime_came_from_and_is_asked_anew_when_resumed() -> None:
    first = started().resolved
    assert first is not None
    status = started(
        resolved=first.model_copy(update={"runtime_image": "registry/drivetrain:1", "script": "lm-script"})
    )
    found = plan(running(spec(suspend=True), status=status)).status
    assert found.resolved is not None
    assert (found.resolved.runtime_image, found.resolved.script) == ("registry/drivetrain:1", None)
    me = Me(runtime_image="registry/drivetrain:2")
    resumed = plan(replace(running(status=found), pods=(), report=None, me=me)).status
    assert resumed.resolved is not None
    assert resumed.resolved.runtime_image == "registry/drivetrain:2"


def test_resuming_is_a_new_attempt_and_a_new_start() -> None:
    suspended = plan(running(spec(suspend=True))).status
    found = plan(replace(running(status=suspended), pods=(), report=None))
    assert (found.status.attempt, found.status.start_time, found.status.membership.term) == (1, NOW, 2)
    assert [e for e in found.effects if isinstance(e, CreateWorker)] == [
        CreateWorker(f"lm-{i}-1-11111", i, 1, 1) for i in range(3)
    ]
    assert (found.status.phase, found.status.membership.epoch, found.status.progress) == ("Pending", 0, None)
    assert conditions(found.status)["Suspended"] == "False JobResumed"
    assert "CoordinatorReplaced" not in {e.reason for e in found.effects if isinstance(e, RecordEvent)}


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize(
    ("phase", "seconds", "deleted"),
    [(PodPhase.RUNNING, 11.0, True), (PodPhase.RUNNING, 9.0, False), (PodPhase.SUCCEEDED, 99.0, False)],
)
def test_a_sidecar_keeps_no_pod_of_a_worker_that_has_ended(
    code: int, phase: PodPhase, seconds: float, deleted: bool
) -> None:
    """After success, and of a worker that was replaced."""
    pod = replace(ended(0, code), phase=phase)
    view = replaced(running(), pod)
    over = plan(replace(view, seen={(Sight.OVER, pod.uid): 0.0})).status
    later = replace(view, job=replace(view.job, status=over), seen={(Sight.OVER, pod.uid): seconds})
    found = plan(later)
    why = "its worker has ended, and another container goes on"
    assert (DeletePod(pod.name, pod.uid, why) in found.effects) is deleted
    assert deleted or phase is not PodPhase.RUNNING or found.requeue_after is not None
