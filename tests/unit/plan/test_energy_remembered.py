"""What a plan knows of its signal outlives the feed: a job that is slower than expected is planned anew by that."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivetrain_api.status import ProgressStatus, TrainingJobStatus
from drivetrain_energy.job.curve import Point
from drivetrain_energy.job.plan import Mode
from drivetrain_energy.job.planner import plan as planned
from drivetrain_energy.job.request import CARBON, COST, Objective, Request
from drivetrain_energy.signals.signal import Measure, Quality, Signal, Slot
from drivetrain_operator.plan.energy.remembered import newest, remembering
from drivetrain_operator.plan.energy.written import to_status
from drivetrain_operator.plan.patch import status_json
from drivetrain_operator.plan.plan import plan
from drivetrain_operator.plan.stored import read
from unit.plan import builders as b
from unit.plan.test_energy import CLEAN, DIRTY, HOUR, STRIPES, fresh, running, spec, view

OF = spec(8.0, marginPercent=0)
BEHIND = 5_000
"""Steps after an hour, of the 6,700 that its plan expects: too few, but its deadline is far."""
CURVE = tuple(Point(n, n**0.9, 300.0 * n) for n in range(1, 5))


def behind(feed: Signal | None, step: int = BEHIND) -> TrainingJobStatus:
    """Its plan was made with a feed that is gone an hour later, and it is slower than expected."""
    status, seen = running(OF)
    first = plan(view(OF, status, given=fresh(STRIPES), **seen)).status
    stored, mended = read(status_json(first))
    assert not mended
    late = stored.model_copy(update={"progress": ProgressStatus(step=step, steps=10_000)})
    _, seen = running(OF)
    return plan(view(OF, late, given=feed, later=HOUR + 1, **seen)).status


@pytest.mark.parametrize("feed", [None, replace(STRIPES, quality=Quality.NONE)])
def test_who_is_behind_without_a_feed_is_planned_anew_by_what_was_known(feed: Signal | None) -> None:
    after, beside = behind(feed), behind(replace(STRIPES, vintage=b.NOW.timestamp()))
    assert after.energy is not None
    assert beside.energy is not None
    assert after.energy.plan is not None
    assert beside.energy.plan is not None
    assert after.energy.plan.mode == "planned"
    assert after.energy.plan.made > b.NOW, "it is another one"
    assert after.energy.plan.slots == beside.energy.plan.slots, "the one that it had with its feed"
    assert after.energy.order is not None
    assert after.energy.order.workers == 0, "it rests in the dirty hours"


def test_it_is_remembered_from_plan_to_plan_until_it_is_stale() -> None:
    first = behind(None)
    assert first.energy is not None
    assert first.energy.plan is not None
    assert first.energy.plan.signal is not None
    again = first.model_copy(update={"progress": ProgressStatus(step=BEHIND, steps=10_000)})
    late = plan(view(OF, again, later=6 * HOUR + 10.0)).status
    assert late.energy is not None
    assert late.energy.plan is not None
    assert late.energy.plan.mode != "planned", "six hours after the feed's last word"


@given(
    step=st.sampled_from([300.0, 1800.0, HOUR]),
    count=st.integers(1, 2100),
    offset=st.floats(-5000.0, 3000.0),
    objective=st.sampled_from([CARBON, COST]),
)
@example(step=HOUR, count=400, offset=2400.0, objective=CARBON)
@example(step=HOUR, count=160, offset=-2400.0, objective=CARBON)
@example(step=HOUR, count=1, offset=-2400.0, objective=COST)
def test_what_is_written_is_what_was_known(step: float, count: int, offset: float, objective: Objective) -> None:
    """Up to the deadline; averaged where there are more values than a status has."""
    now = 1e9
    slots = tuple(
        Slot(now + offset + i * step, now + offset + (i + 1) * step, DIRTY if i % 24 < 12 else CLEAN)
        for i in range(count)
    )
    signal = Signal("DE", Measure.AVERAGE if objective.carbon else Measure.PRICE, Quality.FORECAST, slots, now, "test")
    point: dict[str, Any] = {"signal": signal} if objective.carbon else {"tariff": signal}
    asked = Request(
        now=now, work_steps=3600.0, curve=CURVE, deadline=now + 7 * 24 * HOUR, usual_workers=2,
        objective=objective, **point,
    )  # fmt: skip
    made = planned(asked)
    written = to_status(made, "x", asked)
    if made.mode is not Mode.PLANNED or written.signal is None:
        return
    question, vintages = remembering(asked, written, "DE")
    found = question.signal if objective.carbon else question.tariff
    assert found is not None
    assert vintages == (now,)
    assert found.measure is signal.measure
    assert len(found.slots) <= 168
    known = [slot for slot in slots if now < slot.end and slot.start < made.deadline]
    whole = sum((s.end - max(s.start, now)) * s.value for s in known)
    again = sum((s.end - max(s.start, now)) * s.value for s in found.slots if s.end > now)
    assert all(before.end == after.start for before, after in pairwise(found.slots)), "or each edge counts twice"
    length = found.slots[0].end - found.slots[0].start
    assert again == pytest.approx(whole, rel=0.02, abs=2 * DIRTY * length)
    if len(known) <= 168 and offset == int(offset):
        assert all(found.at((s.start + s.end) / 2) == pytest.approx(s.value, rel=1e-3) for s in known[1:])


def test_edges_that_two_plans_wrote_do_not_make_windows_of_no_length() -> None:
    """Each hour of a long plan had two ends, a quarter of a microsecond apart: twice the windows to plan in."""
    first = Signal("DE", Measure.AVERAGE, Quality.FORECAST, (Slot(0.0, 10.0, 1.0), Slot(10.0, 20.3, 2.0)), 9.0, "a")
    other = replace(first, slots=(Slot(0.0, 20.6, 5.0), Slot(20.6, 30.0, 6.0), Slot(30.0, 40.0, 7.0)), vintage=1.0)
    (found,) = newest([other, first]).values()
    assert found.slots == (*first.slots, Slot(20.3, 30.0, 6.0), Slot(30.0, 40.0, 7.0))


@pytest.mark.parametrize("deadline", ["2026-11-22T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_value_that_holds_for_ages_fits_into_a_status(deadline: str) -> None:
    """A defect here would end every pass over the job."""
    begin = b.NOW.timestamp()
    slots = (Slot(begin, begin + HOUR, DIRTY), Slot(begin + HOUR, begin + 1e15, CLEAN))
    of = spec(deadline=deadline)
    first = plan(view(of, given=replace(fresh(STRIPES), slots=slots))).status
    stored, mended = read(status_json(first))
    assert not mended
    assert stored.energy is not None
    assert stored.energy.plan is not None
    assert stored.energy.plan.signal is not None
    assert plan(view(of, stored, later=60.0)).status.energy is not None
