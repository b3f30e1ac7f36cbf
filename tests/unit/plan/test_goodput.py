"""Where does a job's time go, whoever dies meanwhile?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.constants import ROLE_COORDINATOR, ROLE_WORKER
from drivetrain_api.energy_status import EnergyStatus, UsedEnergy
from drivetrain_api.goodput import Category
from drivetrain_api.goodput_status import CountedTime, GoodputStatus
from drivetrain_api.messages import Progress
from drivetrain_api.report import JobState
from drivetrain_api.status import ProgressStatus
from drivetrain_operator.plan.ledger import Ledger, Told, counted
from drivetrain_operator.plan.patch import only_counts
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.roster import roster
from drivetrain_operator.plan.view import PodPhase, Refusal, RefusalKind, Terminated, View
from unit.plan.builders import NOW, coordinator, job, pending, replaced, report, running, seen, spec, started
from unit.plan.world import SHARES, World

EVENTS = 260
SKEW = 0.5
"""Seconds by which operators' clocks may be wrong."""


def goodput(world: World) -> GoodputStatus:
    assert world.status.goodput is not None
    return world.status.goodput


def wall(world: World) -> float:
    return (world.now - NOW).total_seconds()


class History:
    """A long life of one job, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(
            spec(
                workers=3,
                elastic={"minWorkers": 1, "maxWorkers": 5},
                recovery={"maxRestarts": 100_000},
                training={"steps": 10**9},
            )
        )
        self.last: dict[str, float] = {}
        self.kinds: dict[str, int] = {}

    def live(self, seconds: float, *, operator: bool = True) -> None:
        """Time passes in which nothing goes wrong; `operator`: one runs."""
        while seconds > 0:
            step = min(seconds, self.random.choice((0.5, 1.0, 1.0, 3.0)))
            self.world.tick(step)
            self.world.kubelets()
            if operator:
                if self.random.random() < 0.8:  # else that report is lost
                    self.world.coordinate(self.random.randint(0, 5))
                self.world.reconcile()
                self.check()
            seconds -= step

    def event(self) -> None:
        world = self.world
        kind = self.random.choice(
            ("worker", "worker", "worker", "coordinator", "both", "suspend", "resize", "operator", "away", "conflict")
        )
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        workers = [p.name for p in world.running(ROLE_WORKER)]
        coordinators = [p.name for p in world.running(ROLE_COORDINATOR)]
        if kind in ("worker", "both") and workers:
            world.end(self.random.choice(workers), 137)
        if kind in ("coordinator", "both") and coordinators:
            world.end(coordinators[0], 1)
        if kind == "suspend":
            self.edit(suspend=not world.spec.suspend)
            self.live(self.random.uniform(0, 20))
            self.edit(suspend=False)
        if kind == "resize":
            self.edit(workers=self.random.randint(1, 5))
        if kind == "operator":
            self.new_operator()
        if kind == "away":
            self.live(self.random.uniform(1, 90), operator=False)
            self.new_operator()
        if kind == "conflict":
            view = world.view()
            world.version += 1
            world.apply(view, world.reconcile())

    def new_operator(self) -> None:
        """Its clock is not that of the one before."""
        self.world.leading_since = self.world.now
        self.world.skew = timedelta(seconds=self.random.uniform(-SKEW, SKEW))

    def edit(self, **fields: object) -> None:
        self.world.spec = self.world.spec.model_copy(update=fields)
        self.world.generation += 1
        self.world.version += 1

    def check(self) -> None:
        """Nothing is taken back, and nothing is counted that has not passed."""
        if self.world.status.goodput is None:
            return
        seconds = goodput(self.world).seconds
        assert all(seconds.get(name, 0.0) >= value for name, value in self.last.items())
        assert sum(seconds.values()) <= wall(self.world) + SKEW + 0.02
        self.last = seconds


@pytest.mark.parametrize("seed", range(4))
def test_all_time_is_counted_once_through_hundreds_of_kills_suspends_and_resizes(seed: int) -> None:
    history = History(seed)
    history.live(20)
    for _ in range(EVENTS):
        history.event()
        history.live(history.random.expovariate(1 / 15))
    history.live(60)
    history.edit(suspend=True)
    history.world.reconcile()
    world, found = history.world, goodput(history.world)
    assert set(history.kinds) == {
        "worker", "coordinator", "both", "suspend", "resize", "operator", "away", "conflict"
    }  # fmt: skip
    assert sum(found.seconds.values()) == pytest.approx(wall(world), rel=0.001)
    truth, trained = world.times.truth, sum(found.seconds.get(str(each), 0.0) for each in SHARES)
    assert trained == pytest.approx(truth[Category.PRODUCTIVE], rel=0.03)
    assert found.seconds["suspended"] == pytest.approx(truth[Category.SUSPENDED], rel=0.02, abs=2)
    # The last moments before suspensions, of which nobody told.
    assert found.seconds.get("other", 0.0) < 0.01 * wall(world)
    assert found.ratio == pytest.approx(found.seconds["productive"] / wall(world), abs=0.001)


# --- the fold ---------------------------------------------------------------------------------------------------------

P, R, D, Q = Category.PRODUCTIVE, Category.RECOVERING, Category.DATA, Category.QUEUED
TRAINING = Ledger({P: 90.0, Category.STARTING: 10.0}, None, 3, {P: 50.0})
"""At 100 s of its life, told by the coordinator of term 3."""


@pytest.mark.parametrize(
    ("what", "told", "now", "expect"),
    [
        ("nobody tells", None, 130, {}),
        ("ten seconds more", Told(110, 3, {P: 60.0}), 111, {P: 10}),
        ("two reports were lost", Told(140, 3, {P: 70.0, D: 20.0}), 140, {P: 20, D: 20}),
        ("the same again", Told(100, 3, {P: 50.0}), 101, {}),
        ("it came a second late", Told(111, 3, {P: 60.0}), 111, {P: 11}),
        ("numbers that fall", Told(110, 3, {P: 40.0, R: 10.0}), 110, {R: 10}),
        ("more seconds than have passed", Told(110, 3, {P: 1e9}), 110, {P: 10}),
        ("more of all than have passed", Told(110, 3, {P: 1e9 + 50, D: 1e9}), 110, {P: 5, D: 5}),
        ("a coordinator that stood still", Told(200, 3, {P: 60.0}), 200, {P: 10, Category.OTHER: 90}),
        ("one of an older term", Told(110, 2, {P: 900.0}), 110, {}),
        ("a successor that does not know yet", Told(110, 4, {}), 110, {}),
        ("a successor that finds it training", Told(120, 4, {P: 3.0, D: 1.0}, went_on=True), 120, {P: 15, D: 5}),
        ("a successor that finds it broken", Told(120, 4, {R: 5.0}), 120, {R: 20}),
        ("a successor that nobody has told of the training", Told(110, 4, {Category.STARTING: 5.0}), 110, {R: 10}),
        ("a clock that was set back", Told(90, 3, {P: 60.0}), 91, {}),
    ],
)
def test_of_coordinators(what: str, told: Told | None, now: float, expect: dict[Category, float]) -> None:
    after = counted(TRAINING, told, now, None)
    grown = {each: after.seconds.get(each, 0.0) - TRAINING.seconds.get(each, 0.0) for each in Category}
    assert {each: value for each, value in grown.items() if value > 1e-3} == pytest.approx(expect, abs=1e-3)


@pytest.mark.parametrize(
    ("what", "before", "told", "standing", "closes", "expect"),
    [
        ("starts on", Category.STARTING, None, Category.STARTING, False, {Category.STARTING: 50}),
        (
            "starts, as its coordinator says, too",
            Category.STARTING,
            Told(149, 1, {Category.STARTING: 9.0}),
            Category.STARTING,
            False,
            {Category.STARTING: 49},
        ),
        ("no room any more", Category.STARTING, None, Q, False, {Category.STARTING: 50}),
        ("there is room", Q, None, Category.STARTING, False, {Q: 50}),
        ("it trains", Q, Told(149, 1, {Category.STARTING: 9.0, P: 20.0}), None, False, {Q: 29.0 + 1, P: 20}),
        ("resumed", Category.SUSPENDED, None, Category.STARTING, False, {Category.SUSPENDED: 50}),
        ("suspended in time", None, Told(149.5, 3, {P: 99.5}), Category.SUSPENDED, True, {P: 50}),
        ("suspended unheard", None, None, Category.SUSPENDED, True, {Category.OTHER: 50}),
        ("deleted while queued", Q, None, None, True, {Q: 50}),
    ],
)
def test_of_what_the_operator_sees(
    what: str,
    before: Category | None,
    told: Told | None,
    standing: Category | None,
    closes: bool,
    expect: dict[Category, float],
) -> None:
    known = replace(
        TRAINING, standing=before, term=3 if before is None else 0, told={P: 50.0} if before is None else {}
    )
    after = counted(known, told, 150, standing, closes=closes)
    grown = {each: after.seconds.get(each, 0.0) - TRAINING.seconds.get(each, 0.0) for each in Category}
    assert {each: value for each, value in grown.items() if value > 1e-3} == pytest.approx(expect, abs=1e-3)
    assert after.standing is standing


# --- the policy -------------------------------------------------------------------------------------------------------


def counting(**counted: Any) -> GoodputStatus:
    """Of a job of 900 s, 890 of which are counted."""
    return GoodputStatus(
        ratio=0.9, summary="90.0%", seconds={"productive": 800.0, "starting": 90.0},
        counted=CountedTime(**({"term": 1, "told": {"productive": 800.0}} | counted)),
    )  # fmt: skip


def trains(productive: float = 809.5, **fields: Any) -> View:
    """As `running`, with a coordinator that tells of its time."""
    status = started(goodput=fields.pop("goodput", counting()))
    view = running(status=status, report=report(spent={"productive": productive}, **fields))
    return replace(view, job=replace(view.job, status=plan(view).status))


def test_time_alone_is_no_write() -> None:
    view = trains()
    later = replace(view, now=NOW + timedelta(seconds=5), report=report(spent={"productive": 814.5}))
    assert plan(later).status == later.job.status
    minute = replace(view, now=NOW + timedelta(seconds=61), report=report(spent={"productive": 870.5}))
    assert plan(minute).status == minute.job.status  # the step is the same, too


def test_it_is_counted_with_what_else_is_written() -> None:
    view = trains()
    later = replace(
        view,
        now=NOW + timedelta(seconds=61),
        report=report(spent={"productive": 870.5}, progress=Progress(step=50, steps=100)),
    )
    found = plan(later).status.goodput
    assert found is not None
    assert sum(found.seconds.values()) == pytest.approx(960.5, abs=0.01)


def test_it_does_not_make_counting_pods_urgent() -> None:
    one = started(goodput=counting())
    more = one.model_copy(update={"goodput": counting(steps=5), "workers": one.workers.model_copy(update={"ready": 2})})
    assert only_counts(one, more)


def test_nor_does_electricity() -> None:
    one, more = (started(energy=EnergyStatus(used=UsedEnergy(kwh=kwh))) for kwh in ("1", "2"))
    assert only_counts(one, more)
    assert only_counts(started(), more)


@pytest.mark.parametrize(
    ("what", "view", "standing"),
    [
        ("new", View(job=job(), now=NOW), "starting"),
        ("no room", running(pods=(pending(0, unschedulable="0/3 nodes"),), report=None,
                            status=started(goodput=counting(standing="starting"))), "queued"),
        ("no quota", running(pods=(), report=None, status=started(goodput=counting(standing="starting")),
                             refusals=(Refusal("lm-0", RefusalKind.QUOTA, "used up", 1, 1.0),)), "queued"),
        ("waits for its last pod", running(pods=(pending(0, unschedulable="0/3 nodes"),),
                                           report=report(state=JobState.WAITING, epoch=None, progress=None,
                                                         spent={"starting": 5.0}),
                                           status=started(goodput=counting(standing="starting"))), "queued"),
        ("no room for a replacement", running(pods=(pending(0, unschedulable="0/3 nodes"),), report=None,
                                              status=started(goodput=counting())), None),
        ("trains", trains(), None),
        ("trains, told by an older release", running(status=started(goodput=counting())), "other"),
        ("suspended", running(spec(suspend=True), status=started(goodput=counting())), "suspended"),
        ("of an older release", running(report=None, status=started()), "other"),
    ],
)  # fmt: skip
def test_what_holds_from_now_on(what: str, view: View, standing: str | None) -> None:
    found = plan(seen(view)).status.goodput
    assert found is not None
    assert found.counted.standing == standing


def test_a_job_that_has_ended_is_counted_to_its_end() -> None:
    view = trains(state=JobState.COMPLETE)
    found = plan(view).status
    assert found.finished
    assert found.goodput is not None
    assert sum(found.goodput.seconds.values()) == pytest.approx(900, abs=0.01)


def test_what_a_predecessor_told_last_counts_although_its_successor_is_there() -> None:
    """It died after a report that was heard and not written yet."""
    view = trains()
    dead = replace(coordinator(), phase=PodPhase.FAILED, ready=False, terminated=Terminated(1))
    late = replace(
        replaced(view, dead), now=NOW + timedelta(seconds=20), report=report(age=10, spent={"productive": 819.0})
    )
    status = plan(late).status
    assert status.membership.term == 2
    assert status.goodput is not None
    assert sum(status.goodput.seconds.values()) == pytest.approx(910, abs=0.01)


def test_steps_that_were_made_before_are_told_to_the_coordinator() -> None:
    view = running(status=started(goodput=counting(), progress=ProgressStatus(step=70, steps=100)))
    lost = replace(view, report=report(state_lost=1, progress=Progress(step=3, steps=100), spent={"recovering": 1.0}))
    status = plan(lost).status
    assert status.goodput is not None
    assert status.goodput.counted.steps == 70
    assert roster(replace(view, job=replace(view.job, status=status))).trained == 70


def test_a_script_that_tells_of_no_step_has_no_ratio() -> None:
    view = trains(goodput=GoodputStatus(seconds={"other": 890.0}, counted=CountedTime(term=1)), productive=0.0)
    later = replace(view, report=report(spent={"other": 9.5}, state=JobState.COMPLETE, progress=None))
    found = plan(later).status.goodput
    assert found is not None
    assert (found.ratio, found.summary) == (None, "")
