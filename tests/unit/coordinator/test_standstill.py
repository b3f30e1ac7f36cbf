"""When is a membership said to stand still, what is said, and when does it end? On the bench, with time as told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drivetrain_api.messages import (
    NO_PROGRESS,
    Boundary,
    Kill,
    ProcessPhase,
)
from drivetrain_api.places import Place, Standstill
from drivetrain_api.report import JobState
from drivetrain_coordinator.membership import Tick
from drivetrain_coordinator.metrics import JobMetrics
from unit.coordinator.bench import Bench, forms, only_form, seats

STEP, SCRIPT, SAVE = "step@train.py:24", "script@train.py:57", "save@train.py:31"
WAITS_FOR_B = "rank 1 (b) is at train.py:57 between operations, and rank 0 waits for it in run.step (train.py:24)"


def trained(names: str = "a1 b1", step_seconds: float = 0.5, steps: int = 8, limit: float | None = None) -> Bench:
    """A job that has trained so many steps of such a length."""
    bench = Bench()
    bench.train(*names.split(), minimum=1)
    pods = "".join(name[0] for name in names.split())
    bench.roster(pods, len(pods), 1, no_progress_seconds=limit)
    for step in range(1, steps + 1):
        bench.wait(step_seconds, heard=pods, tick=2.0)
        bench.change(*names.split(), step=step)
    return bench


def late(bench: Bench) -> Bench:
    """b stays in its script; a waits for it."""
    bench.at("a1", f"{STEP} w")
    bench.at("b1", SCRIPT)
    return bench


def told(bench: Bench) -> Standstill | None:
    return bench.machine.report(1).standstill


def killed(answers: list[object]) -> dict[str, bool]:
    """Processes that are to be killed, and whether their stacks are wanted."""
    return {order.process: order.stacks for order in answers if isinstance(order, Kill)}


# --- what is told, and when -------------------------------------------------------------------------------------


def test_a_late_rank_is_named_within_seconds() -> None:
    bench = late(trained())
    bench.wait(4.5, heard="ab")
    assert told(bench) is None
    bench.wait(1, heard="ab")
    report = bench.machine.report(1)
    assert report.state is JobState.TRAINING
    assert report.standstill == Standstill(
        message=f"no progress for more than 5 s at step 9: {WAITS_FOR_B}", seconds=5.5, late=[1]
    )
    assert [(m.place and m.place.operation, m.waiting) for m in report.members] == [("step", True), ("script", False)]


def test_the_words_change_at_milestones_only() -> None:
    """Also when the late rank goes from line to line, and waits now and then: each change is a write of status."""
    bench = late(trained())
    said = set()
    for second in range(29):
        bench.wait(1, heard="ab")
        there = Place(operation="script", line=f"train.py:{second}", number=bench._number)
        bench.change("b1", place=there, waiting=second % 2 == 1)
        standstill = told(bench)
        said.add(standstill and standstill.message.split(" at step")[0])
    assert said == {None, "no progress for more than 5 s", "no progress for more than 10 s"}


def test_it_is_over_when_all_move() -> None:
    bench = late(trained())
    bench.wait(6, heard="ab")
    assert told(bench)
    bench.at("b1", STEP)
    bench.wait(1, heard="ab")
    assert told(bench)  # one that moves is not enough: it may go round in circles
    bench.change("a1", "b1", step=9)
    bench.wait(0.25, heard="ab")
    assert told(bench) is None


PATIENCE: list[tuple[str, Callable[[], Bench], str, str, float]] = [
    ("a usual step of half a second", trained, f"{STEP} w", SCRIPT, 5),
    ("a usual step of three seconds", lambda: trained(step_seconds=3), f"{STEP} w", SCRIPT, 15),
    ("a usual step of six seconds", lambda: trained(step_seconds=6), f"{STEP} w", SCRIPT, 24),
    ("the first step of a membership", lambda: trained(steps=0), f"{STEP} w", SCRIPT, 60),
    ("one evaluates, the others are done with it", trained, "evaluate@t.py:1 w", "evaluate@t.py:1", 60),
    ("one saves, the others wait", trained, f"{SAVE} w", SAVE, 60),
    ("the others have finished", trained, "finish@t.py:9 w", SCRIPT, 60),
    ("all work at something", trained, SCRIPT, SCRIPT, 60),
    ("all work at a step", trained, STEP, STEP, 5),
    ("all wait for one another", trained, f"{SAVE} w", f"{STEP} w", 5),
]


@pytest.mark.parametrize(("name", "given", "first", "second", "after"), PATIENCE, ids=[case[0] for case in PATIENCE])
def test_how_soon_people_are_told(name: str, given: Callable[[], Bench], first: str, second: str, after: float) -> None:
    bench = given()
    bench.at("a1", first)
    bench.at("b1", second)
    bench.wait(after - 0.5, heard="ab")
    assert told(bench) is None
    bench.wait(1, heard="ab")
    assert told(bench) is not None


def test_a_job_that_moves_is_never_said_to_stand_still() -> None:
    """Here by reductions without any step."""
    bench = trained()
    for _ in range(200):
        bench.wait(4, heard="ab")
        bench.at("a1", "reduce@train.py:9")
        bench.at("b1", "reduce@train.py:9 w")
        assert told(bench) is None


def test_going_round_without_a_step_is_no_progress_for_those_who_wait() -> None:
    bench = trained()
    bench.at("a1", f"{STEP} w")
    for _ in range(12):
        bench.wait(0.5, heard="ab")
        bench.at("b1", "batch@train.py:20")
    standstill = told(bench)
    assert standstill is not None
    assert "rank 1 (b) is in run.batches (train.py:20)" in standstill.message


def test_one_that_is_done_waits_for_the_others() -> None:
    bench = trained()
    bench.change("a1", phase=ProcessPhase.DONE)
    bench.at("b1", SCRIPT)
    bench.wait(61, heard="ab")
    standstill = told(bench)
    assert standstill is not None
    assert (
        "rank 1 (b) is at train.py:57 between operations, and rank 0 waits for it in run.finish" in standstill.message
    )


def test_images_that_do_not_tell_where_they_are() -> None:
    bench = trained()
    bench.change("a1", waiting=True)
    bench.wait(6, heard="ab")
    standstill = told(bench)
    assert standstill is not None
    assert (standstill.late, "rank 0 waits for it" in standstill.message) == ([1], True)


def test_a_rank_that_its_launcher_does_not_hear_is_not_known_to_wait() -> None:
    bench = trained()
    bench.at("a1", f"{STEP} w")
    bench.at("b1", f"{STEP} w")
    bench.wait(6, heard="ab")
    standstill = told(bench)
    assert standstill is not None
    assert "both ranks wait for one another" in standstill.message
    bench.change("b1", silent_seconds=9.0)
    bench.wait(5, heard="ab")
    standstill = told(bench)
    assert standstill is not None
    assert "rank 1 (b) gives no sign of life since it was in run.step (train.py:24)" in standstill.message
    assert standstill.late == [1]


# --- evidence, not absence --------------------------------------------------------------------------------------


def test_nothing_is_said_of_ranks_that_are_out_of_reach() -> None:
    bench = late(trained())
    bench.wait(6, heard="a")
    assert told(bench) is None


def test_a_launcher_that_was_out_of_reach_counts_anew() -> None:
    bench = late(trained(limit=20))
    bench.wait(10, heard="ab")
    bench.wait(2, heard="a")
    bench.now += 1.5
    bench.say("b")
    assert not killed(bench.wait(19, heard="ab"))
    assert killed(bench.wait(2, heard="ab")) == {"b/b/1": True}


def test_a_coordinator_that_slept_blames_nobody() -> None:
    bench = late(trained(limit=60))
    bench.wait(10, heard="ab")
    bench.now += 300
    answers = bench.feed(Tick()) + bench.say("a") + bench.say("b") + bench.feed(Tick())
    assert not killed(answers)
    assert told(bench) is None
    assert killed(bench.wait(61, heard="ab")) == {"b/b/1": True}


def test_how_long_a_rank_is_where_it_is_is_its_own_word_and_the_time_since() -> None:
    """What a coordinator that came later could not know."""
    bench = trained()
    bench.change("b1", place=Place(operation="save", line="train.py:31", seconds=29.0))
    bench.now += 1.5
    bench.feed(Tick())
    place = bench.machine.report(1).members[1].place
    assert place is not None
    assert (place.operation, place.line, place.seconds) == ("save", "train.py:31", 30.5)


# --- the end ----------------------------------------------------------------------------------------------------

LIMITS: list[tuple[str, Callable[[], Bench], str, str, float]] = [
    ("by default", trained, f"{STEP} w", SCRIPT, 600),
    ("by default, with long steps", lambda: trained(step_seconds=60), f"{STEP} w", SCRIPT, 1200),
    ("in the first step, by default", lambda: trained(steps=0), f"{STEP} w", SCRIPT, 1800),
    ("while it saves, by default", trained, f"{SAVE} w", SAVE, 3600),
    ("as the job says", lambda: trained(limit=30), f"{STEP} w", SCRIPT, 30),
    ("as the job says, also in the first step", lambda: trained(steps=0, limit=30), f"{STEP} w", SCRIPT, 30),
    ("as the job says, also while it saves", lambda: trained(limit=30), f"{SAVE} w", SAVE, 30),
    ("less than what is worth telling", lambda: trained(limit=2), f"{STEP} w", SCRIPT, 2),
]


@pytest.mark.parametrize(("name", "given", "first", "second", "after"), LIMITS, ids=[case[0] for case in LIMITS])
def test_when_a_late_rank_is_killed(name: str, given: Callable[[], Bench], first: str, second: str, after: int) -> None:
    bench = given()
    bench.at("a1", first)
    bench.at("b1", second)
    assert not killed(bench.wait(after - 1, heard="ab", tick=2.0))
    assert killed(bench.wait(2, heard="ab")) == {"b/b/1": True}


def test_the_failure_says_who_waited_for_whom_and_which_field_says_how_long() -> None:
    bench = late(trained(limit=30))
    (kill, *_) = [order for order in bench.wait(31, heard="ab") if isinstance(order, Kill)]
    said = f"{NO_PROGRESS}: no progress for 30 s at step 9: {WAITS_FOR_B} (recovery.noProgressSeconds)"
    assert kill.reason == said
    bench = late(trained())
    (kill, *_) = [order for order in bench.wait(601, heard="ab", tick=2.0) if isinstance(order, Kill)]
    assert kill.reason.endswith("(recovery.noProgressSeconds, by default 600 s here)")


def test_the_others_go_on_without_it() -> None:
    bench = late(trained("a1 b1 c1", limit=30))
    bench.at("c1", f"{STEP} w")
    answers = bench.wait(31, heard="abc")
    assert killed(answers) == {"b/b/1": True}
    form = only_form(answers)
    assert (seats(form), form.reason) == ("a1 c1", "b held the others up")
    bench.stand(form, step=9)  # before its launcher has its stacks
    bench.die("b1")
    bench.change("a1", "c1", step=10)
    report = bench.machine.report(1)
    assert [(failure.rank, failure.incident) for failure in report.failures] == [(1, 1)]
    assert report.recoveries == 1


def test_ranks_that_all_wait_are_brought_together_anew_and_killed_if_that_does_not_help() -> None:
    bench = trained(limit=30)

    def all_wait() -> None:
        bench.at("a1", f"{SAVE} w")
        bench.at("b1", f"{STEP} w")

    all_wait()
    answers = bench.wait(31, heard="ab")
    assert not killed(answers)
    form = only_form(answers)
    assert form.boundary is Boundary.NOW
    assert "wait for one another in different places" in form.reason
    bench.stand(form, step=8)
    all_wait()
    assert not killed(bench.wait(29, heard="ab"))
    assert killed(bench.wait(2, heard="ab")) == {"a/b/1": True, "b/b/1": True}


def test_when_a_step_was_made_in_between_they_are_brought_together_again() -> None:
    bench = trained(limit=30)
    for step in (8, 9):
        bench.at("a1", f"{STEP} w", step=step)
        bench.at("b1", f"{STEP} w", step=step)
        answers = bench.wait(31, heard="ab")
        assert not killed(answers)
        bench.stand(only_form(answers), step=step)


def test_a_hang_of_all_ranks_in_their_scripts_ends_all() -> None:
    bench = trained(limit=30)
    bench.at("a1", SCRIPT)
    bench.at("b1", SCRIPT)
    assert killed(bench.wait(31, heard="ab")) == {"a/b/1": True, "b/b/1": True}


def test_a_limit_that_is_changed_holds_at_once() -> None:
    bench = late(trained())
    bench.wait(40, heard="ab")
    bench.roster("ab", 2, 1, no_progress_seconds=30)
    assert killed(bench.wait(2, heard="ab")) == {"b/b/1": True}


def test_nothing_is_judged_while_a_membership_forms() -> None:
    bench = late(trained("a1 b1 c1", limit=5))
    form = only_form(bench.die("c1"))
    bench.enter(form)
    assert (told(bench), killed(bench.wait(20, heard="ab"))) == (None, {})
    assert not forms(bench.messages())


# --- numbers ----------------------------------------------------------------------------------------------------


def test_metrics() -> None:
    bench = late(trained())

    def numbers() -> dict[str, float]:
        text = generate_latest(JobMetrics(bench.machine.state).registry).decode()
        wanted = ("drivetrain_training_still_seconds", "drivetrain_training_late_ranks")
        return {
            "/".join([family.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            if family.name in wanted
            for sample in family.samples
        }

    moving = numbers()
    assert (moving["drivetrain_training_still_seconds"], moving["drivetrain_training_late_ranks/script"]) == (0.0, 0.0)
    bench.wait(20, heard="ab")
    still = numbers()
    assert still["drivetrain_training_still_seconds"] == pytest.approx(20, abs=0.5)
    assert {name: value for name, value in still.items() if value} == {
        "drivetrain_training_still_seconds": still["drivetrain_training_still_seconds"],
        "drivetrain_training_late_ranks/script": 1.0,
    }
    assert moving.keys() == still.keys()
