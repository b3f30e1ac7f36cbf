"""How is a job's plan of energy made, kept, and followed?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from drivetrain_api.messages import Progress
from drivetrain_api.spec import TrainingJobSpec
from drivetrain_api.status import Condition, ConditionType, ProgressStatus, TrainingJobStatus
from drivetrain_energy.job.request import Request
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.effects import CreateWorker, DeletePod, Plan
from drivetrain_operator.plan.energy.asked import START_SECONDS, asked
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.stored import read
from drivetrain_operator.plan.view import ReportView, Supply, View
from unit.plan import builders as b

HOUR = 3600.0
DIRTY, CLEAN = 500.0, 50.0
PROFILE = [{"workers": n, "stepsPerSecond": n**0.9, "watts": 300.0 * n} for n in range(1, 5)]
ELASTIC = {"minWorkers": 1, "maxWorkers": 4}
SNAPSHOTS = {"storage": {"path": "/snapshots"}}


def signal(*values: float, quality: Quality = Quality.FORECAST, vintage: float = 1.0) -> Signal:
    """Hourly, from now on."""
    begin = b.NOW.timestamp()
    slots = tuple(Slot(begin + i * HOUR, begin + (i + 1) * HOUR, value) for i, value in enumerate(values))
    return Signal("DE", Measure.AVERAGE, quality, slots, vintage, "test")


def spec(hours: float = 12.0, steps: int = 10_000, **energy: Any) -> TrainingJobSpec:
    """Two of one to four workers: 10,000 steps take 90 minutes."""
    wish = {"deadline": (b.NOW + timedelta(hours=hours)).isoformat(), "profile": PROFILE, "minRunSeconds": 0} | energy
    wish = {key: value for key, value in wish.items() if value is not None}
    return b.spec(workers=2, elastic=ELASTIC, snapshots=SNAPSHOTS, training={"steps": steps}, energy=wish)


def view(
    of: TrainingJobSpec,
    status: TrainingJobStatus | None = None,
    *,
    given: Signal | None = None,
    later: float = 0.0,
    **fields: Any,
) -> View:
    supply = fields.pop("supply", Supply("DE", {Measure.AVERAGE: given} if given is not None else {}))
    return View(b.job(of, status, created=b.NOW), b.NOW + timedelta(seconds=later), supply=supply, **fields)


def condition(of: Plan) -> tuple[str, str]:
    found = of.status.condition(ConditionType.ENERGY_PLANNED)
    assert isinstance(found, Condition)
    return found.status, found.reason


def fresh(of: Signal) -> Signal:
    """Made at this moment."""
    return replace(of, vintage=b.NOW.timestamp())


NIGHT = signal(DIRTY, DIRTY, DIRTY, DIRTY, CLEAN, CLEAN, CLEAN, CLEAN, DIRTY, DIRTY, DIRTY, DIRTY)


def test_it_waits_for_the_clean_hours_and_says_until_when() -> None:
    done = plan(view(spec(), given=NIGHT))
    assert condition(done) == ("True", "Planned")
    assert done.status.is_true(ConditionType.SUSPENDED)
    assert done.status.energy is not None
    assert done.status.energy.order is not None
    assert done.status.energy.order.workers == 0
    assert done.status.energy.summary == "plan: waits for 21 Nov 16:00Z"
    assert not [e for e in done.effects if isinstance(e, CreateWorker)]
    assert done.requeue_after == HOUR  # to remember what intensity there was
    later = plan(view(spec(), done.status, given=NIGHT, later=3.5 * HOUR))
    assert later.requeue_after is not None
    assert later.requeue_after <= 0.5 * HOUR


def test_it_starts_when_they_come() -> None:
    waits = plan(view(spec(), given=NIGHT)).status
    done = plan(view(spec(), waits, given=NIGHT, later=4 * HOUR + 1))
    assert not done.status.is_true(ConditionType.SUSPENDED)
    assert done.status.start_time is not None
    assert done.status.workers.target in (1, 2, 3, 4)


def test_what_was_planned_stays_as_it_is() -> None:
    """Another operator goes on with it, and writes nothing."""
    first = plan(view(spec(), given=NIGHT)).status
    stored, _ = read(status_json(first))
    again = plan(view(spec(), stored, given=NIGHT, later=30.0))
    assert again.status.energy == first.energy
    assert again.status == stored


@pytest.mark.parametrize(
    ("name", "of", "given", "expected"),
    [
        ("no signal", spec(), None, ("False", "RunsAtOnce")),
        ("a static one", spec(), signal(*[300.0] * 12, quality=Quality.STATIC), ("False", "RunsAtOnce")),
        ("none", spec(), signal(quality=Quality.NONE), ("False", "RunsAtOnce")),
        ("no deadline", spec(deadline=None), NIGHT, ("False", "NoDeadline")),
        ("a deadline that is near", spec(0.95), NIGHT, ("False", "FlatOut")),
        ("one that is past", spec(-1), NIGHT, ("False", "FlatOut")),
        ("time is what counts", spec(objective="time"), NIGHT, ("False", "FlatOut")),
        ("no profile", spec(profile=None), NIGHT, ("False", "PaceUnknown")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_runs_at_once(name: str, of: TrainingJobSpec, given: Signal | None, expected: tuple[str, str]) -> None:
    done = plan(view(of, given=given))
    assert condition(done) == expected
    assert not done.status.is_true(ConditionType.SUSPENDED)
    assert done.status.workers.target >= 2


def test_without_steps_nobody_knows_how_much_is_left() -> None:
    of = spec().model_copy(update={"training": b.spec().training})
    assert condition(plan(view(of, given=NIGHT))) == ("False", "StepsUnknown")


def test_a_job_that_wishes_nothing_is_as_ever() -> None:
    done = plan(view(b.spec(), given=NIGHT))
    assert done.status.energy is None
    assert done.status.condition(ConditionType.ENERGY_PLANNED) is None


def running(of: TrainingJobSpec, step: int = 1000, **fields: Any) -> tuple[TrainingJobStatus, dict[str, Any]]:
    """It has trained for ten minutes with its two workers."""
    pods = (b.worker(0), b.worker(1), b.coordinator())
    return b.started(of, **fields), {"pods": pods, "service": b.service(), "report": told(2**-0.9, step)}


def told(step_seconds: float, step: int = 1000) -> ReportView:
    """By the coordinator of two workers."""
    found = b.report(progress=Progress(step=step - 1, steps=10_000, step_seconds=step_seconds), world=2)
    two = {name: getattr(found.report, name)[:2] for name in ("members", "joined", "ready")}
    return ReportView(found.report.model_copy(update=two), found.age_seconds)


def test_it_shrinks_before_it_rests() -> None:
    """A dirty hour, and no snapshots: with fewer workers at once, and none is suspended."""
    of = spec(steps=3_000).model_copy(update={"snapshots": None})
    status, seen = running(of)
    done = plan(view(of, status, given=NIGHT, **seen))
    assert condition(done) == ("True", "Planned")
    assert not done.status.is_true(ConditionType.SUSPENDED)
    assert done.status.workers.target == 1
    assert [e for e in done.effects if isinstance(e, DeletePod)]


def test_it_rests_where_no_step_is_lost() -> None:
    status, seen = running(spec())
    done = plan(view(spec(), status, given=NIGHT, **seen))
    assert done.status.is_true(ConditionType.SUSPENDED)
    found = done.status.condition(ConditionType.SUSPENDED)
    assert found is not None
    assert found.reason == "WaitsForEnergy"
    assert "snapshots" in found.message


def test_it_may_forbid_that() -> None:
    of = spec(suspend=False)
    status, seen = running(of)
    assert not plan(view(of, status, given=NIGHT, **seen)).status.is_true(ConditionType.SUSPENDED)


def test_a_user_who_suspends_is_heard_first() -> None:
    of = spec().model_copy(update={"suspend": True})
    done = plan(view(of, given=signal(*[CLEAN] * 12)))
    found = done.status.condition(ConditionType.SUSPENDED)
    assert found is not None
    assert found.reason == "JobSuspended"


def test_a_factor_makes_one_deadline_that_stays() -> None:
    of = spec(deadline=None, maxCompletionFactor=4)
    first = plan(view(of, given=NIGHT)).status
    assert first.energy is not None
    assert first.energy.plan is not None
    deadline = first.energy.plan.deadline
    status, seen = running(of)
    slower = status.model_copy(update={"energy": first.energy})
    seen["report"] = told(1.0)
    after = plan(view(of, slower, given=NIGHT, later=600.0, **seen)).status
    assert after.energy is not None
    assert after.energy.plan is not None
    assert after.energy.plan.deadline == deadline


def test_a_plan_holds_from_the_moment_it_is_made() -> None:
    """Whole seconds are written: what begins at half past is written as a second later, and holds before that, too."""
    of = spec()
    first = plan(view(of, given=NIGHT, later=0.6))
    assert first.status.energy is not None
    assert first.status.energy.order is not None
    again = plan(view(of, first.status, given=NIGHT, later=0.7))
    assert again.status.energy == first.status.energy


@pytest.mark.parametrize("given", [None, signal(quality=Quality.NONE), signal(300.0, quality=Quality.STATIC)])
def test_a_plan_outlives_its_feed_and_its_operator(given: Signal | None) -> None:
    """A leader that has just begun knows no signal yet: nobody is woken for that."""
    first = plan(view(spec(), given=fresh(NIGHT))).status
    after = plan(view(spec(), first, given=given, later=60.0))
    assert after.status.is_true(ConditionType.SUSPENDED)
    assert after.status.energy is not None
    assert after.status.energy.plan == (first.energy.plan if first.energy is not None else None)


def test_but_not_for_ever() -> None:
    late = signal(*[DIRTY] * 20, *[CLEAN] * 4)
    first = plan(view(spec(24.0), given=fresh(late))).status
    after = plan(view(spec(24.0), first, later=7 * HOUR))
    assert condition(after) == ("False", "RunsAtOnce")


def test_a_new_job_waits_for_the_first_answer_of_a_leader_that_has_just_begun() -> None:
    asks = Supply("DE", {}, pending=True)
    first = plan(view(spec(), supply=asks))
    assert first.status.is_true(ConditionType.SUSPENDED)
    assert first.requeue_after is not None
    after = plan(view(spec(), first.status, given=signal(*[CLEAN, *[DIRTY] * 11]), later=10.0))
    assert not after.status.is_true(ConditionType.SUSPENDED)
    status, seen = running(spec())
    assert not plan(view(spec(), status, supply=asks, **seen)).status.is_true(ConditionType.SUSPENDED)
    assert not plan(view(spec(deadline=None), supply=asks)).status.is_true(ConditionType.SUSPENDED)


@pytest.mark.parametrize("deadline", ["2026-11-22T00:00:00.5Z", "2026-11-22T00:00:00.499999+00:00"])
def test_a_deadline_within_a_second_makes_no_plan_in_every_pass(deadline: str) -> None:
    of = spec(deadline=deadline)
    first = plan(view(of, given=NIGHT)).status
    stored, _ = read(status_json(first))
    assert plan(view(of, stored, given=NIGHT, later=30.0)).status == stored


@pytest.mark.parametrize(
    "wish",
    [
        {"profile": [{"workers": 2, "stepsPerSecond": 1e-9, "watts": 1e9}]},
        {"profile": [{"workers": 2, "stepsPerSecond": 1e-9, "watts": 1e9}], "deadline": None, "maxCompletionFactor": 9},
        {"deadline": "9999-12-31T23:59:59-23:59"},
        {"deadline": "0001-01-01T00:00:00+23:59"},
    ],
)
def test_what_is_never_done_is_planned_all_the_same(wish: dict[str, Any]) -> None:
    """A defect here would end every pass over the job."""
    of = spec(**wish)
    stored, mended = read(status_json(plan(view(of, given=NIGHT)).status))
    assert not mended
    assert plan(view(of, stored, given=NIGHT, later=30.0)).status == stored


STRIPES = signal(CLEAN, DIRTY, DIRTY, DIRTY, CLEAN, DIRTY, DIRTY, DIRTY)


def trained(step: int) -> TrainingJobStatus:
    """Its plan was made before its first step, and expected so many by now."""
    status, seen = running(spec(8.0, marginPercent=0))
    planned = plan(view(spec(8.0, marginPercent=0), status, given=STRIPES, **seen)).status
    return planned.model_copy(update={"progress": ProgressStatus(step=step, steps=10_000)})


def rested() -> TrainingJobStatus:
    """In a dirty hour, by a plan that began an hour ago and goes on in three."""
    status = trained(6_700)
    _, seen = running(spec())
    return plan(view(spec(8.0, marginPercent=0), status, given=STRIPES, later=HOUR + 1, **seen)).status


def test_who_rests_says_when_it_goes_on_and_not_when_it_began() -> None:
    status = rested()
    assert status.is_true(ConditionType.SUSPENDED)
    assert status.energy is not None
    assert status.energy.summary == "plan: waits for 21 Nov 16:00Z"


def test_who_is_resumed_has_only_the_work_left_that_it_had() -> None:
    """It has told no step yet: that is no reason to take all of them for left, and to run flat out."""
    status = rested()
    resumed = plan(view(spec(8.0, marginPercent=0), status, given=STRIPES, later=4 * HOUR + 1)).status
    assert not resumed.is_true(ConditionType.SUSPENDED)
    assert resumed.progress is None
    again = plan(view(spec(8.0, marginPercent=0), resumed, given=STRIPES, later=4 * HOUR + 30)).status
    assert again.energy == resumed.energy


def test_what_is_left_is_what_was_told_last() -> None:
    """Status is up to a minute old: of a plan of minutes that alone made another plan every few seconds."""
    status, seen = running(spec(), step=2000)
    status = status.model_copy(update={"progress": ProgressStatus(step=1000, steps=10_000)})
    now = view(spec(), status, given=NIGHT, **seen)
    assert now.job.spec is not None
    assert now.job.spec.energy is not None
    question = asked(now, status, now.job.spec, now.job.spec.energy)
    assert isinstance(question, Request)
    assert question.work_steps == 8000


@pytest.mark.parametrize("later", [HOUR + 1, 7.9 * HOUR, 9 * HOUR])
def test_who_has_done_all_steps_is_let_end(later: float) -> None:
    """Whatever its plan says of this hour, and though its deadline is close or over: nothing is planned, or written."""
    before = trained(10_000)
    _, seen = running(spec())
    done = plan(view(spec(8.0, marginPercent=0), before, given=STRIPES, later=later, **seen)).status
    assert not done.is_true(ConditionType.SUSPENDED)
    assert done.energy is not None
    assert before.energy is not None
    assert (done.energy.plan, done.energy.order) == (before.energy.plan, before.energy.order)


FAILING = Condition(type="SnapshotsFailing", status="True", reason="StorageFails", last_transition_time=b.NOW)


@pytest.mark.parametrize(
    "lost",
    [
        {"runtime": "torchrun"},
        {"conditions": [FAILING]},
    ],
    ids=["a script of torchrun's", "storage that fails"],
)
def test_nobody_is_put_to_rest_whose_snapshots_are_none(lost: dict[str, Any]) -> None:
    of = spec().model_copy(update={"runtime": "auto"})
    status, seen = running(of, **lost)
    done = plan(view(of, status, given=NIGHT, **seen)).status
    assert not done.is_true(ConditionType.SUSPENDED)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"objective": "time"}, ("False", "FlatOut")),
        ({"maxStartDelaySeconds": 0}, ("True", "Planned")),
    ],
)
def test_other_wishes_make_another_plan(change: dict[str, Any], expected: tuple[str, str]) -> None:
    """Though nothing else has changed: who wants it now does not wait for what was planned before."""
    waits = plan(view(spec(), given=NIGHT)).status
    done = plan(view(spec(**change), waits, given=NIGHT, later=60.0))
    assert condition(done) == expected
    assert not done.status.is_true(ConditionType.SUSPENDED)


def test_and_a_factors_deadline_stays() -> None:
    waits = plan(view(spec(deadline=None, maxCompletionFactor=8), given=NIGHT)).status
    assert waits.energy is not None
    faster = [{"workers": 2, "stepsPerSecond": 9, "watts": 1}]
    of = spec(deadline=None, maxCompletionFactor=8, objective="time", profile=faster)
    done = plan(view(of, waits, given=NIGHT, later=60.0)).status
    assert done.energy is not None
    assert done.energy.plan is not None
    assert waits.energy.plan is not None
    assert done.energy.plan.deadline == waits.energy.plan.deadline


def test_a_leader_that_begins_wakes_nobody_however_old_a_plan_is() -> None:
    """The plan has held for seven hours, by signals that came every hour and made no other one better."""
    late = signal(*[DIRTY] * 20, *[CLEAN] * 4)
    first = plan(view(spec(24.0), given=fresh(late))).status
    after = plan(view(spec(24.0), first, later=7 * HOUR, serving_seconds=2.0)).status
    assert after.is_true(ConditionType.SUSPENDED)
    assert after.energy is not None
    assert first.energy is not None
    assert after.energy.plan == first.energy.plan


def test_progress_that_is_told_late_makes_no_plan_at_the_end() -> None:
    """It is written once a minute, and a plan of the last minutes expects more than that."""
    of = spec(steps=10_000)
    status, seen = running(of, progress=ProgressStatus(step=9_500, steps=10_000))
    clean = signal(*[CLEAN] * 6, *[DIRTY] * 6)
    first = plan(view(of, status, given=clean, **seen)).status
    first = first.model_copy(update={"progress": status.progress})
    again = plan(view(of, first, given=clean, later=50.0, **seen)).status
    assert again.energy is not None
    assert first.energy is not None
    assert again.energy.plan == first.energy.plan


def test_who_waits_for_nothing_has_as_many_workers_as_its_deadline_needs() -> None:
    """Its usual two take 89 minutes: with three it is in time, and is not found late half-way."""
    done = plan(view(spec(1.4)))
    assert condition(done) == ("False", "RunsAtOnce")
    assert done.status.workers.target == 3
    assert done.status.energy is not None
    assert done.status.energy.plan is not None
    assert [slot.workers for slot in done.status.energy.plan.slots] == [3]
    assert "3 workers" in done.status.energy.plan.why


def test_and_no_more_where_its_own_size_is_not_in_its_profile() -> None:
    """Until it is measured, it is the nearest that its profile has."""
    of = spec(9.0, profile=[PROFILE[0], PROFILE[3]])
    first = plan(view(of)).status
    status, seen = running(of, energy=first.energy)
    done = plan(view(of, status, later=60.0, **seen))
    assert done.status.workers.target == 2


@pytest.mark.parametrize(("energy", "began"), [({"minRunSeconds": 86_400}, 0), ({"minRunSeconds": 900}, 20 * HOUR)])
def test_who_has_to_run_on_beyond_its_deadline_need_not_run_flat_out(energy: dict[str, Any], began: float) -> None:
    """So says its user, or a clock that was a day ahead when it began: it is on, at the sizes that cost least."""
    of = spec(**energy)
    status, seen = running(of, start_time=b.NOW + timedelta(seconds=began))
    done = plan(view(of, status, given=NIGHT, **seen))
    assert condition(done) == ("True", "Planned")


@pytest.mark.parametrize(("runtime", "seconds"), [("drivetrain", 1.0), ("torchrun", START_SECONDS)])
def test_a_resize_of_torchrun_starts_all_ranks_again(runtime: str, seconds: float) -> None:
    of = spec()
    wish = of.energy
    assert wish is not None
    status, _ = running(of, runtime=runtime)
    question = asked(view(of, status, given=NIGHT), status, of, wish)
    assert isinstance(question, Request)
    assert question.switch.resize == seconds
