"""What of losses and recoveries is known after a coordinator that was lost with the worker."""

from __future__ import annotations

import pytest

from drivetrain_api.messages import (
    KILLED,
    NO_PROGRESS,
    Boundary,
    EpochId,
    Form,
    Member,
    ProcessPhase,
    ProcessState,
)
from drivetrain_api.recovery import Recovered, RecoveryCause
from drivetrain_api.report import JobState
from unit.coordinator.bench import Bench, only_form, seats

MEMBER = ProcessPhase.MEMBER


def recoveries(bench: Bench) -> tuple[int, int]:
    """Of earlier terms, and of this one."""
    told = bench.machine.report(1)
    return told.recoveries_before, told.recoveries


def went_on(bench: Bench, form: Form, step: int = 9) -> None:
    """All members of this form take their seats and finish a step there, and the one after."""
    bench.stand(form, step)
    names = [member.process[0] + member.process.split("/")[2] for member in form.members]
    bench.now += 0.1
    bench.change(*names, step=step + 1)


def successor(epoch: EpochId, members: str, alive: str, *, recoveries: int = 0, pods: str = "abc") -> Bench:
    """A coordinator of the next term, to which those that are alive have handed this epoch over."""
    bench = Bench(term=epoch.term + 1)
    bench.roster(pods, 3, 1, term=epoch.term + 1, dead="".join(p for p in "abc" if p not in pods))
    seated = [Member(process=f"{m[0]}/b/{m[1:]}", pod_uid=m[0], new=False) for m in members.split()]
    form = Form(epoch=epoch, members=seated, boundary=Boundary.NOW, recoveries=recoveries)
    for name in alive.split():
        bench.hand_over(name, form)
    return bench


def test_forms_carry_how_many_losses_their_members_went_on_after() -> None:
    bench = Bench()
    first = bench.train("a1", "b1", "c1", minimum=1)
    second = only_form(bench.die("b1"))
    went_on(bench, second)
    third = only_form(bench.die("c1"))
    assert [form.recoveries for form in (first, second, third)] == [0, 1, 2]
    assert recoveries(bench) == (0, 1)  # the second is under way


def test_a_loss_beside_the_coordinators_own_is_a_recovery_that_nobody_timed() -> None:
    """One node held both. That it took 0.2 s was said of one that began four seconds before."""
    bench = successor(EpochId(1, 4), "a1 b1 c1", "a1 b1", pods="ab")
    form = only_form(bench.messages())
    assert seats(form) == "a1 b1"
    went_on(bench, form)
    told = bench.machine.report(1)
    assert (told.recoveries, told.last_recovery_seconds) == (1, None)


def test_what_is_lost_after_a_takeover_is_timed() -> None:
    bench = successor(EpochId(1, 4), "a1 b1 c1", "a1 b1 c1")
    bench.wait(2, heard="abc")
    form = only_form(bench.die("c1"))
    bench.now += 0.5
    went_on(bench, form)
    seconds = bench.machine.report(1).last_recovery_seconds
    assert seconds is not None
    assert 0.5 <= seconds < 1


def test_a_recovery_of_which_only_launchers_know_is_told_by_the_next_coordinator() -> None:
    """The last one formed the epoch without the lost worker, and died before it could report."""
    bench = successor(EpochId(1, 5), "a1 b1", "a1 b1", recoveries=1, pods="ab")
    assert bench.machine.report(1).state is JobState.TRAINING
    assert bench.machine.report(1).progress is None  # rank 0 will tell it; members' own numbers may be old
    assert recoveries(bench) == (1, 0)
    went_on(bench, only_form(bench.die("b1")))
    assert recoveries(bench) == (1, 1)
    assert bench.machine.state.active is not None
    assert bench.machine.state.active.form().recoveries == 2


def test_launchers_of_older_images_do_not_know_and_do_not_take_away() -> None:
    bench = Bench(term=2)
    bench.roster("ab", 2, 1, term=2)
    seated = [Member(process=f"{pod}/b/1", pod_uid=pod, new=False) for pod in "ab"]
    for pod, known in (("a", 3), ("b", 0)):
        bench.connect(pod)
        bench.processes[pod] = {
            f"{pod}1": ProcessState(
                id=f"{pod}/b/1", pid=1, start_ticks=1, phase=MEMBER, epoch=EpochId(1, 4), formed=True, has_state=True
            )
        }
        form = Form(epoch=EpochId(1, 4), members=seated, boundary=Boundary.NOW, recoveries=known)
        bench.say(pod, forms=[form], tabled=EpochId(1, 4))
    assert recoveries(bench) == (3, 0)


def test_training_that_started_over_is_no_recovery() -> None:
    bench = Bench()
    bench.train("a1", minimum=1)
    bench.roster("a", 1, 1)
    bench.ready("a2")
    form = only_form(bench.die("a1"))
    assert form.fresh
    went_on(bench, form, step=0)
    told = bench.machine.report(1)
    assert (told.state_lost, told.recoveries, form.recoveries) == (1, 0, 0)


def test_the_first_step_is_told_once_all_hold_it() -> None:
    """Rank 0 tells a step when the one after has shown that all hold it: of steps that take minutes, minutes late."""
    bench = Bench()
    bench.roster("ab", 2, 2)
    form = only_form(bench.ready("a1", "b1"))
    bench.enter(form)
    bench.change("a1", "b1", formed=True, has_state=True)
    assert bench.machine.report(1).progress is None
    bench.change("a1", step=0)
    assert bench.machine.report(1).progress is None
    bench.change("b1", step=0)
    progress = bench.machine.report(1).progress
    assert progress is not None
    assert progress.step == 0


def test_a_recovery_is_told_in_phases() -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    bench.change("a1", fault="connection closed")
    bench.now += 0.2
    form = only_form(bench.die("b1"))
    bench.now += 0.5
    bench.enter(form)
    bench.now += 2
    bench.change("a1", "c1", formed=True, has_state=True, step=9)
    bench.now += 1
    bench.change("a1", "c1", step=10)
    told = bench.machine.report(1)
    assert told.last_recovery is not None
    assert told.last_recovery.model_dump() == pytest.approx(
        {"cause": "process", "detected": 0.2, "formed": 0.5, "copied": 2, "first_step": 1}
    )
    phases = told.last_recovery.model_dump(exclude={"cause"})
    assert sum(phases.values()) == pytest.approx(told.last_recovery_seconds)


def after(bench: Bench, cause: str) -> str:
    """What was lost, as told when all have gone on."""
    match cause:
        case "process":
            form = only_form(bench.die("b1"))
        case "pod":
            form = only_form(bench.roster("ac", 2, 1, dead="b"))
        case "unreachable":
            bench.disconnect("b")
            form = only_form(bench.wait(10, heard="ac"))
        case "communication":
            bench.change("a1", fault="timed out")
            form = only_form(bench.wait(1.5, heard="abc"))
        case _:
            killed = {"signal": 9, "log_tail": f"{KILLED}{NO_PROGRESS}: no progress for 600 s"}
            form = only_form(bench.change("b1", phase=ProcessPhase.DEAD, **killed))
    went_on(bench, form)
    told = bench.machine.report(1).last_recovery
    return told.cause if told is not None else ""


@pytest.mark.parametrize("cause", ["process", "pod", "unreachable", "communication", "standstill"])
def test_a_recovery_says_what_was_lost(cause: str) -> None:
    bench = Bench()
    bench.train("a1", "b1", "c1", minimum=1)
    assert after(bench, cause) == cause


def test_a_recovery_that_nobody_timed_has_no_phases() -> None:
    bench = successor(EpochId(1, 4), "a1 b1 c1", "a1 b1", pods="ab")
    went_on(bench, only_form(bench.messages()))
    assert bench.machine.report(1).last_recovery is None


def test_the_word_of_a_newer_coordinator_is_unknown() -> None:
    told = {"cause": "sunspots", "detected": 1, "formed": 1, "copied": 1, "first_step": 1}
    assert Recovered.model_validate(told).cause is RecoveryCause.UNKNOWN
