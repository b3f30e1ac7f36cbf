"""Which deaths are one incident, which cost nothing, and who is let go when all leave."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from drivetrain_api.messages import Boundary, EpochId, Form, ProcessPhase, ProcessState
from drivetrain_coordinator.membership.incidents import MAX_INHERITED
from unit.coordinator.bench import Bench, only_form, seats

DEAD, READY = ProcessPhase.DEAD, ProcessPhase.READY


def test_when_all_leave_the_state_goes_to_newcomers_first() -> None:
    """Three workers were evicted in one second, with 30 s of grace: all were let go after 1.4 s, with all the state."""
    bench = Bench()
    bench.train("a1", "b1")
    bench.leaving |= {"a", "b"}
    bench.roster("ab", 2, 2, draining="ab")
    for pod in "ab":
        bench.say(pod)
    bench.wait(8.0, heard="ab")
    assert bench.machine.report(1).released == []
    bench.roster("abcd", 2, 2, draining="ab")
    with_one = only_form(bench.ready("c1"))
    assert (seats(with_one), [each.new for each in with_one.members]) == ("a1 b1 c1", [False, False, True])
    bench.stand(with_one)
    bench.wait(1.0, heard="abc")
    assert bench.machine.report(1).released == []  # one is not enough to go on
    bench.ready("d1")
    after = only_form(bench.wait(1.0, heard="abcd"))
    assert seats(after) == "c1 d1"
    bench.change("a1", "b1", phase=READY)  # they stop at the same step
    bench.stand(after)
    assert set(bench.machine.report(1).released) == {"a", "b"}


def test_failures_of_one_cause_are_one_incident() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.die("a1")
    bench.die("b1")
    bench.now += 5
    bench.ready("a2")
    bench.now += 5
    bench.die("a2")
    incidents = [(failure.process, failure.incident) for failure in bench.machine.report(1).failures]
    assert incidents == [("a/b/1", 1), ("b/b/1", 1), ("a/b/2", 2)]


def incidents(bench: Bench) -> list[tuple[str, int]]:
    return [(failure.process, failure.incident) for failure in bench.machine.report(1).failures]


def test_a_replacement_that_is_named_with_the_death_before_it_pays_for_itself() -> None:
    """Every second death was free: five of them cost two restarts."""
    bench = Bench()
    bench.train("a1", "b1", minimum=2)
    for number in range(1, 6):
        bench.now += 1
        bench.processes["a"][f"a{number}"] = bench.processes["a"][f"a{number}"].model_copy(
            update={"phase": DEAD, "exit_code": 1}
        )
        bench.change(f"a{number + 1}")  # one message tells of both
    assert incidents(bench) == [(f"a/b/{number}", number) for number in range(1, 6)]


def test_a_spare_that_takes_over_and_fails_too_has_tried_anew() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.ready("a2", "b2")
    bench.now += 1
    form = only_form(bench.die("a1"))
    assert "a2" in seats(form)
    bench.now += 1
    bench.die("b1")  # in the first membership with a1: of the same cause
    bench.now += 1
    bench.die("a2")
    assert incidents(bench) == [("a/b/1", 1), ("b/b/1", 1), ("a/b/2", 2)]


def test_processes_that_fail_before_the_first_membership_are_one_incident() -> None:
    bench = Bench()
    bench.roster("abc", 3, 3)
    for pod in "abc":
        bench.ready(f"{pod}1")
        bench.change(f"{pod}1", phase=ProcessPhase.STARTING)
        bench.now += 0.1
    for pod in "abc":
        bench.change(f"{pod}1", phase=DEAD, exit_code=1)
        bench.now += 0.1
    assert {number for _, number in incidents(bench)} == {1}


def test_what_drivetrain_ended_belongs_to_no_incident() -> None:
    bench = Bench()
    bench.train("a1", "b1", minimum=1)
    bench.change("a1", phase=DEAD, exit_code=75, remedy="asks for a fresh process")
    assert not bench.machine.state.incident.open
    bench.now += 1
    bench.die("b1")
    failures = bench.machine.report(1).failures
    assert [(each.remedy != "", each.incident, each.step) for each in failures] == [(True, -1, 0), (False, 1, 0)]


def test_deaths_from_before_a_term_are_one_incident_and_of_no_known_step() -> None:
    bench = Bench(term=2)
    bench.roster("abc", 3, 3, term=2)
    for pod in "abc":
        bench.connect(pod)
        bench.processes[pod] = {f"{pod}1": _dead(pod)}
        bench.say(pod, forms=[])
        bench.now += 0.4
    assert {number for _, number in incidents(bench)} == {1}
    assert {each.step for each in bench.machine.report(1).failures} == {None}


def _dead(pod: str, seconds: float | None = None) -> ProcessState:
    return ProcessState(id=f"{pod}/b/1", pid=1, start_ticks=1, phase=DEAD, exit_code=1, step=5000, dead_seconds=seconds)


def test_deaths_from_before_a_term_are_told_apart_by_when_they_were() -> None:
    """One was told by the coordinator before, and paid for; the other came when none was there, and was free."""
    bench = Bench(term=2)
    bench.roster("abcde", 5, 5, term=2)
    for pod, seconds in (("a", 30.0), ("b", 2.0), ("c", 31.0), ("d", 4.0), ("e", None)):
        bench.connect(pod)
        bench.processes[pod] = {f"{pod}1": _dead(pod, seconds)}
        bench.say(pod, forms=[])
        bench.now += 0.4
    assert [number for _, number in incidents(bench)] == [1, 2, 1, 2, 3]


def test_a_launcher_that_tells_of_ever_more_moments_costs_a_bounded_memory() -> None:
    bench = Bench(term=2)
    bench.roster("a", 1, 1, term=2)
    bench.connect("a")
    for number in range(MAX_INHERITED + 20):
        gone = _dead("a", 10.0 * number).model_copy(update={"id": f"a/b/{number}"})
        bench.processes["a"] = {f"a{number}": gone}
        bench.say("a", forms=[])
    assert len(bench.machine.state.incident.inherited) == MAX_INHERITED


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_no_process_is_dead_for_such_a_time(seconds: float) -> None:
    with pytest.raises(ValidationError):
        ProcessState.model_validate(_dead("a").model_dump() | {"dead_seconds": seconds})


@pytest.mark.parametrize("count", [-1, 2**31])
def test_no_membership_has_gone_on_so_often(count: int) -> None:
    raw = Form(epoch=EpochId(1, 1), members=[], boundary=Boundary.NOW).model_dump()
    with pytest.raises(ValidationError):
        Form.model_validate(raw | {"recoveries": count})


def test_before_anybody_holds_a_state_nobody_waits_for_a_successor() -> None:
    bench = Bench()
    bench.roster("ab", 2, 2)
    bench.ready("a1", "b1")
    bench.leaving |= {"a", "b"}
    bench.say("a")
    bench.say("b")
    assert set(bench.machine.report(1).released) == {"a", "b"}
