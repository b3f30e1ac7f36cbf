"""What a keeper does: told what happens, second by second."""

from __future__ import annotations

import json
import signal

from drivetrain.torchrun.course import LEAVING, Course, End, Offer, Order, Run, Say, Send, Tell
from drivetrain_api.messages import Boundary, EpochId, Form, Member, ProcessPhase

ME, PEER = "pod-0/b/1", "pod-1/b/1"


def form(n: int, *members: str, boundary: Boundary = Boundary.NOW, recoveries: int = 0) -> Form:
    seats = [Member(process=each, pod_uid=each.partition("/")[0], new=True) for each in members or (ME, PEER)]
    return Form(epoch=EpochId(1, n), members=seats, boundary=boundary, recoveries=recoveries)


def offers(*processes: str, done: bool = False, leaving: bool = False) -> dict[str, bytes]:
    value = json.dumps({"address": "a", "port": 1, "done": done, "leaving": leaving}).encode()
    return dict.fromkeys(processes or (ME, PEER), value)


def kinds(orders: list[Order]) -> list[str]:
    """In short: what is ordered."""
    names = []
    for order in orders:
        match order:
            case Tell(phase=phase, formed=formed, fault=fault):
                names.append(f"{phase.value}{' formed' if formed else ''}{' fault' if fault else ''}")
            case Send(number):
                names.append(number.name)
            case Say(what=what):
                names.append(what)
            case End(code):
                names.append(f"end {code}")
            case _:
                names.append(type(order).__name__)
    return names


def running(*, recoveries: int = 0, members: tuple[str, ...] = (ME, PEER)) -> Course:
    """Since second 0, in membership 1.1, with half a minute to leave."""
    course = Course(ME, 30.0)
    assert kinds(course.ready()) == ["ready"]
    assert kinds(course.formed(form(1, *members, recoveries=recoveries), 0.0)) == ["member", "Offer", "member"]
    assert kinds(course.tabled(EpochId(1, 1), offers(*members), 0.0)) == ["Run", "member formed"]
    return course


def test_a_script_starts_once_all_members_are_there() -> None:
    course = Course(ME, 30.0)
    course.formed(form(1), 0.0)
    assert course.tabled(EpochId(1, 1), offers(ME), 0.0) == []
    assert kinds(course.tabled(EpochId(1, 1), offers(ME, PEER), 0.1)) == ["Run", "member formed"]
    assert course.tabled(EpochId(1, 1), offers(ME, PEER), 0.2) == []  # told again


def test_when_another_rank_dies_the_script_is_killed_and_started_again() -> None:
    course = running()
    assert kinds(course.formed(form(2, recoveries=1), 5.0)) == ["member", "SIGKILL"]
    assert course.tabled(EpochId(1, 2), offers(PEER), 5.0) == []
    assert kinds(course.ended(-9, 5.1)) == ["Offer", "member"]
    assert kinds(course.tabled(EpochId(1, 2), offers(), 5.1)) == ["Run", "member formed"]


def test_an_old_membership_is_not_obeyed() -> None:
    course = running()
    assert course.formed(form(1), 5.0) == []


def test_a_planned_change_gives_time_to_save() -> None:
    course = running()
    assert kinds(course.formed(form(2, boundary=Boundary.STEP), 5.0)) == ["member", "SIGTERM"]
    assert course.wake == 30.0  # the grace, less what else takes time
    assert kinds(course.tick(29.9)) == []
    assert kinds(course.tick(30.0)) == ["SIGKILL"]
    assert kinds(course.ended(0, 30.1)) == ["Offer", "member"]  # however it ends, it starts again
    assert kinds(course.tabled(EpochId(1, 2), offers(), 30.1)) == ["Run", "member formed"]


def test_who_saves_has_less_time_when_somebody_dies() -> None:
    course = running()
    course.formed(form(2, boundary=Boundary.STEP), 5.0)
    assert kinds(course.formed(form(3), 6.0)) == ["member"]
    assert course.wake == 11.0


def test_all_save_when_one_pod_is_told_to_go_and_nothing_starts_with_it() -> None:
    leaver = running()
    assert kinds(leaver.hurry(5.0)) == ["leaving/", "SIGTERM"]
    assert leaver.hurry(5.1) == []
    stays = running()
    said = {**offers(), f"leaving/{PEER}": b"1"}
    assert kinds(stays.tabled(EpochId(1, 1), said, 5.0)) == ["SIGTERM"]
    assert stays.ended(0, 6.0) == []
    assert stays.tabled(EpochId(1, 1), said, 6.1) == []
    assert kinds(stays.formed(form(2), 7.0)) == ["member", "Offer", "member"]
    assert kinds(stays.tabled(EpochId(1, 2), offers(ME) | offers(PEER, leaving=True), 7.1)) == ["member formed"]
    assert kinds(stays.formed(form(3, ME), 8.0)) == ["member", "Offer", "member"]
    assert kinds(stays.tabled(EpochId(1, 3), offers(ME), 8.1)) == ["Run", "member formed"]


def test_a_script_that_goes_on_after_sigterm_may_do_so_until_another_membership_waits_for_it() -> None:
    course = running()
    course.hurry(5.0)
    assert course.wake is None
    assert kinds(course.tick(100.0)) == []
    assert kinds(course.formed(form(2, PEER), 100.0)) == []
    assert kinds(course.tick(100.0)) == ["SIGKILL"]
    assert kinds(course.ended(-9, 100.1)) == ["ready"]


def test_all_are_done_only_together() -> None:
    course = running()
    assert kinds(course.ended(0, 5.0)) == ["done formed"]
    assert kinds(course.formed(form(2), 6.0)) == ["member", "Offer", "member"]
    assert kinds(course.tabled(EpochId(1, 2), offers(ME, done=True) | offers(PEER), 6.0)) == ["Run", "member formed"]
    assert kinds(course.ended(0, 7.0)) == ["done formed"]
    course.formed(form(3), 8.0)
    assert kinds(course.tabled(EpochId(1, 3), offers(done=True), 8.0)) == ["done formed"]
    assert kinds(course.finish(9.0)) == ["end 0"]


def test_a_killed_script_takes_its_keeper_with_it_at_once() -> None:
    assert kinds(running().ended(-9, 5.0)) == ["failed/", "end -9"]
    assert kinds(running(members=(ME,)).ended(1, 5.0)) == ["end 1"]  # nobody else can be the cause


def test_a_script_that_fails_because_another_did_is_started_again() -> None:
    course = running()
    assert kinds(course.ended(1, 5.0)) == ["failed/", "member formed fault"]
    assert course.wake == 5.5
    assert kinds(course.formed(form(2), 5.2)) == ["member", "Offer", "member"]
    assert course.tick(6.0) == []


def test_a_script_that_fails_after_another_waits_for_what_comes_of_that() -> None:
    course = running()
    assert course.tabled(EpochId(1, 1), {**offers(), f"failed/{PEER}": b"1"}, 4.9) == []
    assert course.ended(1, 5.0) == []
    assert course.wake is None
    assert kinds(course.formed(form(2, recoveries=1), 20.0)) == ["member", "Offer", "member"]


def test_a_script_that_fails_because_a_pod_is_lost_waits_for_its_replacement() -> None:
    course = running()
    course.ended(1, 5.0)
    assert course.tabled(EpochId(1, 1), {**offers(), f"lost/{PEER}": b""}, 5.1) == []
    assert course.wake is None
    assert course.tick(60.0) == []
    assert kinds(course.formed(form(2, recoveries=1), 60.0)) == ["member", "Offer", "member"]


def test_a_script_that_failed_first_ends_its_keeper() -> None:
    course = running()
    course.ended(3, 5.0)
    assert kinds(course.tick(5.5)) == ["end 3"]


def test_young_failures_wait_longer_and_longer() -> None:
    waits = []
    for recoveries in (1, 2, 4, 20):
        course = running(recoveries=recoveries)
        assert kinds(course.ended(-9, 5.0)) == ["failed/", "member formed"]  # a fault would call for it at once
        assert course.wake is not None
        waits.append(course.wake - 5.0)
    assert waits == [1.0, 2.0, 8.0, 30.0]
    assert kinds(running(recoveries=20).ended(-9, 10.0)) == ["failed/", "end -9"]


def test_a_stop_ends_the_script() -> None:
    course = running()
    assert kinds(course.stop(5.0)) == ["SIGTERM"]
    assert course.stop(6.0) == []  # told again, it is not told again
    assert kinds(course.tick(29.9)) == []
    assert kinds(course.tick(31.0)) == ["end 0"]
    again = running()
    again.stop(5.0)
    assert kinds(again.ended(-15, 5.1)) == ["end 0"]


def test_what_it_tells() -> None:
    """It holds the state from when it first stands."""
    course = Course(ME, 30.0)
    (told, offer, waits) = course.formed(form(1), 0.0)
    assert told == Tell(ProcessPhase.MEMBER, EpochId(1, 1))
    assert offer == Offer(form(1), done=False, leaving=False)
    assert waits == Tell(ProcessPhase.MEMBER, EpochId(1, 1), waiting=True)
    run, stands = course.tabled(EpochId(1, 1), offers(), 0.0)
    assert isinstance(run, Run)
    assert stands == Tell(ProcessPhase.MEMBER, EpochId(1, 1), formed=True, has_state=True)
    assert course.hurry(1.0) == [Say(EpochId(1, 1), LEAVING), Send(signal.SIGTERM)]
