"""What people see: obstacles, progress, events, the roster."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.messages import Progress
from drivetrain_api.places import STOCK, Place
from drivetrain_api.report import Incompatible, JobState, MemberReport
from drivetrain_api.status import Phase, RuntimeFound, TrainingJobStatus
from drivetrain_operator.plan.effects import CreateWorker, RecordEvent
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.policies.progress import duration
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import Refusal, RefusalKind, View
from unit.plan.builders import (
    NOW,
    ago,
    coordinator,
    ended,
    pending,
    process_failure,
    replaced,
    report,
    running,
    spec,
    started,
    worker,
)
from unit.plan.tables import conditions


def places(*operations: str | None) -> list[MemberReport]:
    """Members that are there."""
    return [
        MemberReport(
            rank=rank,
            process=f"p{rank}",
            pod_uid=f"w-{rank}-0",
            pid=1,
            start_ticks=1,
            step=9,
            place=Place(operation=each) if each is not None else None,
        )
        for rank, each in enumerate(operations)
    ]


@pytest.mark.parametrize(
    ("given", "operations", "before", "found"),
    [
        ("auto", (None, None), "", ""),
        ("auto", ("", None), "", ""),
        ("auto", (STOCK, None), "", "torchrun"),
        ("auto", ("step", "script"), "", "drivetrain"),
        ("auto", (), "torchrun", "torchrun"),
        ("torchrun", (), "", "torchrun"),
        ("drivetrain", (STOCK,), "", "drivetrain"),
    ],
)
def test_how_the_script_is_run_is_what_members_show_or_the_spec_says(
    given: str, operations: tuple[str | None, ...], before: RuntimeFound, found: str
) -> None:
    of = spec(runtime=given)
    view = running(of, status=started(of, runtime=before), report=report(members=places(*operations)))
    assert plan(view).status.runtime == found


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ("torchrun", "from its script's own last checkpoint, or from its beginning when"),
        ("drivetrain", "from its last run.save, or from step 0 when"),
        ("", "from its last run.save or checkpoint of its own, or from step 0 when"),
    ],
)
def test_what_a_suspended_job_goes_on_from_is_said_of_its_kind_of_script(runtime: RuntimeFound, words: str) -> None:
    told = report(progress=Progress(step=9), members=[])
    found = plan(running(spec(suspend=True), status=started(runtime=runtime), report=told)).status
    assert words in found.message
    assert found.runtime == runtime
    resumed = plan(replace(running(status=found), pods=(), report=None)).status
    assert (resumed.phase, resumed.runtime) == (Phase.PENDING, "")


def waiting(**fields: Any) -> View:
    """Worker 1 does not run yet, so two are ready."""
    ready = ["w-0-0", "w-2-0"]
    return replaced(running(report=report(ready=ready, joined=ready, world=2)), pending(1, **fields))


def refused(kind: RefusalKind, message: str = "because", **fields: Any) -> View:
    refusal = replace(Refusal("lm-1-0-11111", kind, message, 1, 0.0), **fields)
    return replace(replaced(waiting(), without=("lm-1-0-11111",)), refusals=(refusal,))


BACK_OFF = 'Back-off pulling image "nope": ErrImagePull: not found'
GPUS = spec(gpusPerWorker=4)
OBSTACLES: list[tuple[str, View, str, str]] = [
    (
        "a template that touches what is ours",
        running(spec(podTemplate={"spec": {"restartPolicy": "Always"}})),
        "InvalidTemplate",
        "spec.podTemplate.spec.restartPolicy: must be Never",
    ),
    (
        "a template that the server refuses",
        refused(RefusalKind.INVALID, "spec.containers[1].image: Required value"),
        "InvalidTemplate",
        "lm-1-0-11111: spec.containers[1].image: Required value",
    ),
    ("a name that is taken", refused(RefusalKind.NAME_CONFLICT), "NameConflict", "lm-1-0-11111: because"),
    ("a quota that is used up", refused(RefusalKind.QUOTA, "exceeded quota: team"), "QuotaExceeded", "exceeded quota"),
    ("admission that says no", refused(RefusalKind.FORBIDDEN), "Forbidden", "because"),
    (
        "an image that is not there",
        waiting(waiting_reason="ErrImagePull", waiting_message="not found"),
        "ImagePullFailed",
        "lm-1-0-11111 cannot pull its image: not found",
    ),
    (
        "the same, a moment later",
        waiting(waiting_reason="ImagePullBackOff", waiting_message=BACK_OFF),
        "ImagePullFailed",
        "lm-1-0-11111 cannot pull its image: not found",
    ),
    (
        "a ConfigMap that is not there",
        waiting(waiting_reason="CreateContainerConfigError", waiting_message="no code"),
        "CreateContainerConfigError",
        "lm-1-0-11111 cannot start: no code",
    ),
    (
        "GPUs that are not there",
        replace(waiting(unschedulable="0/3 nodes"), job=replace(waiting().job, spec=GPUS)),
        "Unschedulable",
        "1 of 3 workers cannot be placed, 4 nvidia.com/gpu missing: 0/3 nodes",
    ),
    ("no room", waiting(unschedulable="0/3 nodes"), "Unschedulable", "1 of 3 workers cannot be placed: 0/3 nodes"),
    (
        "an image of another release",
        running(report=report(incompatible=[Incompatible(pod_name="lm-1-0-11111", protocol_min=7, protocol_max=9)])),
        "IncompatibleWorkerImage",
        "lm-1-0-11111 speaks protocol 7 to 9, the coordinator 1",
    ),
    (
        "a failure just now",
        replaced(running(), ended(1, 137, reason="OOMKilled")),
        "OOMKilled",
        "2 of 3 workers are ready; last failure: OOMKilled: lm-1-0-11111",
    ),
    ("nothing but time", waiting(), "WorkersStarting", "2 of 3 workers are ready"),
]


@pytest.mark.parametrize(("name", "view", "reason", "words"), OBSTACLES, ids=[o[0] for o in OBSTACLES])
def test_an_obstacle_is_named(name: str, view: View, reason: str, words: str) -> None:
    found = plan(view)
    assert conditions(found.status)["Ready"] == f"False {reason}"
    assert words in found.status.message
    assert found.status.reason == reason
    warned = {e.reason for e in found.effects if isinstance(e, RecordEvent) and e.type == "Warning"}
    assert (reason in warned) is (reason != "WorkersStarting")


def test_what_was_refused_is_tried_again_in_its_time() -> None:
    create = CreateWorker("lm-1-0-11111", 1, 0, 0)
    quota = [refused(RefusalKind.QUOTA, count=3, age_seconds=age) for age in (3.9, 4.0)]
    invalid = refused(RefusalKind.INVALID, age_seconds=1e6)
    edited = replace(invalid, job=replace(invalid.job, generation=2))
    assert [create in plan(view).effects for view in (*quota, invalid, edited)] == [False, True, False, True]
    assert plan(quota[0]).requeue_after == pytest.approx(0.1)


def progressed(step: int, seconds_ago: float) -> tuple[int, bool]:
    """Step 10 of 1000 was written some time ago; now this step is reported. What is shown, and was it written?"""
    of = spec(training={"steps": 1000})
    first = plan(running(of, report=report(progress=Progress(step=9)))).status
    assert first.progress is not None
    before = first.model_copy(
        update={"progress": first.progress.model_copy(update={"last_update_time": ago(seconds_ago)})}
    )
    found = plan(running(of, status=before, report=report(progress=Progress(step=step - 1))))
    assert found.status.progress is not None
    return found.status.progress.step, found.status != before


@pytest.mark.parametrize(
    ("step", "seconds_ago", "expected"),
    [
        (20, 10, (20, True)),  # a percent has passed
        (20, 9, (10, False)),  # but at most every 10 s
        (19, 59, (10, False)),  # no percent has passed
        (19, 60, (19, True)),  # but at least every 60 s
        (10, 600, (10, False)),  # nothing to say
        (9, 600, (10, False)),  # another rank tells, one step late
    ],
)
def test_progress_is_written_when_it_is_worth_it(step: int, seconds_ago: float, expected: tuple[int, bool]) -> None:
    assert progressed(step, seconds_ago) == expected


def test_what_rank_0_says_of_the_first_step_does_not_wait() -> None:
    """That a step was made is known before its loss, and before how many there will be, if the script says so."""
    first = plan(running(report=report(progress=Progress(step=0)))).status
    full = report(progress=Progress(step=0, steps=2000, loss=2.5))
    shown = plan(running(status=first, report=full)).status.progress
    assert shown is not None
    assert (shown.loss, shown.percent) == (2.5, 0)


def test_progress_is_shown_as_people_read_it() -> None:
    told = Progress(step=249, steps=1000, loss=1.23456789, samples_per_second=float("inf"), step_seconds=10.0)
    shown = plan(running(report=report(progress=told))).status.progress
    assert shown is not None
    assert shown.last_update_time == NOW
    assert shown.model_dump(exclude_none=True, exclude={"last_update_time"}) == {
        "step": 250,
        "steps": 1000,
        "percent": 25,
        "summary": "25%",
        "eta_seconds": 7500,
        "eta": "2h5m",
        "loss": 1.2346,
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0s"), (59, "59s"), (60, "1m"), (3661, "1h1m"), (90061, "1d1h"), (7200, "2h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


SHOWN = plan(running()).status
STARTING = coordinator(started=ago(1))
PENDING_COORDINATOR = coordinator(started=None)
PHASES: list[tuple[str, View, str, str]] = [
    ("trains", running(), "Running", "True Training"),
    ("re-forms", running(status=SHOWN, report=report(state=JobState.FORMING)), "Waiting", "False MembershipForming"),
    ("waits", running(report=report(state=JobState.WAITING, progress=None)), "Pending", "False WaitingForWorkers"),
    ("completes", running(report=report(state=JobState.COMPLETING)), "Running", "True Completing"),
    ("no coordinator yet", replaced(running(report=None), STARTING), "Pending", "False CoordinatorStarting"),
    ("between two coordinators", running(status=SHOWN, report=report(age=3.1)), "Running", "True Training"),
    (
        "silent for long",
        replaced(running(status=SHOWN, report=report(age=16)), PENDING_COORDINATOR),
        "Running",
        "Unknown CoordinatorSilent",
    ),
    (
        "a new operator, not yet told",
        replace(running(status=SHOWN, report=None), serving_seconds=3.0),
        "Running",
        "True Training",
    ),
]


@pytest.mark.parametrize(("name", "view", "phase", "condition"), PHASES, ids=[p[0] for p in PHASES])
def test_phase(name: str, view: View, phase: str, condition: str) -> None:
    found = plan(view).status
    assert (found.phase, conditions(found)["Running"]) == (phase, condition)


SILENT = report(age=16)
WAITED = plan(running(status=SHOWN, report=report(state=JobState.WAITING, ready=["w-0-0", "w-2-0"]))).status
READY: list[tuple[str, View, str, int, str]] = [
    ("silent for a moment", running(status=SHOWN, report=report(age=14)), "True AllWorkersReady", 3, ""),
    ("between two coordinators", replaced(running(status=SHOWN, report=report(age=4)), STARTING), "True ", 3, ""),
    ("silent", running(status=SHOWN, report=SILENT), "Unknown CoordinatorSilent", 3, "3 of 3 workers were ready when"),
    (
        "silent, and a worker's node is gone",
        replaced(running(status=SHOWN, report=SILENT), worker(1, deleting=True)),
        "Unknown CoordinatorSilent",
        2,
        "2 of 3 workers were ready when one did, and are there still; training probably goes on",
    ),
    (
        "never heard by this operator",
        replace(running(status=SHOWN, report=None), serving_seconds=16.0),
        "Unknown CoordinatorSilent",
        3,
        "no coordinator has reported for a while",
    ),
    (
        "silent while it waited",
        running(status=WAITED, report=report(age=16, state=JobState.WAITING, ready=["w-0-0", "w-2-0"])),
        "Unknown CoordinatorSilent",
        2,
        "2 of 3 workers were ready when one did, and are there still",
    ),
    (
        "silent, and a pod says what it lacks",
        replaced(running(status=SHOWN, report=SILENT), pending(1, waiting_reason="ErrImagePull")),
        "False ImagePullFailed",
        3,
        "cannot pull",
    ),
    (
        "an operator that has just come",
        replace(running(status=SHOWN, report=None), serving_seconds=3.0),
        "True AllWorkersReady",
        3,
        "",
    ),
    (
        "between two coordinators, and a worker's successor waits for a node",
        replaced(
            running(status=SHOWN.model_copy(update={"incarnations": {1: 1}}), report=None),
            pending(1, 1),
            without=("lm-1-0-11111",),
        ),
        "Unknown CoordinatorSilent",
        2,
        "2 of 3",
    ),
]


@pytest.mark.parametrize(("name", "view", "ready", "count", "words"), READY, ids=[case[0] for case in READY])
def test_who_is_ready_is_not_claimed_of_a_coordinator_that_is_not_heard(
    name: str, view: View, ready: str, count: int, words: str
) -> None:
    found = plan(view).status
    assert conditions(found)["Ready"].startswith(ready)
    assert (found.workers.ready, words in found.message) == (count, True)
    assert found.phase == view.job.status.phase


def test_a_silence_that_lasts_is_written_once() -> None:
    view = running(status=SHOWN, report=SILENT)
    found = plan(view).status
    assert plan(replace(view, job=replace(view.job, status=found), now=NOW + timedelta(hours=1))).status == found


def test_silence_is_looked_at_when_it_is_long_enough() -> None:
    """Nothing happens meanwhile that would bring a pass."""
    after = plan(running(status=SHOWN, report=report(age=14))).requeue_after
    assert after is not None
    assert after <= 1.0


def test_counts() -> None:
    status = plan(replaced(waiting(), worker(2, deleting=True))).status
    counts = status.workers
    # The successor of the one that goes is made in this pass, and counted.
    assert (counts.target, counts.current, counts.ready, counts.world, counts.summary) == (3, 3, 1, 2, "1/3")
    assert status.selector.endswith("role=worker")


def events(view: View) -> list[tuple[str, str]]:
    return [(e.type, e.reason) for e in plan(view).effects if isinstance(e, RecordEvent)]


EVENTS: list[tuple[str, View, list[tuple[str, str]]]] = [
    ("nothing new", running(status=SHOWN), []),
    (
        "a new job",
        replace(running(status=TrainingJobStatus()), pods=(), service=None, report=None),
        [("Normal", "Started")],
    ),
    ("a failure", running(status=SHOWN, report=report(failures=[process_failure(0, 0)])), [("Warning", "ScriptError")]),
    (
        "a recovery",
        running(status=SHOWN, report=report(recoveries=1, last_recovery_seconds=0.1)),
        [("Normal", "Recovered")],
    ),
    (
        "a lost coordinator",
        replaced(running(status=SHOWN), coordinator(deleting=True)),
        [("Warning", "CoordinatorReplaced")],
    ),
    ("scaled", running(spec(workers=2), status=SHOWN), [("Normal", "Scaled")]),
    ("suspended", running(spec(suspend=True), status=SHOWN), [("Normal", "JobSuspended")]),
    ("succeeded", replaced(running(status=SHOWN), ended(0, 0)), [("Normal", "Completed")]),
    ("failed", running(spec(activeDeadlineSeconds=1), status=SHOWN), [("Warning", "DeadlineExceeded")]),
    ("state lost", running(status=SHOWN, report=report(state_lost=1)), [("Warning", "NoSurvivor")]),
]


@pytest.mark.parametrize(("name", "view", "expected"), EVENTS, ids=[e[0] for e in EVENTS])
def test_events_follow_changes(name: str, view: View, expected: list[tuple[str, str]]) -> None:
    assert events(view) == expected
    assert events(replace(view, job=replace(view.job, status=plan(view).status))) == []


def test_that_training_began_is_told_once_whatever_was_reported_before() -> None:
    """It was not if the membership had been reported while it formed."""
    forming = report(state=JobState.FORMING, progress=None)
    status, told = started(), []
    for heard in (forming, forming, report(progress=None), report(), report(state=JobState.FORMING), report()):
        view = running(status=status, report=heard)
        told += [reason for _, reason in events(view)]
        status = plan(view).status
    assert told == ["Training"]


def test_an_event_carries_the_end_of_a_long_traceback() -> None:
    tail = "Traceback (most recent call last):\n" + "x" * 3000 + "\nValueError: here"
    view = running(status=SHOWN, report=report(failures=[process_failure(0, 0, log_tail=tail)]))
    (event,) = [e for e in plan(view).effects if isinstance(e, RecordEvent)]
    assert len(event.message) <= 1000
    assert event.message.endswith("ValueError: here")


def test_the_roster_is_what_kubernetes_knows() -> None:
    view = replaced(
        running(spec(workers=4, elastic={"minWorkers": 2, "maxWorkers": 4}), status=started(incarnations={1: 1})),
        worker(1),
        worker(1, 1),
        worker(2, deleting=True),
        ended(0, 70),
        worker(9),
        without=("lm-3-0-11111",),
    )
    view = replace(view, report=report(joined=["w-0-0", "w-3-0"]))
    assert roster(view).proven_dead == ["w-0-0"]  # that the cache lacks one is no proof
    found = roster(replace(view, absent=frozenset({"w-3-0", "lm-3-0-11111"})))
    assert (found.term, found.target, found.minimum, found.stop) == (1, 3, 2, None)
    assert {p.name: p.draining for p in found.pods} == {
        "lm-1-0-11111": True,
        "lm-1-1-11111": False,
        "lm-2-0-11111": True,
        "lm-9-0-11111": True,
    }
    assert found.proven_dead == ["w-0-0", "w-3-0"]


def test_without_elastic_every_worker_is_needed() -> None:
    assert roster(running()).minimum == 3


STOPS: list[tuple[View, str | None]] = [
    (running(), None),
    (running(status=plan(replaced(running(), ended(0, 0))).status), None),
    (running(status=plan(running(spec(activeDeadlineSeconds=1))).status), "DeadlineExceeded: "),
    (running(status=plan(running(spec(suspend=True))).status), "the job is suspended"),
    (replace(running(), job=replace(running().job, deleting=True)), "the job is being deleted"),
]


@pytest.mark.parametrize(("view", "expected"), STOPS, ids=["runs", "complete", "failed", "suspended", "deleted"])
def test_when_the_coordinator_is_to_stop(view: View, expected: str | None) -> None:
    stop = roster(view).stop
    assert (stop is None) is (expected is None)
    assert expected is None or (stop or "").startswith(expected)
