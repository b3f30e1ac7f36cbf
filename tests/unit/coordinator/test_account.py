"""How a coordinator tells of the time of its term."""

from __future__ import annotations

import pytest

from drivetrain_api.goodput import Activity
from drivetrain_api.messages import Boundary, EpochId, Form, Member, ProcessPhase, Progress
from drivetrain_api.places import STOCK, Place
from drivetrain_api.report import Report
from drivetrain_coordinator.membership import Machine
from drivetrain_coordinator.membership.account import Account
from unit.coordinator.bench import Bench, only_form


class Clock(Bench):
    """A bench that has begun just now."""

    def __init__(self, term: int = 1) -> None:
        super().__init__(term)
        self.machine = Machine(self.machine.state.identity, now=self.now)
        self.began = self.now
        self._spent: dict[str, dict[str, float]] = {}

    def told(self) -> dict[str, float]:
        """Seconds by category, none of which is missing or there twice."""
        report: Report = self.machine.report(1)
        assert report.spent is not None
        assert sum(report.spent.values()) + report.untold_seconds == pytest.approx(self.now - self.began, abs=0.26)
        return report.spent

    def spend(self, seconds: float, **ranks: dict[str, float]) -> None:
        """Ranks make steps for so long, and tell in which shares they spent their time."""
        for _ in range(round(seconds / 0.5)):
            self.now += 0.5
            for pod in self.processes:
                self.say(pod)
            for name, shares in ranks.items():
                mine = self._spent.setdefault(name, dict.fromkeys(Activity, 0.0))
                for activity, share in shares.items():
                    mine[activity] += 0.5 * share
                self.change(name, step=self.processes[name[0]][name].step + 1, spent=dict(mine))

    def start(self, *names: str, seconds: float = 2.0, minimum: int = 1) -> None:
        """A job that began to train so long after its coordinator."""
        self.wait(seconds)
        self.train(*names, minimum=minimum)
        self.spend(0.5, **{name: {"work": 1.0} for name in names})


def test_a_job_starts_forms_and_trains() -> None:
    clock = Clock()
    clock.roster("ab", 2, 2)
    clock.wait(5)
    form = only_form(clock.ready("a1", "b1"))
    clock.wait(2, heard="ab")
    clock.stand(form)
    clock.spend(10, a1={"work": 1.0}, b1={"work": 1.0})
    assert clock.told() == pytest.approx({"starting": 5, "forming": 2, "productive": 10}, abs=1.1)


def test_what_ranks_do_is_the_mean_over_them() -> None:
    clock = Clock()
    clock.start("a1", "b1")
    clock.spend(60, a1={"data": 0.5, "work": 0.5}, b1={"snapshot": 0.1, "other": 0.1, "work": 0.8})
    expect = {"starting": 2, "data": 15, "snapshot": 3, "other": 3, "productive": 39}
    assert clock.told() == pytest.approx(expect, abs=1.5)


def test_others_are_waited_for_longer_than_anybody_waits() -> None:
    """What travels takes all of them the same time, and is a part of the step."""
    clock = Clock()
    clock.start("a1", "b1", "c1")
    fast = {"waiting": 0.7, "work": 0.3}
    clock.spend(60, a1=fast, b1=fast, c1={"waiting": 0.1, "work": 0.9})
    assert clock.told() == pytest.approx({"starting": 2, "waiting": 24, "productive": 36.5}, abs=1.5)


def test_a_loss_is_recovered_from_until_all_have_made_a_step() -> None:
    clock = Clock()
    clock.start("a1", "b1")
    clock.spend(5, a1={"work": 1.0}, b1={"work": 1.0})
    form = only_form(clock.die("b1"))
    clock.wait(3, heard="a")
    clock.stand(form, step=20)
    clock.wait(4, heard="a")
    assert clock.told() == pytest.approx({"starting": 2, "productive": 5.5, "recovering": 7}, abs=0.3)
    clock.spend(5, a1={"work": 1.0})
    assert clock.told() == pytest.approx({"starting": 2, "productive": 10.5, "recovering": 7.5}, abs=1.1)


def test_a_join_is_resizing_from_the_step_boundary_on() -> None:
    clock = Clock()
    clock.start("a1")
    clock.roster("ab", 2, 1)
    form = only_form(clock.ready("b1"))
    assert form.boundary is Boundary.STEP
    clock.spend(3, a1={"work": 1.0})  # it trains on until then
    clock.change("a1", phase=ProcessPhase.MEMBER, epoch=form.epoch, formed=False)
    clock.wait(2, heard="ab")
    clock.stand(form, step=20)
    clock.spend(3, a1={"work": 1.0}, b1={"work": 1.0})
    assert clock.told() == pytest.approx({"starting": 2, "productive": 6.5, "resizing": 2}, abs=1.1)


def test_steps_that_were_made_before_are_redone() -> None:
    clock = Clock()
    clock.wait(2)
    clock.roster("a", 1, 1, trained=10)
    clock.stand(only_form(clock.ready("a1")), step=0)
    clock.spend(20, a1={"work": 0.8, "data": 0.2})
    told = clock.told()
    assert told["redone"] == pytest.approx(0.8 * 4.5, abs=1.0)
    assert told["productive"] == pytest.approx(0.8 * 15.5, abs=1.5)
    assert told["data"] == pytest.approx(0.2 * 20, abs=0.5)


def test_images_that_tell_nothing_train() -> None:
    clock = Clock()
    clock.wait(2)
    clock.train("a1")
    clock.wait(10, heard="a")
    assert clock.told() == pytest.approx({"starting": 2, "productive": 10}, abs=1.1)


class TestStock:
    """Of a script that tells no steps, nobody can say what it does."""

    def stock(self) -> Clock:
        clock = Clock()
        clock.roster("a", 1, 1)
        form = only_form([*clock.ready("a1"), *clock.change("a1", place=Place(operation=STOCK))])
        clock.stand(form, step=-1)
        return clock

    def test_without_a_word(self) -> None:
        clock = self.stock()
        clock.wait(20, heard="a")
        assert clock.told() == pytest.approx({"other": 20}, abs=1.1)

    def test_with_its_progress(self) -> None:
        clock = self.stock()
        for step in range(20):
            clock.wait(1, heard="a")
            clock.say("a", progress=Progress(step=step))
        clock.wait(200, heard="a")
        assert clock.told() == pytest.approx({"productive": 80, "other": 140}, abs=3)

    def test_that_goes_back_to_its_checkpoint(self) -> None:
        clock = self.stock()
        for step in (*range(10), *range(5, 15)):
            clock.wait(1, heard="a")
            clock.say("a", progress=Progress(step=step, goes_back=True))
        told = clock.told()
        assert told["redone"] == pytest.approx(4, abs=2.1)


class TestSuccessor:
    """A coordinator that comes to a job that was there before."""

    def successor(self, alive: str) -> Clock:
        clock = Clock(term=2)
        clock.wait(1)
        clock.roster("ab", 2, 1, term=2)
        seated = [Member(process=f"{pod}/b/1", pod_uid=pod, new=False) for pod in "ab"]
        form = Form(epoch=EpochId(1, 4), members=seated, boundary=Boundary.NOW)
        clock.wait(1)
        for pod in alive:
            clock.hand_over(f"{pod}1", form)
        return clock

    def test_of_which_it_knows_nothing_yet(self) -> None:
        clock = self.successor("")
        report = clock.machine.report(1)
        assert (report.spent, report.went_on) == ({}, False)
        assert report.untold_seconds == pytest.approx(2, abs=0.26)

    def test_that_trains_has_trained_all_the_time(self) -> None:
        clock = self.successor("ab")
        clock.spend(5, a1={"work": 1.0}, b1={"work": 1.0})
        assert clock.told() == pytest.approx({"productive": 7}, abs=1.1)
        assert clock.machine.report(1).went_on

    def test_that_has_lost_a_member_is_being_recovered(self) -> None:
        clock = self.successor("a")
        clock.roster("a", 2, 1, term=2, dead="b")
        clock.wait(3, heard="a")
        assert set(clock.told()) == {"recovering"}
        assert not clock.machine.report(1).went_on

    def test_of_which_nobody_tells_starts_as_far_as_it_knows(self) -> None:
        clock = self.successor("")
        clock.wait(60)
        assert clock.told() == pytest.approx({"starting": 62}, abs=1.1)


def test_a_clock_that_stands_still_adds_nothing() -> None:
    clock = Clock()
    account = Account(clock.now)
    account.look(clock.machine.state, clock.now)
    account.look(clock.machine.state, clock.now - 5)
    assert account.untold() == 0
