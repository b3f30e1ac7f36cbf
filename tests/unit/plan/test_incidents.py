"""What is charged, once, and for how long it counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from drivetrain_api.messages import OUT_OF_MEMORY, Progress
from drivetrain_api.report import Failure, JobState
from drivetrain_api.status import MAX_CHARGES, Budget, Charge, TrainingJobStatus
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.view import PodView, View
from unit.plan.builders import NOW, ago, ended, process_failure, replaced, report, running, spec, started, worker
from unit.plan.tables import conditions

HOUR = 3600


class Story:
    """A job in which processes fail now and then, each from a cause of its own."""

    def __init__(self, max_restarts: int, window: int = HOUR) -> None:
        self.spec = spec(recovery={"maxRestarts": max_restarts, "restartWindowSeconds": window})
        self.status = started(self.spec)
        self.now: datetime = NOW
        self.step = 9
        self.failures: list[Failure] = []

    def goes_on(self, seconds: float, step: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.step = step
        self.look()

    def fails(self) -> None:
        number = len(self.failures)
        one = process_failure(number, number, process=f"p{number}", log_tail=f"ValueError: {number}", step=self.step)
        self.failures.append(one)
        self.look()

    def look(self) -> None:
        told = report(failures=self.failures[-20:], progress=Progress(step=self.step))
        view = replace(running(self.spec, status=self.status, report=told), now=self.now)
        self.status = plan(view).status


def test_failures_of_a_month_that_have_nothing_to_do_with_each_other_do_not_end_a_job() -> None:
    story = Story(max_restarts=3)
    for day in range(1, 31):
        story.fails()
        story.goes_on(24 * HOUR, 1000 * day)
    assert not story.status.finished
    assert (story.status.restarts, story.status.budget) == (30, Budget(used=0, summary="0 of 3"))


@pytest.mark.parametrize("seconds", [1, 20 * 60, 24 * HOUR])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_a_job_that_comes_no_further_ends_however_slowly_it_fails(seconds: int, steps: int) -> None:
    """One step between two crashes costs a whole machine for as long as that step takes."""
    story = Story(max_restarts=3)
    for _ in range(3):
        story.fails()
        assert not story.status.finished
        story.goes_on(seconds, story.step + steps)
    assert story.status.budget.summary == "3 of 3"
    story.fails()
    assert conditions(story.status)["Failed"] == "True ProcessExited"
    assert "4 incidents, spec.recovery.maxRestarts allows 3" in story.status.message


def test_a_job_that_comes_back_to_the_same_place_ends() -> None:
    """It goes on from a save each time, and trains the 500 steps up to the crash anew."""
    story = Story(max_restarts=3)
    for _ in range(4):
        story.goes_on(2 * HOUR, 1000)
        story.goes_on(2 * HOUR, 1500)
        story.fails()
        lost = story.status.model_copy(update={"progress": None})
        story.status = lost
    assert story.status.finished


def test_many_steps_in_a_moment_are_not_enough() -> None:
    story = Story(max_restarts=3)
    for _ in range(4):
        story.fails()
        story.goes_on(60, story.step + 100_000)
    assert story.status.finished


def charged(seconds_ago: float, step: int, incidents: int = 2) -> TrainingJobStatus:
    charges = [Charge(time=ago(seconds_ago), step=step, incidents=incidents)]
    return started(budget=Budget(charges=charges, used=incidents), restarts=incidents)


@pytest.mark.parametrize(
    ("name", "status", "step", "used"),
    [
        ("long past", charged(HOUR, 100), 199, 0),
        ("a step too few", charged(HOUR, 100), 198, 2),
        ("a second too early", charged(HOUR - 1, 100), 10_000, 2),
        ("the clock of another replica was ahead", charged(-60, 100), 10_000, 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_when_an_incident_lies_behind(name: str, status: TrainingJobStatus, step: int, used: int) -> None:
    found = plan(running(status=status, report=report(progress=Progress(step=step)))).status
    assert (found.budget.used, found.restarts) == (used, 2)
    assert len(found.budget.charges) == (1 if used else 0)


def test_without_a_word_of_steps_every_incident_counts() -> None:
    found = plan(running(status=charged(24 * HOUR, 0), report=report(progress=None))).status
    assert found.budget.used == 2


def test_none_is_allowed_where_none_is() -> None:
    story = Story(max_restarts=0)
    story.fails()
    assert story.status.finished
    assert "1 incident, spec.recovery.maxRestarts allows 0" in story.status.message


def test_what_status_keeps_of_it_is_bounded_and_still_comes_back() -> None:
    """One a minute for a day, in a job that may fail a thousand times an hour."""
    story = Story(max_restarts=1000)
    for _ in range(24 * 60):
        story.fails()
        story.goes_on(60, story.step + 100)
        assert len(story.status.budget.charges) <= MAX_CHARGES
        assert TrainingJobStatus.model_validate(status_json(story.status)) == story.status
    assert not story.status.finished
    assert 60 <= story.status.budget.used <= 66  # an hour, and a piece of one


def test_nothing_is_forgotten_of_those_that_wait_for_steps() -> None:
    story = Story(max_restarts=1000)
    for _ in range(200):
        story.fails()
        story.goes_on(600, story.step)
    assert (story.status.budget.used, len(story.status.budget.charges)) == (200, MAX_CHARGES)


PROCESS = process_failure(0, 0, exit_code=None, signal=9, log_tail=f"step 7\n{OUT_OF_MEMORY}")
POD = ended(1, 137, reason="OOMKilled")


def seen(status: TrainingJobStatus, seconds: float, pod: PodView | None, failures: list[Failure]) -> View:
    view = replace(running(status=status, report=report(failures=failures)), now=NOW + timedelta(seconds=seconds))
    return replaced(view, pod, without=("lm-1-0-11111",)) if pod is not None else view


@pytest.mark.parametrize("later", [0, 1, 10])
@pytest.mark.parametrize("pod_first", [True, False])
@pytest.mark.parametrize("pod", [POD, ended(1, 137), ended(1, 70)], ids=["OOMKilled", "Killed", "LauncherCrashed"])
def test_a_process_that_ends_with_its_pod_is_one_incident(later: float, pod_first: bool, pod: PodView) -> None:
    """The launcher tells of its rank, the kubelet of both; whichever is heard first."""
    first = plan(seen(started(), 0, pod if pod_first else None, [] if pod_first else [PROCESS])).status
    assert first.restarts == 1
    after = worker(1, 1) if pod_first else pod
    both = plan(seen(first, later, after, [PROCESS])).status
    assert (both.restarts, [each.counted for each in both.failures]) == (1, [True, False])
    assert both.budget.used == 1


def test_in_one_pass_too() -> None:
    assert plan(seen(started(), 0, POD, [PROCESS])).status.restarts == 1


def test_all_ranks_out_of_memory_with_their_pods_are_one_incident() -> None:
    ranks = [
        process_failure(
            n, 0, pod_name=f"lm-{n}-0-11111", pod_uid=f"w-{n}-0", exit_code=None, signal=9, log_tail=OUT_OF_MEMORY
        )
        for n in range(3)
    ]
    view = replaced(running(report=report(failures=ranks)), *(ended(n, 137, reason="OOMKilled") for n in range(3)))
    assert plan(view).status.restarts == 1


def test_a_pod_that_ends_later_or_beside_is_an_incident_of_its_own() -> None:
    first = plan(seen(started(), 0, None, [PROCESS])).status
    assert plan(seen(first, 16, ended(1, 70), [PROCESS])).status.restarts == 2
    beside = replaced(running(status=first, report=report(failures=[PROCESS])), ended(2, 70))
    assert plan(beside).status.restarts == 2


def test_what_drivetrain_ended_itself_pays_for_no_pod() -> None:
    remedy = process_failure(0, -1, exit_code=75, remedy="out of step", log_tail="drivetrain: out of step")
    first = plan(seen(started(), 0, None, [remedy])).status
    assert first.restarts == 0
    assert plan(seen(first, 1, ended(1, 70), [remedy])).status.restarts == 1


def outage(step: float, workers: int = 64, successors: bool = False) -> TrainingJobStatus:
    """Workers end one after the other, so many seconds apart, for one reason. `successors`: it is one slot, again and
    again."""
    of = spec(workers=workers, recovery={"maxRestarts": 1000})
    status = started(of)
    for n in range(workers):
        index, incarnation = (0, n) if successors else (n, 0)
        view = replace(running(of, status=status, report=None), now=NOW + timedelta(seconds=step * n))
        pods = tuple(worker(i, status.incarnations.get(i, 0)) for i in range(workers) if i != index)
        view = replaced(replace(view, pods=(*pods, ended(index, 1, incarnation, tail=f"it is {n}"))))
        status = plan(view).status
        assert status.incarnations.get(index) == incarnation + 1
    return TrainingJobStatus.model_validate(status_json(status))


@pytest.mark.parametrize(
    ("name", "status", "restarts"),
    [
        ("all within a minute", outage(2, 31), 1),
        ("one after the other for two minutes", outage(2, 64), 3),
        ("each by itself", outage(6, 5), 5),
        ("a crash loop", outage(4, 12, successors=True), 12),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_outage_is_one_incident_and_a_crash_loop_is_none(
    name: str, status: TrainingJobStatus, restarts: int
) -> None:
    assert (status.restarts, status.budget.used) == (restarts, restarts)


def test_what_fails_after_all_state_was_lost_lies_where_the_job_had_been() -> None:
    """Nobody tells of steps then: the charge was forgiven with the first step."""
    before = plan(running(report=report(progress=Progress(step=4999)))).status
    waiting = report(state_lost=1, progress=None, world=0, state=JobState.WAITING, members=[], joined=[], ready=[])
    lost = plan(running(status=before, report=waiting)).status
    assert (lost.attempt, lost.progress, lost.budget.steps) == (1, None, 5000)
    failed = plan(replaced(running(status=lost, report=waiting), ended(0, 137, reason="OOMKilled"))).status
    assert failed.budget.charges == [Charge(time=NOW, step=5000)]
    later = running(status=failed, report=report(state_lost=1, progress=Progress(step=4800)))
    found = plan(replace(later, now=NOW + timedelta(days=1))).status
    assert found.budget.used == 1
    past = running(status=found, report=report(state_lost=1, progress=Progress(step=5099)))
    assert plan(replace(past, now=NOW + timedelta(days=2))).status.budget.used == 0


def test_a_coordinator_that_comes_after_the_loss_finds_it_the_same() -> None:
    before = plan(running(report=report(progress=Progress(step=4999)))).status
    found = plan(running(status=before, report=report(progress=Progress(step=100)))).status
    assert (found.attempt, found.budget.steps) == (1, 5000)


def test_a_job_that_is_resumed_has_its_whole_budget() -> None:
    """Its script was mended, and its save lies before the place at which it failed."""
    before = charged(60, 5000).model_copy(update={"budget": charged(60, 5000).budget.model_copy(update={"steps": 7})})
    rests = plan(running(spec(suspend=True), status=before)).status
    assert rests.budget.charges
    resumed = plan(replace(running(status=rests), pods=(), report=None)).status
    assert (resumed.budget, resumed.restarts) == (Budget(summary="0 of 10"), 2)
