"""Members that start scripts which say nothing of their steps: what is concluded where others are asked for a step."""

from __future__ import annotations

from drivetrain_api.messages import Boundary, Form, ProcessPhase, Progress
from drivetrain_api.places import STOCK, Place
from drivetrain_api.report import JobState
from drivetrain_coordinator.membership import incidents
from unit.coordinator.bench import Bench, forms, only_form, seats, tables

PLACE = Place(operation=STOCK)


def trains(bench: Bench, *names: str, minimum: int | None = None) -> Form:
    """A job of keepers; none ever has a step."""
    pods = "".join(dict.fromkeys(name[0] for name in names))
    bench.roster(pods, len(pods), len(pods) if minimum is None else minimum)
    bench.ready(*names)
    bench.change(*names, place=PLACE)
    pending = bench.machine.state.pending
    assert pending is not None
    bench.stand(pending.form(), step=-1)
    return pending.form()


def test_a_job_has_recovered_when_all_stand_again() -> None:
    bench = Bench()
    trains(bench, "a1", "b1")
    bench.change("b2", place=PLACE)
    form = only_form(bench.die("b1"))
    assert (seats(form), form.boundary, form.recoveries) == ("a1 b2", Boundary.NOW, 1)
    bench.now += 2
    bench.stand(form, step=-1)
    bench.wait(0.3, heard="ab")
    report = bench.machine.report(1)
    assert (report.recoveries, report.state, report.progress) == (1, JobState.TRAINING, None)
    assert 2.0 <= (report.last_recovery_seconds or 0) < 3.0


def test_each_death_after_all_stand_again_is_an_incident_of_its_own() -> None:
    """Without a step that closes it, a survivor's own failure, days later, was part of the first."""
    bench = Bench()
    trains(bench, "a1", "b1")
    bench.change("b2", place=PLACE)
    bench.stand(only_form(bench.die("b1")), step=-1)
    bench.now += 100
    bench.change("a2", place=PLACE)
    bench.die("a1")
    failures = bench.machine.report(1).failures
    assert [(failure.process, failure.incident, failure.step) for failure in failures] == [
        ("b/b/1", 1, -1),
        ("a/b/1", 2, None),
    ]


def test_who_fails_soon_after_its_start_had_made_no_step() -> None:
    """So an error that no repetition mends ends the job."""
    bench = Bench()
    trains(bench, "a1", "b1")
    bench.change("b2", place=PLACE)
    bench.wait(incidents.BEGINS_SECONDS - 5, heard="ab", tick=2.5)
    bench.stand(only_form(bench.die("b1")), step=-1)
    bench.wait(incidents.BEGINS_SECONDS + 5, heard="ab", tick=2.5)
    bench.die("b2")
    assert [failure.step for failure in bench.machine.report(1).failures] == [-1, None]


def test_no_state_is_lost_with_all_of_them() -> None:
    """It is in the script's own checkpoint."""
    bench = Bench()
    trains(bench, "a1", "b1")
    bench.change("a2", "b2", place=PLACE)
    bench.die("a1")
    form = only_form(bench.die("b1"))
    assert (seats(form), form.fresh) == ("a2 b2", True)
    bench.stand(form, step=-1)
    assert (bench.machine.report(1).state_lost, bench.machine.report(1).state) == (0, JobState.TRAINING)


def test_it_never_stands_still() -> None:
    bench = Bench()
    trains(bench, "a1", "b1")
    bench.wait(20_000, heard="ab", tick=2.5)
    assert bench.machine.report(1).standstill is None
    assert not bench.machine.state.condemned


def test_a_worker_out_of_reach_is_waited_for() -> None:
    """Its script may well go on: to start all others again costs what they did since their checkpoint."""
    bench = Bench()
    trains(bench, "a1", "b1", "c1", minimum=2)
    bench.disconnect("c")
    assert forms(bench.wait(14.0, heard="ab")) == {}
    assert seats(only_form(bench.wait(2.0, heard="ab"))) == "a1 b1"


def test_a_worker_out_of_reach_is_not_waited_for_once_a_script_failed() -> None:
    bench = Bench()
    trains(bench, "a1", "b1", "c1", minimum=2)
    bench.disconnect("c")
    form = only_form(bench.change("a1", fault="the script ended with exit code 1"))
    assert (seats(form), form.boundary) == ("a1 b1", Boundary.NOW)


def test_whom_the_others_miss_is_told_where_they_cannot_go_on() -> None:
    """The scripts of the others raise errors then: that is no failure of theirs."""
    bench = Bench()
    form = trains(bench, "a1", "b1")
    bench.disconnect("b")
    bench.change("a1", fault="the script ended with exit code 1")
    (told, *_) = tables(bench.wait(1.0, heard="a"))
    assert (told.epoch, "lost/b/b/1" in told.entries, "lost/a/b/1" in told.entries) == (form.epoch, True, False)


def test_a_leaver_is_let_go() -> None:
    bench = Bench()
    trains(bench, "a1", "b1", minimum=1)
    bench.leaving.add("b")
    form = only_form(bench.roster("ab", 1, 1, draining="b"))
    assert (seats(form), form.boundary) == ("a1", Boundary.STEP)
    bench.change("b1", phase=ProcessPhase.READY)
    bench.stand(form, step=-1)
    assert bench.machine.report(1).released == ["b"]


def test_ranks_of_a_pod_follow_one_another() -> None:
    """Other members keep their order, and who takes over comes last."""
    bench = Bench(per_pod=2)
    bench.roster("ab", 2, 2)
    bench.ready("a1", "b1")
    bench.change("a1", "a2", "b1", "b2", place=PLACE)
    bench.wait(0.3, heard="ab")
    pending = bench.machine.state.pending
    assert pending is not None
    bench.stand(pending.form(), step=-1)
    bench.change("a3", place=PLACE)
    assert seats(only_form(bench.die("a1"))) == "a2 a3 b1 b2"


def test_the_first_rank_tells_how_far_it_is_and_may_go_back() -> None:
    """It began again from its own checkpoint. Another one's word is older."""
    bench = Bench()
    trains(bench, "a1", "b1")
    told = []
    for pod, progress in (
        ("a", Progress(step=13, goes_back=True)),
        ("b", Progress(step=12, goes_back=True)),
        ("a", Progress(step=10, goes_back=True)),
        ("a", Progress(step=9)),
    ):
        bench.say(pod, progress=progress)
        found = bench.machine.report(1).progress
        assert found is not None
        told.append(found.step)
    assert told == [13, 13, 10, 10]


def test_one_that_leaves_may_save_for_as_long_as_those_that_stay() -> None:
    """Half of two is no majority, so the next membership waits for it: ten seconds, and then it cost a restart."""
    bench = Bench()
    trains(bench, "a1", "b1", minimum=1)
    bench.leaving.add("b")
    form = only_form(bench.say("b"))
    assert (seats(form), form.boundary) == ("a1", Boundary.STEP)
    bench.change("a1", epoch=form.epoch, formed=False, waiting=True)
    assert forms(bench.wait(50.0, heard="ab")) == {}
    bench.change("b1", phase=ProcessPhase.READY)
    assert bench.machine.state.active is not None
    assert bench.machine.state.active.id == form.epoch
    assert bench.machine.state.recovery.count == 0
