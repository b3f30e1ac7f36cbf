"""A membership that trains and does not move: what status, events and the roster say of it, and how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivetrain_api.messages import KILLED, NO_PROGRESS, Progress
from drivetrain_api.places import Call, Look, Standstill
from drivetrain_api.report import JobState
from drivetrain_api.status import MAX_LOG_TAIL, ConditionType, TrainingJobStatus
from drivetrain_operator.metrics.jobs import samples
from drivetrain_operator.plan.effects import RecordEvent
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import View
from unit.plan.builders import NOW, ago, condition, pending, process_failure, replaced, report, running, spec
from unit.plan.tables import conditions

SENTENCE = (
    "no progress for more than 5 s at step 10: rank 1 (lm-1-0-11111) is at train.py:57 between operations, "
    "and 2 ranks wait for it"
)
TOLD = SENTENCE.replace("(lm-1-0-11111)", "(lm-1-0-11111 on node1)")
STILL = Standstill(message=SENTENCE, seconds=5.2, late=[1])
MOVING = plan(running()).status


def stands(status: TrainingJobStatus = MOVING, still: Standstill | None = STILL, **fields: Any) -> View:
    return running(status=status, report=report(standstill=still, **fields))


def since(seconds: float, status: TrainingJobStatus | None = None) -> TrainingJobStatus:
    """It has been told for so long."""
    told = status if status is not None else plan(stands()).status
    changed = condition(told, "StandingStill").model_copy(update={"last_transition_time": ago(seconds)})
    return told.model_copy(update={"conditions": [changed if c.type == changed.type else c for c in told.conditions]})


def test_it_is_a_condition_and_the_reason_of_the_phase() -> None:
    found = plan(stands()).status
    assert condition(found, "StandingStill").message == TOLD
    assert (found.phase, found.reason, found.message) == ("Running", "StandingStill", TOLD)
    assert conditions(found)["StandingStill"] == "True RanksLate"
    assert conditions(found)["Running"] == "True Training"


CASES: list[tuple[str, View, str, str]] = [
    ("a job that moves says nothing", running(status=MOVING), "", ""),
    ("all wait", stands(still=STILL.model_copy(update={"late": []})), "True AllRanksWait", "StandingStill"),
    ("it moves again at once", stands(since(9), None), "True RanksLate", "StandingStill"),
    ("it moves again", stands(since(10), None), "False Moving", ""),
    ("it forms anew", stands(since(3), None, state=JobState.FORMING), "False Moving", ""),
    (
        "between two coordinators",
        running(status=since(60), report=None, serving_seconds=3.0),
        "True RanksLate",
        "StandingStill",
    ),
    (
        "a coordinator that is silent for long",
        stands(since(60), age=16.0),
        "Unknown CoordinatorSilent",
        "CoordinatorSilent",
    ),
    ("suspended", running(spec(suspend=True), status=since(60)), "False JobSuspended", "JobSuspended"),
    ("failed", running(spec(activeDeadlineSeconds=1), status=since(60)), "False DeadlineExceeded", "DeadlineExceeded"),
]


@pytest.mark.parametrize(("name", "view", "kind", "reason"), CASES, ids=[case[0] for case in CASES])
def test_what_status_says(name: str, view: View, kind: str, reason: str) -> None:
    found = plan(view).status
    assert (conditions(found).get("StandingStill", ""), found.reason) == (kind, reason)
    assert (found.message == TOLD) is (reason == "StandingStill")


def test_what_keeps_a_worker_away_is_the_better_reason() -> None:
    view = replaced(stands(ready=["w-0-0", "w-2-0"]), pending(1, unschedulable="0/3 nodes"))
    found = plan(view).status
    assert found.reason == "Unschedulable"
    assert conditions(found)["StandingStill"] == "True RanksLate"


def test_it_is_written_when_it_begins_at_milestones_and_when_it_ends() -> None:
    """Reports come every second, with other seconds in them each time."""
    status, written = MOVING, []
    for second in range(120):
        span = "5 s" if second < 30 else "30 s" if second < 60 else "1 min"
        still = Standstill(message=SENTENCE.replace("5 s", span), seconds=5.2 + second, late=[1])
        view = replace(stands(status, still), now=NOW)
        new = plan(view).status
        if status_json(new) != status_json(status):
            written.append(second)
        status = new
    assert written == [0, 30, 60]


def test_progress_is_written_with_it() -> None:
    """Else `kubectl get` shows a step of up to a minute ago beside a sentence that names another."""
    moved = Progress(step=10, steps=100, loss=2.5, step_seconds=0.5)
    assert MOVING.progress is not None
    steps = []
    for still in (None, STILL):
        progress = plan(stands(still=still, progress=moved)).status.progress
        steps.append(progress and progress.step)
    assert steps == [MOVING.progress.step, 11]


def test_a_job_that_stops_and_goes_is_not_written_with_every_stop() -> None:
    asked = plan(stands(since(2), None))
    assert asked.status == since(2)
    assert asked.requeue_after is not None
    assert asked.requeue_after <= 8.0


def events(view: View) -> list[tuple[str, str, str]]:
    return [(e.type, e.reason, e.message) for e in plan(view).effects if isinstance(e, RecordEvent)]


def test_one_event_tells_of_it() -> None:
    assert events(stands()) == [("Warning", "StandingStill", TOLD)]
    longer = STILL.model_copy(update={"message": SENTENCE.replace("5 s", "1 min")})
    assert events(stands(since(60), longer)) == []
    assert events(stands(since(60), None)) == []


CALL = Call(operation="all-reduce", number=811, state="done", step=9)
LOOK = Look(rank=1, process="w-1-0/b/1", where="train.py:57 in load", stack="x" * 3000 + "in load", calls=[CALL])
SEEN = STILL.model_copy(update={"looks": [LOOK]})


def test_where_the_late_rank_is_stands_in_status_and_in_one_event() -> None:
    found = plan(stands(still=SEEN)).status
    (late,) = found.late_ranks
    assert (late.rank, late.pod, late.node, late.where) == (1, "lm-1-0-11111", "node1", "train.py:57 in load")
    assert late.collective == "all-reduce #811, done"
    assert late.stack.endswith("in load")
    told = [event for event in events(stands(still=SEEN)) if event[1] == "RankLate"]
    assert [event[2].split("; ")[0] for event in told] == [
        "rank 1 in pod lm-1-0-11111 on node node1 holds the others up at train.py:57 in load"
    ]
    assert told[0][2].endswith("in load")
    assert [event for event in events(stands(since(60, found), SEEN)) if event[1] == "RankLate"] == []


def test_who_held_the_others_up_is_forgotten_when_all_move() -> None:
    found = plan(stands(still=SEEN)).status
    assert plan(stands(since(60, found), None)).status.late_ranks == []
    assert plan(running(spec(suspend=True), status=since(60, found))).status.late_ranks == []


def metric(status: TrainingJobStatus) -> bool:
    meta = {"namespace": "ns", "name": "lm", "uid": "u"}
    (sample,) = samples([{"metadata": meta, "status": status_json(status)}])
    return sample.standing_still


def test_metrics_tell_of_it() -> None:
    assert [metric(MOVING), metric(plan(stands()).status)] == [False, True]


STACK = 'Thread MainThread, which runs the script:\n  File "train.py", line 57, in main\n    time.sleep(1000)'
WHY = SENTENCE.replace("more than 5 s", "30 s") + " (recovery.noProgressSeconds)"


def test_the_end_of_a_late_rank_has_its_own_reason_its_stack_and_its_price() -> None:
    tail = f"{'x' * 5000}\n{STACK}\n{KILLED}{NO_PROGRESS}: {WHY}"
    killed = process_failure(0, 0, exit_code=None, signal=9, log_tail=tail)
    found = plan(running(status=MOVING, report=report(failures=[killed])))
    (failure,) = found.status.failures
    assert (failure.reason, failure.rank, failure.counted, found.status.restarts) == (NO_PROGRESS, 1, True, 1)
    assert len(failure.log_tail) == MAX_LOG_TAIL
    assert failure.log_tail.endswith(f"{STACK}\n{KILLED}{NO_PROGRESS}: {WHY}")
    (event,) = [e for e in found.effects if isinstance(e, RecordEvent)]
    assert (event.type, event.reason) == ("Warning", NO_PROGRESS)
    assert event.message.startswith(f"{NO_PROGRESS}: {WHY}")


def test_beyond_the_budget_it_is_why_the_job_failed() -> None:
    of = spec(recovery={"maxRestarts": 0})
    tail = f"{STACK}\n{KILLED}{NO_PROGRESS}: {WHY}"
    killed = process_failure(0, 0, exit_code=None, signal=9, log_tail=tail)
    found = plan(running(of, status=MOVING, report=report(failures=[killed]))).status
    failed = condition(found, ConditionType.FAILED)
    assert (failed.status, failed.reason) == ("True", NO_PROGRESS)
    assert failed.message.endswith(f"last: {NO_PROGRESS}: {WHY}")


@pytest.mark.parametrize(
    "tail",
    [
        f"{KILLED}stopped (SIGSTOP) for 0.5 s",
        f"{NO_PROGRESS}: says the script",
        f"{KILLED}{NO_PROGRESS}: said the script, and went on\nlast words",
    ],
)
def test_only_its_launchers_last_word_counts(tail: str) -> None:
    killed = process_failure(0, 0, exit_code=None, signal=9, log_tail=tail)
    (failure,) = plan(running(status=MOVING, report=report(failures=[killed]))).status.failures
    assert failure.reason == "ProcessKilled"


@pytest.mark.parametrize("seconds", [None, 30])
def test_the_coordinator_is_told_the_limit(seconds: int | None) -> None:
    of = spec(recovery={} if seconds is None else {"noProgressSeconds": seconds})
    assert roster(running(of)).no_progress_seconds == seconds
