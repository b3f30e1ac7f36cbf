"""The rules of docs/protocol.md, one by one, on the bench."""

from __future__ import annotations

from drivetrain_api.messages import (
    Boundary,
    Complete,
    EpochId,
    Form,
    Hello,
    Kill,
    Member,
    ProcessPhase,
    RejectReason,
    Released,
    Stop,
)
from drivetrain_api.report import JobState
from drivetrain_coordinator.membership import End, Retire
from unit.coordinator.bench import Bench, forms, only_form, seats, tables

DEAD, DONE, READY, MEMBER = ProcessPhase.DEAD, ProcessPhase.DONE, ProcessPhase.READY, ProcessPhase.MEMBER


def handed(epoch: EpochId, names: str, fresh: bool = False) -> Form:
    """A form as launchers hand it over."""
    members = [Member(process=f"{name[0]}/b/{name[1:]}", pod_uid=name[0], new=fresh) for name in names.split()]
    return Form(epoch=epoch, members=members, boundary=Boundary.NOW, fresh=fresh)


def test_nothing_is_formed_without_a_roster() -> None:
    bench = Bench()
    assert not forms(bench.ready("a1", "b1"))
    assert only_form(bench.roster("ab", 2, 2)).epoch == EpochId(1, 1)


def test_elastic_job_starts_small_ten_seconds_after_the_last_arrival() -> None:
    bench = Bench()
    bench.roster("abc", 3, 1)
    assert not forms(bench.ready("a1", "b1"))
    assert not forms(bench.wait(9.5, heard="ab"))
    assert seats(only_form(bench.wait(0.6, heard="ab"))) == "a1 b1"


def test_fixed_job_does_not_start_small() -> None:
    bench = Bench()
    bench.roster("abc", 3, 3)
    assert not forms(bench.ready("a1", "b1"))
    assert not forms(bench.wait(60, heard="ab"))
    assert bench.machine.report(1).message == "waits for ready processes: 2 of 3; not ready: c"


def test_first_table_waits_for_every_member() -> None:
    bench = Bench()
    bench.roster("ab", 2, 2)
    form = only_form(bench.ready("a1", "b1"))
    bench.change("a1", phase=MEMBER, epoch=form.epoch)
    assert not tables(bench.messages())
    assert not tables(bench.put("a1", form.epoch))
    assert not tables(bench.wait(1, heard="ab"))
    assert tables(bench.put("b1", form.epoch))[0].entries.keys() == {"a/b/1", "b/b/1"}


def test_death_is_answered_in_the_same_turn_with_a_spare() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.ready("b2")
    form = only_form(bench.die("b1"))
    assert (seats(form), form.boundary, [m.new for m in form.members]) == (
        "a1 c1 b2",
        Boundary.NOW,
        [False, False, True],
    )


def test_death_is_answered_in_the_same_turn_by_shrinking() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    assert seats(only_form(bench.die("b1"))) == "a1 c1"


def test_fixed_job_waits_for_the_replacement_process() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1")
    assert not forms(bench.die("b1"))
    assert bench.machine.report(1).state is JobState.WAITING
    form = only_form(bench.ready("b2"))
    assert (seats(form), form.boundary) == ("a1 c1 b2", Boundary.NOW)


def test_each_pod_fills_its_own_seats() -> None:
    bench = Bench(per_pod=2)
    bench.roster("ab", 2, 1)
    form = only_form(bench.ready("a1", "a2", "a3", "b1", "b2"))
    assert seats(form) == "a1 a2 b1 b2"
    bench.stand(form)
    assert seats(only_form(bench.die("b1"))) == "a1 a2 b2"


def test_fault_waits_a_second_for_a_proof_then_forms_the_same_members() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    assert not forms(bench.change("a1", fault="connection reset"))
    assert not forms(bench.wait(0.75, heard="ab"))
    form = only_form(bench.wait(0.5, heard="ab"))
    assert (seats(form), form.boundary) == ("a1 b1", Boundary.NOW)


def test_fault_and_a_closed_connection_drop_the_member_at_once_by_majority() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.change("a1", fault="connection reset")
    assert seats(only_form(bench.disconnect("c"))) == "a1 b1"


def test_half_of_the_members_wait_for_the_rosters_word() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.change("a1", fault="connection reset")
    assert not forms(bench.disconnect("b"))
    assert not forms(bench.wait(30, heard="a"))
    assert "proof that b is dead" in bench.machine.report(1).message
    assert seats(only_form(bench.roster("a", 2, 1, dead="b"))) == "a1"


def test_silence_alone_is_no_loss() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.disconnect("c")
    for step in range(1, 20):
        assert not forms(bench.wait(1, heard="ab"))
        assert not forms(bench.change("a1", "b1", step=step))


def test_silence_and_no_progress_are_a_loss() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.disconnect("c")
    assert not forms(bench.wait(2.5, heard="ab"))
    assert seats(only_form(bench.wait(1, heard="ab"))) == "a1 b1"


def test_newcomers_join_together_at_a_step_boundary() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.roster("abcde", 5, 1)
    assert not forms(bench.ready("c1"))
    bench.wait(0.25, heard="abc")
    assert not forms(bench.ready("d1"))
    form = only_form(bench.wait(0.5, heard="abcd"))
    assert (seats(form), form.boundary) == ("a1 b1 c1 d1", Boundary.STEP)


def test_newcomer_that_fills_the_last_seat_joins_at_once() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.roster("abc", 3, 1)
    assert seats(only_form(bench.ready("c1"))) == "a1 b1 c1"


def test_stale_state_of_a_member_that_was_dropped_does_not_count() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.disconnect("c")
    bench.stand(only_form(bench.change("a1", fault="reset")), step=3)
    bench.connect("c")
    assert not forms(bench.messages())  # what it said before it went away may be out of date
    form = max(forms(bench.say("c")).values(), key=lambda form: form.epoch)
    assert [(m.pod_uid, m.new) for m in form.members] == [("a", False), ("b", False), ("c", True)]


def test_holders_out_of_reach_forbid_a_fresh_start() -> None:
    bench = Bench()
    bench.train("a1", minimum=1)
    bench.roster("abc", 3, 1)
    bench.ready("b1")
    bench.wait(0.25, heard="ab")
    form = only_form(bench.ready("c1"))
    assert [m.new for m in form.members] == [False, True, True]
    bench.enter(form)
    bench.change("b1", fault="reset")
    assert not forms(bench.disconnect("a"))
    assert not forms(bench.wait(30, heard="bc"))
    form = only_form(bench.roster("bc", 3, 1, dead="a"))
    assert form.fresh
    bench.stand(form)
    assert bench.machine.report(1).state_lost == 1


def test_leaver_goes_at_a_step_boundary_and_is_released_when_the_others_stand() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.leaving.add("b")
    form = only_form(bench.say("b"))
    assert (seats(form), form.boundary) == ("a1 c1", Boundary.STEP)
    assert not any(isinstance(x, Released) for x in bench.enter(form) + bench.change("b1", phase=READY))
    assert not any(isinstance(x, Released) for x in bench.change("a1", formed=True, has_state=True))
    assert any(isinstance(x, Released) for x in bench.change("c1", formed=True, has_state=True))
    assert bench.machine.report(1).released == ["b"]


def test_half_that_leaves_must_have_stopped_before_the_table() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.leaving.add("b")
    form = only_form(bench.say("b"))
    assert not tables(bench.enter(form))
    assert tables(bench.change("b1", phase=READY))


def test_leaver_stays_while_training_needs_it() -> None:
    bench = Bench()
    bench.train("a1", "b1")
    bench.leaving.add("b")
    assert not forms(bench.say("b"))
    bench.roster("abc", 2, 2)
    form = only_form(bench.ready("c1"))
    assert (seats(form), form.boundary) == ("a1 c1", Boundary.STEP)


def test_smaller_target_takes_draining_pods_first_then_the_highest_index() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", "d1", minimum=1)
    assert seats(only_form(bench.roster("abcd", 2, 1, draining="a"))) == "b1 c1"


def test_successor_of_a_pod_that_is_to_go_takes_its_slot_though_its_connection_seems_to_live() -> None:
    """A cut cable closes no connection: the launcher of a lost node stays `connected` for many minutes."""
    bench = Bench()
    bench.roster("abc", 2, 1)
    bench.ready("a1", "b1")
    successor = Hello(job_uid="job", pod_uid="c", pod_name="c", index=0, boot="b")
    refused = bench.machine.admission(successor)
    assert refused is not None
    assert refused.reason is RejectReason.SLOT
    bench.roster("abc", 2, 1, draining="a")
    assert bench.machine.admission(successor) is None


def test_member_silent_in_two_formations_is_killed() -> None:
    bench = Bench()
    bench.roster("abc", 3, 1)
    first = only_form(bench.ready("a1", "b1", "c1"))
    bench.change("a1", "b1", phase=MEMBER, epoch=first.epoch)
    answers = bench.wait(first.deadline_seconds + 0.25, heard="abc")
    second = max(forms(answers).values(), key=lambda form: form.epoch)
    assert second.deadline_seconds > first.deadline_seconds
    bench.change("a1", "b1", epoch=second.epoch)
    answers = bench.wait(second.deadline_seconds + 0.25, heard="abc")
    assert {(x.process, x.stacks) for x in answers if isinstance(x, Kill)} == {("c/b/1", True)}
    assert seats(max(forms(answers + bench.die("c1")).values(), key=lambda form: form.epoch)) == "a1 b1"


def test_complete_only_when_all_are_done() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    assert not any(isinstance(x, Complete) for x in bench.change("a1", phase=DONE))
    assert any(isinstance(x, Complete) for x in bench.change("b1", phase=DONE))
    assert bench.machine.report(1).state is JobState.COMPLETE


def test_after_the_first_done_the_world_does_not_grow() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.change("a1", phase=DONE)
    bench.roster("abc", 3, 1)
    assert not forms(bench.ready("c1"))
    assert seats(only_form(bench.die("b1"))) == "a1"


def test_done_members_complete_without_replacing_a_lost_one() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1")
    bench.change("a1", "b1", phase=DONE)
    form = only_form(bench.die("c1"))
    assert seats(form) == "a1 b1"
    bench.change("a1", "b1", epoch=form.epoch)
    assert bench.machine.state.end is End.COMPLETE


def test_old_and_repeated_states_are_ignored() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.die("b1")
    bench._seq = 2
    bench.processes["b"]["b1"] = bench.processes["b"]["b1"].model_copy(update={"phase": READY})
    assert not forms(bench.say("b"))
    assert bench.machine.state.launchers["b"].processes["b/b/1"].phase is DEAD


def test_stop_reaches_everyone() -> None:
    bench = Bench()
    bench.train("a1", "b1")
    assert [x.reason for x in bench.roster("ab", 2, 2, stop="suspended") if isinstance(x, Stop)] == ["suspended"] * 2
    assert bench.machine.report(1).state is JobState.STOPPED


def test_higher_term_in_the_roster_ends_this_coordinator() -> None:
    bench = Bench()
    bench.train("a1", "b1")
    bench.roster("ab", 2, 2, term=2)
    assert any(isinstance(output, Retire) for output in bench.outputs)
    assert not forms(bench.die("a1"))


# --- a new term -------------------------------------------------------------------------------------------------


def reconnect(bench: Bench, given: list[Form], *names: str) -> list[object]:
    return [answer for name in names for answer in bench.hand_over(name, *given)]


def test_new_term_takes_a_whole_epoch_over_without_forming() -> None:
    bench = Bench(term=2)
    bench.roster("abc", 3, 1, term=2)
    epoch = EpochId(1, 4)
    assert not forms(reconnect(bench, [handed(epoch, "a1 b1 c1")], "a1", "b1", "c1"))
    report = bench.machine.report(1)
    assert (report.state, report.epoch, report.world) == (JobState.TRAINING, epoch, 3)
    assert only_form(bench.die("b1")).epoch == EpochId(2, 1)


def test_new_term_needs_a_majority_of_the_epoch_that_it_finds() -> None:
    bench = Bench(term=2)
    bench.roster("abc", 3, 1, term=2)
    epoch = EpochId(1, 4)
    assert not forms(reconnect(bench, [handed(epoch, "a1 b1 c1")], "a1"))
    bench.change("a1", fault="reset")
    assert not forms(bench.wait(30, heard="a"))
    assert "proof" in bench.machine.report(1).message


def test_new_term_heeds_forms_whose_table_nobody_shows() -> None:
    """a and b were left out of 1.2 on purpose: c may be training alone there."""
    bench = Bench(term=2)
    bench.roster("abc", 3, 1, term=2)
    old, new = handed(EpochId(1, 1), "a1 b1 c1"), handed(EpochId(1, 2), "c1")
    assert not forms(reconnect(bench, [old, new], "a1", "b1"))
    assert not forms(bench.wait(30, heard="ab"))
    assert seats(only_form(bench.roster("ab", 3, 1, dead="c", term=2))) == "a1 b1"


def test_new_term_starts_nothing_fresh_before_hearing_from_every_pod() -> None:
    bench = Bench(term=2)
    bench.roster("abc", 3, 1, term=2)
    assert not forms(bench.ready("a1", "b1"))
    assert not forms(bench.wait(60, heard="ab"))
    assert "word from c" in bench.machine.report(1).message
    assert only_form(bench.roster("ab", 2, 1, dead="c", term=2)).fresh
